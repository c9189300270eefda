"""How often a stream that breaks is gone on with."""

from collections.abc import Callable

import httpx

from graphtide.calls import STREAM_TRIES, STREAM_WAIT_S
from graphtide.errors import ApiError, UnreachableError

# A stream that was open for so long was no failure, though nothing happened in it.
LIVED_S = 5.0
# A service says every 10 s, unless it is set otherwise, that a stream is alive: a shorter wait takes quiet for death.
QUIET_S = 30.0


class Patience:
    """Counts the tries to go on with one stream since it last told something, or lived for a while.

    Args:
        path: of the stream.
        timeout_s: how long a read waits before it breaks the stream.
        max_wait_s: the longest wait before the next try.
        clock: seconds that only grow.
    """

    def __init__(self, path: str, *, timeout_s: float, max_wait_s: float, clock: Callable[[], float]) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._max_wait_s = max_wait_s
        self._clock = clock
        self._tries = 0
        self._opened_at: float | None = None

    def opened(self) -> None:
        """Note that the service has begun the stream."""
        self._opened_at = self._clock()

    def told(self) -> None:
        """Note that an event came."""
        self._tries = 0

    def wait_s(self, cause: Exception | None) -> float:
        """Return how long to wait before the next try, now that the stream ended, or broke by `cause`.

        Raises:
            UnreachableError: it did too often.
        """
        if self._opened_at is not None and self._alive_until(cause) - self._opened_at >= LIVED_S:
            self._tries = 0
        self._opened_at = None
        wait_s = STREAM_WAIT_S * 2.0**self._tries
        if isinstance(cause, ApiError):
            wait_s = max(wait_s, cause.retry_after_s or 0)
        self._tries += 1
        if self._tries >= STREAM_TRIES:
            raise UnreachableError(f"the stream {self._path} broke {self._tries} times in a row") from cause
        return min(wait_s, self._max_wait_s)

    def _alive_until(self, cause: Exception | None) -> float:
        """Return when something came last: a read that timed out says that nothing did, not even a heartbeat."""
        return self._clock() - (self._timeout_s if isinstance(cause, httpx.TimeoutException) else 0)
