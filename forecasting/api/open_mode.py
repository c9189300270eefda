"""What a service without keys refuses: whoever is on this machine may use it, a page in a browser there may not.

Any page can make a browser send requests to this machine; it then names itself as `Origin`. A page whose name was made
to point to this machine meanwhile (DNS rebinding) counts as the same origin, but its name stands in `Host`.
"""

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from forecasting.api.problems import Problem

_DEFAULT_PORTS = (":80", ":443")


def is_loopback(host: str) -> bool:
    """Tell whether a name or an address, without a port, means this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in {"localhost", "localhost."}


def refuse_strangers(headers: Headers, *, only_loopback: bool) -> None:
    """Refuse a request that a page of another origin may have caused.

    Args:
        headers: of the request.
        only_loopback: whether the service is reached by names of this machine alone.

    Raises:
        Problem: 421 or 403.
    """
    given = headers.getlist("host")
    host = given[0].strip().lower() if len(given) == 1 else ""
    if only_loopback and not is_loopback(_name(host)):
        fix = "ask 127.0.0.1 or localhost, or make a key: graphtide keys create"
        detail = f"{host[:200]!r} is no name of this machine: {fix}"
        raise Problem(421, "misdirected", detail)
    for origin in headers.getlist("origin"):
        if _authority(origin) != _without_default_port(host):
            detail = f"the page {origin[:200]!r} may not use this service; its own pages and programs may"
            raise Problem(403, "foreign-origin", detail)


def _name(host: str) -> str:
    """Return `Host` without its port, and an address of IPv6 without its brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _authority(origin: str) -> str:
    try:
        return _without_default_port(urlsplit(origin.strip().lower()).netloc)
    except ValueError:
        return ""


def _without_default_port(host: str) -> str:
    for port in _DEFAULT_PORTS:
        host = host.removesuffix(port)
    return host
