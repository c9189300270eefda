"""A circuit breaker: what failed several times in a row is left alone for a while, then one caller tries again."""

import threading
import time
from collections.abc import Callable
from enum import StrEnum


class BreakerState(StrEnum):
    """Whether a breaker lets calls through: all, none, or one that tells how it is now."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """Counts failures in a row; for threads and event loops alike, as it never waits.

    Of our own, since the libraries for it wrap a call, of one kind, and let every caller through while half-open; here
    exactly one probes after each pause, and a probe that is never told of costs one more pause.

    Args:
        failures: in a row that open it, at least 1.
        pause_s: seconds that it stays open before one call is let through.
        clock_s: seconds that never run backwards.
    """

    def __init__(self, *, failures: int, pause_s: float, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._most = failures
        self._pause_s = pause_s
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._failed = 0
        self._wait_until_s = 0.0

    @property
    def state(self) -> BreakerState:
        """Return how it stands now."""
        with self._lock:
            if self._failed < self._most:
                return BreakerState.CLOSED
            return BreakerState.OPEN if self._clock_s() < self._wait_until_s else BreakerState.HALF_OPEN

    def may_try(self) -> bool:
        """Tell whether to call now; of those who ask a half-open one, only the first in each pause is let through."""
        with self._lock:
            if self._failed < self._most:
                return True
            now_s = self._clock_s()
            if now_s < self._wait_until_s:
                return False
            self._wait_until_s = now_s + self._pause_s
            return True

    def succeeded(self) -> bool:
        """Be told of a call that succeeded; tell whether that closed it."""
        with self._lock:
            was_open, self._failed = self._failed >= self._most, 0
            return was_open

    def failed(self) -> bool:
        """Be told of a call that failed; tell whether that opened it, from closed."""
        with self._lock:
            self._failed += 1
            self._wait_until_s = self._clock_s() + self._pause_s
            return self._failed == self._most
