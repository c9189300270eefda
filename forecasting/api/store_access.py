"""Questions to the store that requests ask: off the event loop, on a reader of each thread's own."""

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

from forecasting.api.problems import unavailable
from forecasting.tracing import NO_TRACING, Tracing
from infra.errors import GraphtideError
from stream.store.base import SnapshotReader

Result = TypeVar("Result")
THREADS = 2
_log = logging.getLogger(__name__)


class StoreAccess:
    """Asks a store in a few threads.

    Args:
        open_reader: opens it; called again after a failure.
        deadline_s: seconds that a request waits.
        tracing: makes spans of the questions.
    """

    def __init__(
        self, open_reader: Callable[[], SnapshotReader], *, deadline_s: float, tracing: Tracing = NO_TRACING
    ) -> None:
        self._open_reader = open_reader
        self._deadline_s = deadline_s
        self._tracing = tracing
        self._pool = ThreadPoolExecutor(THREADS, "graphtide-store")
        self._here = threading.local()

    async def ask(self, question: Callable[[SnapshotReader], Result]) -> Result:
        """Return the answer to a question.

        Raises:
            Problem: 503 where the store cannot be read, or not in time.
        """
        try:
            asked = asyncio.get_running_loop().run_in_executor(self._pool, copy_context().run, self._ask, question)
            return await asyncio.wait_for(asked, self._deadline_s)
        except TimeoutError:
            _log.warning("the store did not answer a request within %g s", self._deadline_s)
            detail = f"the snapshots were not there after {self._deadline_s:g} s"
            raise unavailable("store-unavailable", detail) from None
        except GraphtideError as error:
            _log.warning("the store cannot be read: %s", error.message)
            raise unavailable("store-unavailable", "the snapshots cannot be read at the moment") from None

    async def close(self) -> None:
        """End the threads; their readers end with them."""
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)

    def _ask(self, question: Callable[[SnapshotReader], Result]) -> Result:
        with self._tracing.span("store read"):
            return self._asked(question)

    def _asked(self, question: Callable[[SnapshotReader], Result]) -> Result:
        reader: SnapshotReader | None = getattr(self._here, "reader", None)
        if reader is None:
            reader = self._here.reader = self._open_reader()
        try:
            return question(reader)
        except GraphtideError:
            self._here.reader = None
            reader.close()
            raise
