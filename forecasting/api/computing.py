"""Computed answers: one model thread with a bounded queue, shared work, and the cache before it."""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from time import perf_counter
from typing import TypeVar

from forecasting.api.cache import Answer, AnswerCache
from forecasting.api.problems import unavailable
from forecasting.api.shared_cache import SharedCache
from forecasting.api.telemetry import Telemetry
from forecasting.tracing import NO_TRACING, Tracing

Result = TypeVar("Result")
_log = logging.getLogger(__name__)


class WorkFailedError(Exception):
    """The work of an answer failed; the cause is chained."""


class Computing:
    """Computes answers off the event loop, each once for all who wait for it.

    Args:
        cache: answers that were computed.
        queue_size: answers that may wait.
        deadline_s: seconds that a caller waits.
        telemetry: where the work is counted.
        shared: answers that other processes computed; None where none are shared.
        tracing: makes spans of the work.
    """

    def __init__(
        self,
        cache: AnswerCache,
        *,
        queue_size: int,
        deadline_s: float,
        telemetry: Telemetry,
        shared: SharedCache | None = None,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self.cache = cache
        self.shared = shared
        self._tracing = tracing
        self._queue_size = queue_size
        self._deadline_s = deadline_s
        self._telemetry = telemetry
        self._inflight: dict[tuple[Hashable, ...], asyncio.Future[Answer | None]] = {}
        self._waiters: dict[tuple[Hashable, ...], int] = {}
        self._pool = ThreadPoolExecutor(1, "graphtide-model")

    async def close(self) -> None:
        """End the thread after what it does now, and leave the shared cache."""
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)
        if self.shared is not None:
            await self.shared.close()

    async def answer(self, key: tuple[Hashable, ...], work: Callable[[], bytes]) -> Answer:
        """Return the answer of `key`: the one that is kept, the one that is being computed, or that of `work`.

        Args:
            key: all that the bytes depend on, the graph first; its `repr` is the same in every process.
            work: makes the bytes, in the model thread.

        Raises:
            Problem: 503 where the queue is full.
            WorkFailedError: the work raised.
        """
        with self._tracing.span("answer") as span:
            kept = self.cache.get(key)
            result = "miss" if kept is None else "hit"
            self._telemetry.cache.labels(result).inc()
            span.set("graphtide.cache", result)
            while kept is None:
                # None again only where all earlier callers had given up just before this one came.
                kept = await self._wait(key, work)
            return kept

    async def _wait(self, key: tuple[Hashable, ...], work: Callable[[], bytes]) -> Answer | None:
        future = self._inflight.get(key)
        if future is not None:
            self._telemetry.shared.inc()
        elif len(self._inflight) >= self._queue_size:
            self._telemetry.shed.labels("queue").inc()
            raise unavailable("overloaded", f"{self._queue_size} forecasts wait already")
        else:
            future = asyncio.ensure_future(self._compute(key, work))
            self._inflight[key] = future
            future.add_done_callback(lambda done: self._finished(key, done))
            self._telemetry.queue.set(len(self._inflight))
        self._waiters[key] = self._waiters.get(key, 0) + 1
        try:
            return await asyncio.shield(future)
        finally:
            if key in self._waiters:
                self._waiters[key] -= 1

    async def within_deadline(self, answer: Awaitable[Result]) -> Result:
        """Return an answer that comes in time.

        Raises:
            Problem: 503 where it does not.
        """
        try:
            return await asyncio.wait_for(answer, self._deadline_s)
        except TimeoutError:
            self._telemetry.shed.labels("deadline").inc()
            raise unavailable("deadline", f"the answer was not there after {self._deadline_s:g} s") from None

    async def _compute(self, key: tuple[Hashable, ...], work: Callable[[], bytes]) -> Answer | None:
        def run() -> bytes | None:
            # Nobody waits any more: those who gave up were told so.
            if self._waiters.get(key, 0) <= 0:
                return None
            begin = perf_counter()
            with self._tracing.span("rollout"):
                body = work()
            self._telemetry.model_seconds.observe(perf_counter() - begin)
            return body

        if self.shared is not None and (found := await self.shared.get(key)) is not None:
            return self._kept(key, found)

        try:
            # The span of the request goes along into the thread.
            here = copy_context()
            body = await asyncio.get_running_loop().run_in_executor(self._pool, here.run, run)
        except Exception as error:
            _log.warning("an answer on %s could not be computed", key[0], exc_info=error)
            raise WorkFailedError from error
        if body is None:
            return None
        if self.shared is not None:
            self.shared.put(key, body)
        return self._kept(key, body)

    def _kept(self, key: tuple[Hashable, ...], body: bytes) -> Answer:
        answer = Answer(body, entity_tag(body))
        self.cache.put(key, answer)
        return answer

    def _finished(self, key: tuple[Hashable, ...], done: "asyncio.Future[Answer | None]") -> None:
        del self._inflight[key]
        self._waiters.pop(key, None)
        self._telemetry.queue.set(len(self._inflight))
        if not done.cancelled():
            # Seen here, so that asyncio does not report it as never retrieved where all callers gave up.
            done.exception()


def entity_tag(body: bytes) -> str:
    """Return the entity tag of an answer: a digest of its bytes, in quotes."""
    return f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
