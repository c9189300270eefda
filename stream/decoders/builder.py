"""Raw records to validated event columns: whole columns at once, row by row only where a block holds a bad record."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np

from infra.errors import InputError
from stream.decoders.base import ALIASES, BadRecord, RawColumns
from stream.decoders.times import TimeReader
from stream.events import (
    DEFAULT_GRAPH,
    EventBatch,
    EventRules,
    FloatArray,
    IntArray,
    Interner,
    InvalidEventError,
    Reject,
    shown,
)

SHOWN_RECORD_CHARS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeOptions:
    """How a log is to be read; all that can change which events come out of the same bytes.

    Attributes:
        graph: the graph of events that carry none.
        format: `auto`, `ndjson`, `json`, `csv`, `tsv` or `edgelist`.
        columns: role (`src`, `dst`, `ts`, `weight`, `type`, `graph`, `id`) to the name of its field, or to its
            number, counted from 1, in an edge list without a header.
        bipartite: src and dst are two id spaces; nodes are then named `u:SRC` and `i:DST`.
        time_unit: of numeric times: `auto`, `s`, `ms`, `us` or `ns`.
        rules: bounds of a valid event.
        strict: stop at the first bad record.
        reject_sample: how many bad records of a file are kept for the report; all are counted.
    """

    graph: str = DEFAULT_GRAPH
    format: str = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    bipartite: bool = False
    time_unit: str = "auto"
    rules: EventRules = field(default_factory=EventRules)
    strict: bool = False
    reject_sample: int = 100

    def fingerprint(self) -> str:
        """Return what two readings of the same bytes must share to give the same events; "" for the defaults.

        It is part of a source's name, so that the same log read in another way is another source.
        """
        default = DecodeOptions()
        parts = [
            f"{name}={getattr(self, name)}"
            for name in ("graph", "format", "time_unit", "bipartite", "rules")
            if getattr(self, name) != getattr(default, name)
        ]
        parts += [f"{role}={name}" for role, name in sorted(self.columns.items())]
        return f"#{'&'.join(parts)}" if parts else ""


class RejectLog:
    """Counts the bad records of one file and keeps the first of them.

    Args:
        label: the file, as places name it.
        limit: how many to keep.
        strict: raise at the first.
    """

    def __init__(self, label: str, *, limit: int, strict: bool) -> None:
        self.label = label
        self.count = 0
        self.sample: list[Reject] = []
        self._limit = limit
        self._strict = strict

    def extend(self, records: list[BadRecord]) -> None:
        """Add bad records of one block.

        Raises:
            InputError: `strict`, and there is one.
        """
        self.count += len(records)
        if not records or (len(self.sample) >= self._limit and not self._strict):
            return
        records = sorted(records, key=lambda record: record.line)
        if self._strict:
            first = self._reject(records[0])
            raise InputError(
                f"bad record: {first.reason}",
                place=first.place,
                fix=f"mend the record ({shown(first.record)}), or read on past bad records without --strict",
            )
        self.sample += [self._reject(record) for record in records[: self._limit - len(self.sample)]]

    def _reject(self, record: BadRecord) -> Reject:
        text = record.text[:SHOWN_RECORD_CHARS].encode("utf-8", "backslashreplace").decode("utf-8")
        return Reject(place=f"{self.label}:{record.line}", record=text, reason=record.reason)


class _Codes(dict[Any, int]):
    """Raw names to codes; a name is validated when it is first seen."""

    def __init__(self, clean: Callable[[str], str], interner: Interner, prefix: str = "") -> None:
        super().__init__()
        self._clean = clean
        self._interner = interner
        self._prefix = prefix

    def __missing__(self, raw: Any) -> int:
        code = self._interner.code(self._prefix + self._clean(str(raw)))
        self[raw] = code
        return code


class EventBuilder:
    """Builds event batches whose codes are those of one interner.

    The interner may also hold names of rejected records; nodes are counted from the columns, never from it.
    """

    def __init__(self, interner: Interner, options: DecodeOptions) -> None:
        rules = options.rules
        self.interner = interner
        self.options = options
        self._rules = rules
        prefixes = ("u:", "i:") if options.bipartite else ("", "")
        self._src = _Codes(lambda name: rules.name(name, "src"), interner, prefixes[0])
        self._dst = _Codes(lambda name: rules.name(name, "dst"), interner, prefixes[1])
        self._type = _Codes(rules.type, interner)
        self._graph = _Codes(rules.graph, interner)
        self._default = {"type": self._type[""], "graph": self._graph[options.graph]}

    def shared_names(self) -> int:
        """Return how many raw names were seen both as src and as dst."""
        return len(self._src.keys() & self._dst.keys())

    def build(self, raw: RawColumns, times: TimeReader, log: RejectLog) -> EventBatch:
        """Validate raw records; bad ones go to `log`.

        Raises:
            InputError: the log is strict and there is a bad record.
        """
        try:
            batch = self._by_column(raw, times)
            bad = raw.bad
        except (InvalidEventError, ValueError, OverflowError, TypeError):
            batch, invalid = self._by_row(raw, times)
            bad = raw.bad + invalid
        log.extend(bad)
        return batch

    def _by_column(self, raw: RawColumns, times: TimeReader) -> EventBatch:
        columns, n = raw.columns, len(raw.lines)
        ids = columns.get("id")
        return EventBatch(
            interner=self.interner,
            graph=self._optional_codes("graph", raw, self._graph),
            type=self._optional_codes("type", raw, self._type),
            src=_codes(columns["src"], self._src, typed=raw.typed),
            dst=_codes(columns["dst"], self._dst, typed=raw.typed),
            ts_us=times.column(columns["ts"], typed=raw.typed),
            weight=_weights(columns["weight"], typed=raw.typed) if "weight" in columns else np.ones(n),
            ids=None if ids is None else [self._id(value) for value in ids],
        )

    def _by_row(self, raw: RawColumns, times: TimeReader) -> tuple[EventBatch, list[BadRecord]]:
        n = len(raw.lines)
        columns = raw.columns
        nothing: Sequence[Any] = [None] * n
        graph, type_, weight, ids = (columns.get(role, nothing) for role in ("graph", "type", "weight", "id"))
        kept: list[tuple[int, int, int, int, int, float]] = []
        kept_ids: list[str | None] = []
        bad: list[BadRecord] = []
        for row in range(n):
            try:
                event = (
                    self._optional_code("graph", graph[row], self._graph),
                    self._optional_code("type", type_[row], self._type),
                    _code("src", columns["src"][row], self._src),
                    _code("dst", columns["dst"][row], self._dst),
                    times.value(columns["ts"][row]),
                    _weight(weight[row]),
                )
                kept_ids.append(self._id(ids[row]))
                kept.append(event)
            except InvalidEventError as error:
                bad.append(BadRecord(raw.lines[row], raw.text(row), str(error)))
        whole = np.array([event[:5] for event in kept], dtype=np.int64).reshape(-1, 5)
        batch = EventBatch(
            interner=self.interner,
            graph=whole[:, 0],
            type=whole[:, 1],
            src=whole[:, 2],
            dst=whole[:, 3],
            ts_us=whole[:, 4],
            weight=np.array([event[5] for event in kept], dtype=np.float64),
            ids=kept_ids if "id" in columns else None,
        )
        return batch, bad

    def _optional_codes(self, role: str, raw: RawColumns, codes: _Codes) -> IntArray:
        values = raw.columns.get(role)
        if values is None:
            return np.full(len(raw.lines), self._default[role], dtype=np.int64)
        if raw.typed or "" in values:
            return np.array([self._optional_code(role, value, codes) for value in values], dtype=np.int64)
        return _codes(values, codes, typed=False)

    def _optional_code(self, role: str, value: Any, codes: _Codes) -> int:
        return self._default[role] if _is_nothing(value) else _code(role, value, codes)

    def _id(self, value: Any) -> str | None:
        if _is_nothing(value):
            return None
        return self._rules.name(_name_text("id", value), "id")


def _codes(values: Sequence[Any], codes: _Codes, *, typed: bool) -> IntArray:
    # True == 1 as a key: only text and whole numbers may reach the dictionary.
    if typed and not set(map(type, values)) <= {str, int}:
        raise InvalidEventError("a name is neither text nor a whole number")
    return np.fromiter(map(codes.__getitem__, values), dtype=np.int64, count=len(values))


def _code(role: str, value: Any, codes: _Codes) -> int:
    return codes[_name_text(role, value)]


def _name_text(role: str, value: Any) -> str:
    if value is None:
        names = ", ".join(ALIASES[role][:4])
        raise InvalidEventError(f"{role} is missing (looked for {names}, …)")
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InvalidEventError(f"{role} {shown(value)} is neither text nor a whole number")
    if isinstance(value, int) and abs(value) >= 10**100:
        raise InvalidEventError(f"{role} is a number of more than 100 digits")
    return str(value)


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _weights(values: Sequence[Any], *, typed: bool) -> FloatArray:
    if typed or "" in values:
        return np.array([_weight(value) for value in values], dtype=np.float64)
    text = "".join(values)
    if not text.isascii() or "_" in text:
        raise InvalidEventError("a weight is no number")
    weights = np.fromiter(map(float, values), dtype=np.float64, count=len(values))
    if not np.isfinite(weights).all():
        raise InvalidEventError("a weight is not finite")
    return weights


def _weight(value: Any) -> float:
    if _is_nothing(value):
        return 1.0
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise InvalidEventError(f"weight {shown(value)} is no number")
    if isinstance(value, str) and (not value.isascii() or "_" in value):
        raise InvalidEventError(f"weight {shown(value)} is no number")
    try:
        weight = float(value)
    except ValueError:
        raise InvalidEventError(f"weight {shown(value)} is no number") from None
    except OverflowError:
        weight = float("inf")
    return EventRules.weight(weight)
