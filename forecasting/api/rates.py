"""How often a key may ask: a token bucket each."""

import math
import time
from collections.abc import Callable


class Rates:
    """Token buckets by key. A request takes one token; `per_s` come back each second, up to `burst`.

    Args:
        per_s: requests a second in the long run; 0 for no limit.
        burst: requests at once.
        clock_s: seconds that never run backwards.
    """

    def __init__(self, *, per_s: float, burst: int, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._burst = burst
        self._clock_s = clock_s
        # Tokens, and when they were counted. There are as many as valid keys that were used.
        self._buckets: dict[str, tuple[float, float]] = {}

    def wait_s(self, key_id: str) -> int:
        """Take a token; return 0, or where there is none the whole seconds until there is one."""
        if self._per_s <= 0:
            return 0
        now_s = self._clock_s()
        tokens, counted_s = self._buckets.get(key_id, (float(self._burst), now_s))
        tokens = min(self._burst, tokens + (now_s - counted_s) * self._per_s)
        if tokens < 1:
            self._buckets[key_id] = tokens, now_s
            return math.ceil((1 - tokens) / self._per_s)
        self._buckets[key_id] = tokens - 1, now_s
        return 0
