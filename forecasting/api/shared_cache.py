"""Computed answers that several serving processes share, in a store that may be slow or away: nobody waits for it long.

What an answer rests on is in its key (`name_of`), so that what is found under a key is right, whoever computed it and
when. A value carries a digest of its key and its bytes: one that was cut, damaged or written by something else is
dropped. That finds accidents; who may write to the store may write answers, so that it has to be protected as such.
"""

import asyncio
import hashlib
import hmac
import logging
from collections.abc import Awaitable, Callable, Hashable
from importlib.metadata import version
from typing import Protocol, TypeVar

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from forecasting.api.telemetry import Telemetry
from forecasting.tracing import NO_TRACING, Tracing
from infra.breaker import Breaker, BreakerState

Result = TypeVar("Result")
# Larger answers are kept by each process alone: they take longer to fetch than to compute.
MAX_VALUE_BYTES = 8 << 20
# Answers on their way into the store; beyond it, one more is not kept there.
_MAX_WRITING = 64
_TRIES = 2
_MAGIC = b"graphtide answer 1\n"
_DIGEST_BYTES = 32
_log = logging.getLogger(__name__)


class Store(Protocol):
    """Where values are kept. Every method raises OSError where it cannot be reached; `RedisStore` is one."""

    async def get(self, name: str, max_bytes: int) -> bytes | None:
        """Return the first `max_bytes` of a value; None if there is none."""
        ...

    async def put(self, name: str, value: bytes, lifetime_s: int) -> None:
        """Keep a value for so long."""
        ...

    async def ping(self) -> None:
        """Return if it answers."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


class SharedCache:
    """Answers in a store that may fail; for one event loop.

    Args:
        store: where they are.
        lifetime_s: seconds that an answer is kept.
        timeout_s: seconds that one try may take.
        breaker: keeps from trying a store that is away.
        telemetry: where look-ups and failures are counted.
        tracing: makes spans of them.
    """

    def __init__(
        self,
        store: Store,
        *,
        lifetime_s: int,
        timeout_s: float,
        breaker: Breaker,
        telemetry: Telemetry,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self._store = store
        self._lifetime_s = lifetime_s
        self._timeout_s = timeout_s
        self._breaker = breaker
        self._telemetry = telemetry
        self._tracing = tracing
        self._writing: set[asyncio.Task[bool | None]] = set()
        telemetry.shared_cache_up.set(1)

    @property
    def is_reached(self) -> bool:
        """Whether the store answered the last times that it was asked."""
        return self._breaker.state is BreakerState.CLOSED

    async def get(self, key: tuple[Hashable, ...]) -> bytes | None:
        """Return an answer; None if it is not there, or cannot be had at once."""
        name = name_of(key)
        most = len(_MAGIC) + _DIGEST_BYTES + MAX_VALUE_BYTES
        # A byte more than there may be shows a value that is too long.
        tried = await self._tried(lambda: _as_list(self._store.get(name, most + 1)))
        if tried is None:
            return None
        (value,) = tried
        if value is None:
            self._count("miss")
            return None
        body = opened(name, value) if len(value) <= most else None
        if body is None:
            self._count("dropped")
            _log.warning("a value in the shared cache is no answer of this service: it is computed anew")
            return None
        self._count("hit")
        return body

    def put(self, key: tuple[Hashable, ...], body: bytes) -> None:
        """Keep an answer, in the background."""
        if self._lifetime_s <= 0 or len(body) > MAX_VALUE_BYTES or len(self._writing) >= _MAX_WRITING:
            return
        name = name_of(key)

        async def keep() -> bool:
            await self._store.put(name, sealed(name, body), self._lifetime_s)
            return True

        task = asyncio.ensure_future(self._tried(keep))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def look(self) -> bool:
        """Ask the store whether it answers, unless it is left alone now; tell whether it is reached."""

        async def ping() -> bool:
            await self._store.ping()
            return True

        await self._tried(ping)
        return self.is_reached

    async def close(self) -> None:
        """Finish what is being written, and close the store."""
        await asyncio.gather(*self._writing, return_exceptions=True)
        await self._store.close()

    async def _tried(self, ask: Callable[[], Awaitable[Result]]) -> Result | None:
        """Return what `ask` returns, tried once more after a failure; None where the store is away."""
        if not self._breaker.may_try():
            self._count("skipped")
            return None
        retrying = AsyncRetrying(
            stop=stop_after_attempt(_TRIES),
            wait=wait_random_exponential(multiplier=self._timeout_s / 10, max=self._timeout_s),
            retry=retry_if_exception_type(OSError),
            reraise=True,
        )

        async def one_try() -> Result:
            # TimeoutError is an OSError.
            return await asyncio.wait_for(ask(), self._timeout_s)

        try:
            with self._tracing.span("shared cache"):
                found: Result = await retrying(one_try)
        except OSError as error:
            self._count("failed")
            if self._breaker.failed():
                self._telemetry.shared_cache_up.set(0)
                why = str(error) or f"it does not answer within {self._timeout_s:g} s"
                _log.warning("the shared cache is not reached, each process keeps its own answers: %s", why)
            return None
        if self._breaker.succeeded():
            self._telemetry.shared_cache_up.set(1)
            _log.warning("the shared cache is reached again")
        return found

    def _count(self, result: str) -> None:
        self._telemetry.shared_cache.labels(result).inc()


def name_of(key: tuple[Hashable, ...]) -> str:
    """Return the name of an answer in the store: a digest of all that it depends on, and of the version of this code.

    Args:
        key: values whose `repr` tells them apart, the same in every process.
    """
    # Another version may write the same answer in another way.
    text = repr((version("graphtide"), key))
    return f"graphtide:answer:{hashlib.blake2b(text.encode(), digest_size=20).hexdigest()}"


def sealed(name: str, body: bytes) -> bytes:
    """Return the value of an answer."""
    return _MAGIC + _digest(name, body) + body


def opened(name: str, value: bytes) -> bytes | None:
    """Return the answer in a value of `sealed`; None where it is none, is damaged, or stands under another name."""
    start = len(_MAGIC) + _DIGEST_BYTES
    body = value[start:]
    is_ours = value.startswith(_MAGIC) and hmac.compare_digest(value[len(_MAGIC) : start], _digest(name, body))
    return body if is_ours else None


def _digest(name: str, body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_DIGEST_BYTES, key=name.encode()).digest()


async def _as_list(answer: Awaitable[Result]) -> list[Result]:
    # So that a value that is not there differs from a store that is not.
    return [await answer]
