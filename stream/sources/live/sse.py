"""Server-sent events over HTTP."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx

from infra.errors import InputError
from stream.sources.live.connection import Address, DroppedError, Limits, Message, refusal, shown_url
from stream.sources.live.events import EventParser

_MEDIA_TYPE = "text/event-stream"


class SseConnection:
    """One HTTP response that does not end.

    Args:
        address: of the stream.
        limits: what it may take.
    """

    def __init__(self, address: Address, limits: Limits) -> None:
        self._address = address
        self._limits = limits
        self._network: Any = None

    def messages(self) -> Iterator[Message]:
        """Yield the events of the stream; see `Connection`."""
        url, where = self._address.url, shown_url(self._address.url)
        # An id that the server gave may hold any character; packed streams come in lumps, and hide where events end.
        headers = {name.encode(): value.encode() for name, value in self._address.headers.items()}
        headers |= {b"Accept": _MEDIA_TYPE.encode(), b"Cache-Control": b"no-store", b"Accept-Encoding": b"identity"}
        timeout = httpx.Timeout(self._limits.connect_timeout_s, read=self._limits.read_timeout_s)
        try:
            with (
                httpx.Client(timeout=timeout, follow_redirects=True) as client,
                client.stream("GET", url, headers=headers) as response,
            ):
                if response.status_code != httpx.codes.OK:
                    raise refusal(response.status_code, response.headers, url)
                self._network = response.extensions.get("network_stream")
                yield Message()
                if _MEDIA_TYPE not in response.headers.get("content-type", ""):
                    raise InputError(
                        f"{where} sends no server-sent events",
                        fix=f"check the address: --url; a streaming address answers with {_MEDIA_TYPE}",
                    )
                parser = EventParser(self._limits.max_message_bytes)
                for block in response.iter_bytes():
                    yield from parser.feed(block)
        except httpx.ReadTimeout:
            raise DroppedError(f"{where} was silent for {self._limits.read_timeout_s:g} s") from None
        except httpx.TimeoutException:
            raise DroppedError(f"{where} did not answer in {self._limits.connect_timeout_s:g} s") from None
        except (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.TooManyRedirects) as error:
            raise InputError(f"{where} cannot be read: {error}", fix="check the address: --url") from None
        except httpx.TransportError as error:
            if is_untrusted(error):
                raise untrusted(where) from None
            raise DroppedError(f"{where}: {str(error) or type(error).__name__}") from None
        raise DroppedError(f"{where} ended the stream")

    def close(self) -> None:
        """Shut the socket, which ends a read that another thread waits in."""
        connected = None if self._network is None else self._network.get_extra_info("socket")
        if connected is not None:
            with suppress(OSError):  # it had ended by itself
                connected.shutdown(socket.SHUT_RDWR)


def is_untrusted(error: BaseException) -> bool:
    """Tell whether an error comes from a certificate that is not trusted: another try would not change that."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def untrusted(where: str) -> InputError:
    """Return the error of a server whose certificate is not trusted."""
    return InputError(
        f"the certificate of {where} is not trusted",
        fix="check the address; SSL_CERT_FILE in the environment names the certificates of a private authority",
    )
