"""Messages over a WebSocket."""

from collections.abc import Iterator

from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidStatus,
    InvalidURI,
    WebSocketException,
)
from websockets.frames import CloseCode
from websockets.sync.client import ClientConnection, connect

from infra.errors import InputError
from stream.sources.live.connection import Address, DroppedError, Limits, Message, refusal, shown_url, too_long
from stream.sources.live.sse import is_untrusted, untrusted

_CLOSE_TIMEOUT_S = 1.0


class WebSocketConnection:
    """One WebSocket.

    Args:
        address: of the server.
        limits: what it may take.
    """

    def __init__(self, address: Address, limits: Limits) -> None:
        self._address = address
        self._limits = limits
        self._socket: ClientConnection | None = None

    def messages(self) -> Iterator[Message]:
        """Yield what the server sends; see `Connection`."""
        limits, url, where = self._limits, self._address.url, shown_url(self._address.url)
        try:
            with connect(
                url,
                additional_headers=dict(self._address.headers),
                user_agent_header=None if "User-Agent" in self._address.headers else "graphtide",
                open_timeout=limits.connect_timeout_s,
                close_timeout=_CLOSE_TIMEOUT_S,
                max_size=limits.max_message_bytes,
            ) as self._socket:
                yield Message()
                while True:
                    try:
                        message = self._next(self._socket)
                    except ConnectionClosed as error:
                        # The library closes with this code where a message is longer than we take. If the server
                        # was asked to leave such ones out, each try would end here.
                        if not _is_too_long(error) or self._address.bounded:
                            raise
                        message = Message(too_long=b"")
                    yield message
                    if message.too_long is not None:
                        raise DroppedError(f"{where} sent a message of more than {limits.max_message_bytes:,} bytes")
        except InvalidStatus as error:
            raise refusal(error.response.status_code, error.response.headers, url) from None
        except InvalidURI:
            raise InputError(f"{where} is no address of a WebSocket", fix="check the address: --url") from None
        except ConnectionClosed as error:
            if _is_too_long(error):
                raise too_long(url, limits.max_message_bytes) from None
            said = error.rcvd
            why = f"closed the connection ({said.code} {said.reason})".strip() if said else "dropped the connection"
            raise DroppedError(f"{where} {why}") from None
        except TimeoutError:
            raise DroppedError(f"{where} did not answer in {limits.connect_timeout_s:g} s") from None
        except InvalidHandshake as error:
            raise DroppedError(f"{where} does not speak WebSocket: {error}") from None
        except (OSError, EOFError, WebSocketException) as error:
            if is_untrusted(error):
                raise untrusted(where) from None
            raise DroppedError(f"{where}: {error}") from None

    def close(self) -> None:
        """Close the socket, which ends a read that another thread waits in."""
        if self._socket is not None:
            self._socket.close()

    def _next(self, connected: ClientConnection) -> Message:
        """Return the next message; a server that is silent has to answer a ping."""
        while True:
            try:
                text = connected.recv(timeout=self._limits.read_timeout_s)
            except TimeoutError:
                if not connected.ping().wait(self._limits.connect_timeout_s):
                    where = shown_url(self._address.url)
                    raise DroppedError(f"{where} was silent for {self._limits.read_timeout_s:g} s") from None
            else:
                return Message(value=text.encode() if isinstance(text, str) else text)


def _is_too_long(error: ConnectionClosed) -> bool:
    return error.sent is not None and error.sent.code == CloseCode.MESSAGE_TOO_BIG
