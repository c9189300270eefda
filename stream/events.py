"""Event, what makes one valid, and the columnar batch that the pipeline passes around."""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from infra.steps import format_time

if TYPE_CHECKING:
    from stream.decoders.records.base import Record
    from stream.lines import Lines

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

DEFAULT_GRAPH = "default"
# Of events that name no graph, where somebody else names it later.
UNNAMED_GRAPH = ""

_GRAPH_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
# C0, DEL, C1, and the surrogates that stand for bytes which are no UTF-8 (`surrogateescape`).
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_NOT_UTF8 = re.compile("[\ud800-\udfff]")
_SHOWN_CHARS = 60


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


class InvalidEventError(ValueError):
    """A record is no valid event; `str(error)` is the reason in one line, as a `Reject` states it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRules:
    """The bounds of a valid event.

    Attributes:
        min_ts_us, max_ts_us: earliest and latest event time, inclusive, in microseconds since the epoch. The default
            upper bound, 2200-01-01, tells seconds from milliseconds and still fits every unit into 64 bits.
        max_name_chars: longest node name or event id.
        max_type_chars: longest event type.
    """

    min_ts_us: int = 0
    max_ts_us: int = 7_258_118_400_000_000
    max_name_chars: int = 512
    max_type_chars: int = 64

    def graph(self, name: str) -> str:
        """Return the graph name without surrounding space.

        Raises:
            InvalidEventError: it is not `[a-z0-9][a-z0-9._-]{0,63}`.
        """
        name = name.strip()
        if _GRAPH_NAME.fullmatch(name) is None:
            raise InvalidEventError(
                f"graph {shown(name)} is no graph name (a-z, 0-9, then also . _ -, at most 64 characters)"
            )
        return name

    def name(self, name: str, role: str) -> str:
        """Return a node name or an id (`role` says which) without surrounding space.

        Raises:
            InvalidEventError: it is empty, too long, holds control characters or is not UTF-8.
        """
        name = name.strip()
        if not name:
            raise InvalidEventError(f"{role} is empty")
        return self._text(name, role, self.max_name_chars)

    def type(self, name: str) -> str:
        """Return the event type without surrounding space; it may be empty.

        Raises:
            InvalidEventError: it is too long, holds control characters or is not UTF-8.
        """
        return self._text(name.strip(), "type", self.max_type_chars)

    def ts_us(self, ts_us: int) -> int:
        """Return the event time.

        Raises:
            InvalidEventError: it lies outside `min_ts_us` to `max_ts_us`.
        """
        if ts_us < self.min_ts_us:
            where = "is negative" if ts_us < 0 else f"lies before {format_time(self.min_ts_us)}"
            raise InvalidEventError(f"time {ts_us} us {where}")
        if ts_us > self.max_ts_us:
            raise InvalidEventError(f"time {ts_us} us lies after {format_time(self.max_ts_us)}")
        return ts_us

    @staticmethod
    def weight(weight: float) -> float:
        """Return the weight.

        Raises:
            InvalidEventError: it is not finite.
        """
        if not math.isfinite(weight):
            raise InvalidEventError(f"weight {weight} is not finite")
        return weight

    def event(self, event: "Event") -> "Event":
        """Return the event with its names stripped.

        Raises:
            InvalidEventError: any of its fields is invalid.
        """
        return replace(
            event,
            graph=self.graph(event.graph),
            type=self.type(event.type),
            src=self.name(event.src, "src"),
            dst=self.name(event.dst, "dst"),
            ts_us=self.ts_us(event.ts_us),
            weight=self.weight(event.weight),
            id=None if event.id is None else self.name(event.id, "id"),
        )

    @staticmethod
    def _text(text: str, role: str, max_chars: int) -> str:
        if len(text) > max_chars:
            raise InvalidEventError(f"{role} has {len(text)} characters, more than {max_chars}")
        if not text.isprintable():
            if _CONTROL.search(text):
                raise InvalidEventError(f"{role} {shown(text)} holds a control character")
            if _NOT_UTF8.search(text):
                raise InvalidEventError(f"{role} is not UTF-8 text")
        return text


def shown(value: object) -> str:
    """Return a value as a reason quotes it: in ASCII, cut after some sixty characters."""
    text = ascii(value)
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that is no valid event, or an event that is not counted.

    Attributes:
        place: where it stood.
        record: what it was, cut to a few hundred characters.
        reason: why, in one line.
        stage: where it failed, in the words of `stream.decoders.records.base`; "" for logs.
        record_of: the whole record where it is kept: it becomes a dead letter.
    """

    place: str
    record: str
    reason: str
    stage: str = ""
    record_of: "Record | None" = None


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

    def codes(self, names: Sequence[str]) -> list[int]:
        """Return the codes of distinct names; those that were never seen get new ones in their order."""
        codes = self._codes
        new = [name for name in names if name not in codes]
        codes.update(zip(new, range(len(self.names), len(self.names) + len(new)), strict=True))
        self.names += new
        return [codes[name] for name in names]

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
    # Where the rows stood in a file; None where nobody can tell.
    lines: "Lines | None" = field(default=None, compare=False)

    def __len__(self) -> int:
        return len(self.ts_us)

    def __iter__(self) -> Iterator[Event]:
        """Yield the rows as single events; for tests and small batches."""
        names = self.interner.names
        for row in range(len(self)):
            yield Event(
                src=names[self.src[row]],
                dst=names[self.dst[row]],
                ts_us=int(self.ts_us[row]),
                graph=names[self.graph[row]],
                type=names[self.type[row]],
                weight=float(self.weight[row]),
                id=None if self.ids is None else self.ids[row],
            )

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
