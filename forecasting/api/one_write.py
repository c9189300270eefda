"""Head and body of an answer in one write: uvicorn writes them apart, and each write is a system call and a wake-up of
the client, which takes longer than to find a kept answer.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class Pairing:
    """A transport that holds back what is written until the next write, or until the loop's next turn.

    Args:
        transport: where it goes.
        loop: whose turns count.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send what is held with the data after it; else hold the data."""
        if self._held:
            held, self._held = self._held, b""
            self._transport.writelines([held, data])
        elif data:
            self._held = data
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        """Send what is held, and close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held)


class OneWriteProtocol(HttpToolsProtocol):
    """The HTTP protocol of uvicorn over such a transport."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin a connection."""
        super().connection_made(Pairing(transport, self.loop))  # type: ignore[arg-type]
