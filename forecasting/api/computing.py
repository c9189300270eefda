"""Computed answers: one model thread that works in batches, its bounded queue, shared work, and the cache before it."""

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from dataclasses import dataclass
from time import perf_counter
from typing import TypeVar

from forecasting.api.cache import Answer, AnswerCache
from forecasting.api.problems import unavailable
from forecasting.api.shared_cache import SharedCache
from forecasting.api.telemetry import Telemetry
from forecasting.tracing import NO_TRACING, Tracing

Result = TypeVar("Result")
# More would keep the first of them waiting for the last.
MAX_BATCH = 32
# Between two batches, so that the answers of one leave and the next requests of their clients come in: these make one
# batch with those that wait, where two that take turns would each pay for a rollout and for the interpreter's lock.
_PAUSE_S = 0.001
_log = logging.getLogger(__name__)


class WorkFailedError(Exception):
    """The work of an answer failed; the cause is chained."""


@dataclass(slots=True, eq=False)
class _Wanted:
    """An answer that is waited for.

    Attributes:
        key: what it is kept under.
        make: makes the bytes, given the number of the batch.
        answered: set when it is there; None where nobody waited any more.
        context: of the request, whose span goes along into the thread.
        waiters: callers that wait for it.
    """

    key: tuple[Hashable, ...]
    make: Callable[[int], bytes]
    answered: "asyncio.Future[Answer | None]"
    context: Context
    waiters: int = 0


