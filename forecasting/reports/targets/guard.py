"""Requests to addresses that someone named: only to where they may go, without redirects, and to the address checked.

A name is resolved once, its addresses are checked, and the connection is made to the one that was checked: a name that
resolves to something else a moment later gains nothing.
"""

import ipaddress
import socket
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import httpx

from forecasting.reports.deliveries import DeliveryError

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# These may be tried again; every other answer of 4xx says that the request itself is wrong.
_PASSING = {408, 409, 425, 429}
Resolve = Callable[[str, int], list[str]]


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host.

    Raises:
        DeliveryError: there is none now.
    """
    try:
        return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError) as error:
        raise DeliveryError(f"{host} has no address: {error}") from error


def request(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    allow_private: bool,
    timeout_s: float,
    resolve_host: Resolve = resolve,
) -> None:
    """Send a request and return once it was answered with 2xx.

    Args:
        method, url, headers, body: the request; `url` is https, or http where private addresses are allowed.
        allow_private: whether addresses that are not public may be reached.
        timeout_s: for the connection, and for each part of the answer.
        resolve_host: returns the addresses of a host.

    Raises:
        DeliveryError: it may not be sent, was not sent, or was not taken.
    """
    port = check_address(url, allow_private=allow_private)
    asked = _asked(url)
    # As it goes over the wire: letters beyond ASCII in Punycode.
    host = asked.raw_host.decode("ascii")
    address = _allowed(host, resolve_host(host, port), allow_private=allow_private)
    pinned = asked.copy_with(host=address)
    sent = {**headers, "Host": host_header(url)}
    try:
        with (
            httpx.Client(timeout=timeout_s, follow_redirects=False, trust_env=False) as client,
            client.stream(method, pinned, headers=sent, content=body, extensions={"sni_hostname": host}) as response,
        ):
            status = response.status_code
    except (httpx.HTTPError, OSError) as error:
        raise DeliveryError(f"{_shown(url)} did not answer: {type(error).__name__}") from error
    if not 200 <= status < 300:
        is_final = 300 <= status < 500 and status not in _PASSING
        raise DeliveryError(f"{_shown(url)} answered {status}", is_final=is_final)


def check_address(url: str, *, allow_private: bool) -> int:
    """Return the port of an address that requests may be sent to, as far as one can tell without asking anybody.

    Args:
        url: https, or http where private addresses are allowed.
        allow_private: whether addresses that are not public may be reached.

    Raises:
        DeliveryError: it cannot be used.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise DeliveryError("it is no address: give an https address", is_final=True) from None
    schemes = {"https", "http"} if allow_private else {"https"}
    if not parts.hostname or parts.username is not None or parts.scheme not in schemes:
        raise DeliveryError(f"{_shown(url)} cannot be used: give an https address without a user", is_final=True)
    _asked(url)
    try:
        return parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise DeliveryError(f"{_shown(url)} has no port that can be used", is_final=True) from None


def host_header(url: str) -> str:
    """Return the `Host` that a request is sent with: in ASCII, and without the port that its scheme has anyway.

    Raises:
        DeliveryError: the address cannot be used.
    """
    return _asked(url).netloc.decode("ascii")


def _asked(url: str) -> httpx.URL:
    try:
        return httpx.URL(url)
    except httpx.InvalidURL:
        raise DeliveryError(f"{_shown(url)} is no address that can be used", is_final=True) from None


def _allowed(host: str, addresses: list[str], *, allow_private: bool) -> str:
    """Return an address to connect to; all have to be allowed, or one of them would be a matter of chance."""
    for text in addresses:
        address = ipaddress.ip_address(text.partition("%")[0])
        if not _is_public(address) and not allow_private:
            raise DeliveryError(
                f"{host} is {address}, which is no public address: allow_private = true of the target allows it",
                is_final=True,
            )
    if not addresses:
        raise DeliveryError(f"{host} has no address")
    return addresses[0]


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return _is_public(inner)
    return address.is_global and not address.is_multicast


def _shown(url: str) -> str:
    # A path or a query may hold a secret.
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}"
