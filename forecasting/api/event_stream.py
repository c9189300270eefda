"""The answer that is a stream of events: counted while it is open, and cut where its reader does not read."""

import asyncio
import logging
from collections.abc import AsyncIterator

from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from forecasting.api.service import Service

_log = logging.getLogger(__name__)


class SlowReaderError(Exception):
    """The reader took too long to take what was sent."""


class EventStream(StreamingResponse):
    """Streams events; at most one of them and the socket's buffer wait for a reader, for a limited time.

    Args:
        service: whose streams are counted.
        key_id: whose stream it is.
        events: what is sent.
        media_type: of the stream.

    Raises:
        Problem: 429 or 503, too many streams are open.
    """

    def __init__(self, service: Service, key_id: str, events: AsyncIterator[bytes], media_type: str) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(events, headers=headers, media_type=media_type)
        self._service = service
        self._key_id = key_id
        service.subscriptions.enter(key_id)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until they end, the reader goes, or is too slow."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._service.subscriptions.leave(self._key_id)

    async def stream_response(self, send: Send) -> None:
        """Send the events; each has to be taken in time."""

        async def in_time(message: Message) -> None:
            try:
                await asyncio.wait_for(send(message), self._service.settings.api.send_timeout_s)
            except TimeoutError:
                raise SlowReaderError from None

        try:
            await super().stream_response(in_time)
        except SlowReaderError:
            # The answer stays without its end, by which the server closes the connection.
            self._service.telemetry.cut.inc()
            _log.info("a stream was cut: its reader took nothing for %g s", self._service.settings.api.send_timeout_s)