class Computing:
    """Computes answers off the event loop, each once for all who wait for it.

    What came while the thread was at work is its next batch: the more there is to do, the more share a rollout and the
    way to the thread and back. Nobody waits for a batch to fill, but for a millisecond after one of several.

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
        self._under_way: dict[tuple[Hashable, ...], _Wanted] = {}
        self._queue: deque[_Wanted] = deque()
        # The loop alone would forget them while they run.
        self._looking: set[asyncio.Future[None]] = set()
        # Those that wait and those at work.
        self._unanswered = 0
        self._is_at_work = self._is_closed = False
        self._batch = 0
        self._pool = ThreadPoolExecutor(1, "graphtide-model")

    async def close(self) -> None:
        """End the thread after what it does now, and leave the shared cache."""
        self._is_closed = True
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)
        for wanted in self._queue:
            wanted.answered.cancel()
        if self.shared is not None:
            await self.shared.close()

    def kept(self, key: tuple[Hashable, ...]) -> Answer | None:
        """Return the answer of `key` that is kept."""
        kept = self.cache.get(key)
        self._telemetry.cache.labels("miss" if kept is None else "hit").inc()
        if kept is not None:
            with self._tracing.span("answer") as span:
                span.set("graphtide.cache", "hit")
        return kept

    async def answer(self, key: tuple[Hashable, ...], make: Callable[[int], bytes], *, anew: bool = False) -> Answer:
        """Return an answer that was not kept: the one that is being computed, or that of `make`.

        Args:
            key: all that the bytes depend on, the graph first; its `repr` is the same in every process.
            make: makes the bytes, in the model thread, given the number of the batch that it is in.
            anew: one that is kept elsewhere or is being computed already will not do.

        Raises:
            Problem: 503 where the queue is full.
            WorkFailedError: the work raised.
        """
        with self._tracing.span("answer") as span:
            span.set("graphtide.cache", "miss")
            while True:
                wanted = None if anew else self._under_way.get(key)
                if wanted is not None:
                    self._telemetry.shared.inc()
                else:
                    wanted = self._enqueue(key, make, anew=anew)
                    if not anew:
                        self._under_way[key] = wanted
                wanted.waiters += 1
                try:
                    found = await asyncio.shield(wanted.answered)
                finally:
                    wanted.waiters -= 1
                # None only where all earlier callers had given up just before this one came.
                if found is not None:
                    return found

    async def within_deadline(self, answer: Awaitable[Result]) -> Result:
        """Return an answer that comes in time.

        Raises:
            Problem: 503 where it does not.
        """
        try:
            async with asyncio.timeout(self._deadline_s):
                return await answer
        except TimeoutError:
            self._telemetry.shed.labels("deadline").inc()
            raise unavailable("deadline", f"the answer was not there after {self._deadline_s:g} s") from None

    def _enqueue(self, key: tuple[Hashable, ...], make: Callable[[int], bytes], *, anew: bool) -> _Wanted:
        if self._unanswered >= self._queue_size:
            self._telemetry.shed.labels("queue").inc()
            raise unavailable("overloaded", f"{self._queue_size} forecasts wait already")
        wanted = _Wanted(key, make, asyncio.get_running_loop().create_future(), copy_context())
        self._count(+1)
        if self.shared is None or anew:
            self._queue.append(wanted)
            # Not at once: requests that were read together make one batch.
            asyncio.get_running_loop().call_soon(self._work)
        else:
            looking = asyncio.ensure_future(self._look(self.shared, wanted))
            self._looking.add(looking)
            looking.add_done_callback(self._looking.discard)
        return wanted

    async def _look(self, shared: SharedCache, wanted: _Wanted) -> None:
        """Take what another process has computed; else have it computed here."""
        try:
            found = await shared.get(wanted.key)
        except Exception:  # noqa: BLE001 - nobody would compute it, and all who ask for it would wait
            _log.exception("the shared cache failed in a way that is not known")
            found = None
        if found is None:
            self._queue.append(wanted)
            self._work()
            return
        self._settle(wanted, Answer(found, entity_tag(found)))
        self._count(-1)

    def _work(self) -> None:
        """Send the next batch to the thread, unless it is at work or has ended."""
        if self._is_at_work or self._is_closed or not self._queue:
            return
        self._is_at_work = True
        self._batch += 1
        batch = [self._queue.popleft() for _ in range(min(MAX_BATCH, len(self._queue)))]
        done = asyncio.get_running_loop().run_in_executor(self._pool, self._compute, batch, self._batch)
        done.add_done_callback(lambda done: self._answer(batch, done))

    def _compute(self, batch: list[_Wanted], number: int) -> "list[Answer | Exception | None]":
        """Return what became of each; in the model thread."""
        found: list[Answer | Exception | None] = []
        for wanted in batch:
            # Nobody waits any more: those who gave up were told so.
            if wanted.waiters <= 0:
                found.append(None)
                continue
            begin = perf_counter()
            try:
                body = wanted.context.run(self._make, wanted, number)
                found.append(Answer(body, entity_tag(body)))
            except Exception as error:  # noqa: BLE001 - one that fails does not take the others with it
                found.append(error)
            self._telemetry.model_seconds.observe(perf_counter() - begin)
        return found

    def _make(self, wanted: _Wanted, number: int) -> bytes:
        with self._tracing.span("rollout"):
            return wanted.make(number)

    def _answer(self, batch: list[_Wanted], done: "asyncio.Future[list[Answer | Exception | None]]") -> None:
        found: list[Answer | Exception | None] = [None] * len(batch) if done.cancelled() else done.result()
        for wanted, answer in zip(batch, found, strict=True):
            if done.cancelled():
                wanted.answered.cancel()
            elif self.shared is not None and isinstance(answer, Answer):
                self.shared.put(wanted.key, answer.body)
            self._settle(wanted, answer)
        self._count(-len(batch))
        self._is_at_work = False
        if done.cancelled():
            return
        if len(batch) > 1 and len(self._queue) < MAX_BATCH:
            asyncio.get_running_loop().call_later(_PAUSE_S, self._work)
        else:
            self._work()

    def _settle(self, wanted: _Wanted, answer: Answer | Exception | None) -> None:
        """Tell those who wait, and keep the answer."""
        if self._under_way.get(wanted.key) is wanted:
            del self._under_way[wanted.key]
        if wanted.answered.cancelled():
            return
        if isinstance(answer, Exception):
            _log.warning("an answer on %s could not be computed", wanted.key[0], exc_info=answer)
            failure = WorkFailedError()
            failure.__cause__ = answer
            wanted.answered.set_exception(failure)
            # Seen here, so that asyncio does not report it as never retrieved where all callers gave up.
            wanted.answered.exception()
            return
        if answer is not None:
            self.cache.put(wanted.key, answer)
        wanted.answered.set_result(answer)

    def _count(self, change: int) -> None:
        self._unanswered += change
        self._telemetry.queue.set(self._unanswered)


def entity_tag(body: bytes) -> str:
    """Return the entity tag of an answer: a digest of its bytes, in quotes."""
    # Processors have instructions for this one.
    return f'"{hashlib.sha256(body).hexdigest()[:24]}"'
