"""Event, what makes one valid, and the columnar batch that the pipeline passes around."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

DEFAULT_GRAPH = "default"


@dataclass(frozen=True, slots=True)
class Event:
    """One interaction. `ts_us` is event time, UTC, in microseconds since the epoch."""

    src: str
    dst: str
    ts_us: int
    graph: str = DEFAULT_GRAPH
    type: str = ""
    weight: float = 1.0
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that is no valid event: where it stood, what it was (cut to a few hundred characters), why."""

    place: str
    record: str
    reason: str


class Interner:
    """Strings to consecutive integer codes, shared by the batches of one source."""

    __slots__ = ("_codes", "names")

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self.names: list[str] = []

    def code(self, name: str) -> int:
        """Return the code of `name`, a new one if it was never seen."""
        code = self._codes.get(name)
        if code is None:
            code = self._codes[name] = len(self.names)
            self.names.append(name)
        return code

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, slots=True)
class EventBatch:
    """n events as columns; `src`, `dst`, `graph` and `type` are codes of `interner`, all arrays have shape [n]."""

    interner: Interner
    graph: IntArray
    type: IntArray
    src: IntArray
    dst: IntArray
    ts_us: IntArray
    weight: FloatArray
    ids: list[str | None] | None = field(default=None)

    def __len__(self) -> int:
        return len(self.ts_us)

    @classmethod
    def from_events(cls, events: Iterable[Event], interner: Interner) -> "EventBatch":
        """Build a batch from single events, in their order."""
        rows = list(events)
        code = interner.code
        ids = [event.id for event in rows]
        return cls(
            interner=interner,
            graph=np.array([code(event.graph) for event in rows], dtype=np.int64),
            type=np.array([code(event.type) for event in rows], dtype=np.int64),
            src=np.array([code(event.src) for event in rows], dtype=np.int64),
            dst=np.array([code(event.dst) for event in rows], dtype=np.int64),
            ts_us=np.array([event.ts_us for event in rows], dtype=np.int64),
            weight=np.array([event.weight for event in rows], dtype=np.float64),
            ids=ids if any(id_ is not None for id_ in ids) else None,
        )
