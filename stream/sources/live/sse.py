"""Server-sent events over HTTP."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
from httpx_sse import SSEError, connect_sse

from infra.errors import InputError
from stream.sources.live.connection import Address, DroppedError, Limits, Message, refusal, shown_url, too_long

# A blank line ends an event; a stream may end its lines in any of three ways.
_ENDS = (b"\n\n", b"\r\r", b"\r\n\r\n")
_LONGEST_END = 4


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
        headers = {name: value.encode() for name, value in self._address.headers.items()}
        headers["Accept-Encoding"] = b"identity"
        timeout = httpx.Timeout(self._limits.connect_timeout_s, read=self._limits.read_timeout_s)
        try:
            with (
                httpx.Client(timeout=timeout, follow_redirects=True) as client,
                connect_sse(client, "GET", url, headers=headers) as source,
            ):
                response = source.response
                if response.status_code != httpx.codes.OK:
                    raise refusal(response.status_code, response.headers, url)
                self._network = response.extensions.get("network_stream")
                if "content-encoding" not in response.headers:
                    response.stream = _Bounded(response.stream, url, self._limits.max_message_bytes)
                yield Message()
                for event in source.iter_sse():
                    value = event.data.encode()
                    if len(value) > self._limits.max_message_bytes:
                        raise too_long(url, self._limits.max_message_bytes)
                    yield Message(
                        value=value or None,
                        event=event.event if event.event != "message" else "",
                        id=event.id,
                        retry_s=None if event.retry is None else max(event.retry, 0) / 1000,
                    )
        except SSEError:
            raise InputError(
                f"{where} sends no server-sent events",
                fix="check the address: --url; a streaming address answers with text/event-stream",
            ) from None
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


class _Bounded(httpx.SyncByteStream):
    """The body of a response, of which no event may be longer than a limit: the parser keeps all of an unended one."""

    def __init__(self, inner: Any, url: str, max_bytes: int) -> None:
        self._inner = inner
        self._url = url
        self._max_bytes = max_bytes

    def __iter__(self) -> Iterator[bytes]:
        unended, tail = 0, b""
        for block in self._inner:
            seen = tail + block
            end = max(seen.rfind(mark) + len(mark) if mark in seen else 0 for mark in _ENDS)
            unended = len(seen) - end if end > len(tail) else unended + len(block)
            if unended > self._max_bytes:
                raise too_long(self._url, self._max_bytes)
            tail = seen[-_LONGEST_END + 1 :]
            yield block

    def close(self) -> None:
        """Close the response."""
        self._inner.close()
