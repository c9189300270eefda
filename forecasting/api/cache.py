"""Answers that were computed, as bytes, within a number of bytes and seconds."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

# What an entry takes beside its body.
_OVERHEAD_BYTES = 1000


@dataclass(frozen=True, slots=True)
class Answer:
    """An encoded answer.

    Attributes:
        body: the bytes.
        etag: its entity tag, in quotes.
        media_type: what the bytes are.
    """

    body: bytes
    etag: str
    media_type: str = "application/json"


class AnswerCache:
    """Keeps the answers used last; the key's first part is the graph that an answer is about.

    Args:
        max_bytes: bytes of all answers.
        lifetime_s: seconds that an answer is kept.
        clock: seconds that never run backwards.
    """

    def __init__(self, *, max_bytes: int, lifetime_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes = max_bytes
        self._lifetime_s = lifetime_s
        self._clock = clock
        self._bytes = 0
        self._kept: OrderedDict[tuple[Hashable, ...], tuple[Answer, float]] = OrderedDict()

    def get(self, key: tuple[Hashable, ...]) -> Answer | None:
        """Return an answer, or None if it is not there or too old."""
        found = self._kept.get(key)
        if found is None:
            return None
        answer, until = found
        if self._clock() >= until:
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return answer

    def put(self, key: tuple[Hashable, ...], answer: Answer) -> None:
        """Keep an answer, if it fits at all."""
        self._drop(key)
        size = len(answer.body) + _OVERHEAD_BYTES
        if size > self._max_bytes or self._lifetime_s <= 0:
            return
        self._kept[key] = answer, self._clock() + self._lifetime_s
        self._bytes += size
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._kept)))

    def forget(self, graph: str) -> None:
        """Drop every answer about a graph."""
        for key in [key for key in self._kept if key[0] == graph]:
            self._drop(key)

    @property
    def size_bytes(self) -> int:
        """Bytes that are taken now."""
        return self._bytes

    def _drop(self, key: tuple[Hashable, ...]) -> None:
        found = self._kept.pop(key, None)
        if found is not None:
            self._bytes -= len(found[0].body) + _OVERHEAD_BYTES
