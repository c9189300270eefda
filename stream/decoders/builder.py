"""Raw records to validated event columns: whole columns at once, value by value only where a column holds a bad one."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from infra.errors import InputError
from stream.decoders.base import ALIASES, BadRecord, RawColumns
from stream.decoders.columns import DictionaryColumn
from stream.decoders.records.base import EVENT_STAGE, VALUE_STAGE
from stream.decoders.text import TextColumn, TextIndex
from stream.decoders.times import TimeReader
from stream.events import (
    DEFAULT_GRAPH,
    UNNAMED_GRAPH,
    EventBatch,
    EventRules,
    FloatArray,
    IntArray,
    Interner,
    InvalidEventError,
    Reject,
    shown,
)
from stream.lines import BlockLines, line_record, line_reject, shown_line

Number = TypeVar("Number", np.int64, np.float64)


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
        keep_records: keep all bad records instead, and whole. It changes no name of a source.
        keep_unnamed: events that carry no graph are of `UNNAMED_GRAPH`, and not of `graph`; for those who pass events
            on, since nothing can count them. It changes no name of a source.
    """

    graph: str = DEFAULT_GRAPH
    format: str = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    bipartite: bool = False
    time_unit: str = "auto"
    rules: EventRules = field(default_factory=EventRules)
    strict: bool = False
    reject_sample: int = 100
    keep_records: bool = False
    keep_unnamed: bool = False

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


class RejectSink(Protocol):
    """Takes the bad records of what is built."""

    label: str

    def extend(self, records: list[BadRecord]) -> None:
        """Add bad records of one block."""
        ...


class RejectLog:
    """Counts the bad records of one file and keeps the first of them.

    Args:
        label: the file, as places name it.
        limit: how many to keep; None: all, whole.
        strict: raise at the first.

    Attributes:
        count: how many there were.
        last_line: the last line where one began; 0 before the first.
        sample: those that were kept and not taken.
    """

    def __init__(self, label: str, *, limit: int | None, strict: bool) -> None:
        self.label = label
        self.count = 0
        self.last_line = 0
        self.sample: list[Reject] = []
        self._room = limit
        self._strict = strict

    def extend(self, records: list[BadRecord]) -> None:
        """Add bad records of one block.

        Raises:
            InputError: `strict`, and there is one.
        """
        if not records:
            return
        self.count += len(records)
        self.last_line = max(self.last_line, *(record.line for record in records))
        if self._room == 0 and not self._strict:
            return
        records = sorted(records, key=lambda record: record.line)
        if self._strict:
            first = self._reject(records[0])
            raise InputError(
                f"bad record: {first.reason}",
                place=first.place,
                fix=f"mend the record ({shown(first.record)}), or read on past bad records without --strict",
            )
        kept = records[: self._room]
        if self._room is not None:
            self._room -= len(kept)
        self.sample += [self._reject(record) for record in kept]

    def take(self) -> list[Reject]:
        """Return what was kept since the last call."""
        taken, self.sample = self.sample, []
        return taken

    def _reject(self, record: BadRecord) -> Reject:
        if self._room is None:
            whole = line_record(self.label, record.line, record.text)
            return line_reject(whole, record.reason, EVENT_STAGE if record.is_read else VALUE_STAGE)
        return Reject(f"{self.label}:{record.line}", shown_line(record.text), record.reason)


class _Codes(dict[Any, int]):
    """Raw names to codes; a name is validated when it is first seen."""

    def __init__(
        self, clean: Callable[[str], str], interner: Interner, prefix: str = "", *, max_plain_chars: int = 0
    ) -> None:
        super().__init__()
        self._clean = clean
        self._interner = interner
        self._prefix = prefix
        self._max_plain_chars = max_plain_chars
        self._texts: TextIndex | None = None

    def of_texts(self, column: TextColumn) -> IntArray:
        """Return the codes of a column of names [n].

        Raises:
            InvalidEventError: a name is invalid.
        """
        if self._texts is None:
            self._texts = TextIndex(self._of_distinct)
        return self._texts.values(column)

    def _of_distinct(self, names: list[str]) -> list[int]:
        if _plain_texts(names, self._max_plain_chars):
            return self._interner.codes([self._prefix + name for name in names] if self._prefix else names)
        return [self[name] for name in names]

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
        names = partial(_Codes, lambda name: rules.name(name, "name"), interner, max_plain_chars=rules.max_name_chars)
        self._src = names("u:" if options.bipartite else "")
        self._dst = names("i:") if options.bipartite else self._src
        self._type = _Codes(rules.type, interner)
        self._graph = _Codes(rules.graph, interner)
        graph = interner.code(UNNAMED_GRAPH) if options.keep_unnamed else self._graph[options.graph]
        self._default = {"type": self._type[""], "graph": graph}

    def build(self, raw: RawColumns, times: TimeReader, log: RejectSink) -> EventBatch:
        """Validate raw records; bad ones go to `log`.

        Raises:
            InputError: the log is strict and there is a bad record.
        """
        bad: dict[int, str] = {}
        batch = EventBatch(
            interner=self.interner,
            graph=self._optional_codes("graph", raw, self._graph, bad),
            type=self._optional_codes("type", raw, self._type, bad),
            src=self._nodes("src", raw, self._src, bad),
            dst=self._nodes("dst", raw, self._dst, bad),
            ts_us=_convert(raw, "ts", lambda values: times.column(values, typed=raw.typed), times.value, np.int64, bad),
            weight=self._weights(raw, bad),
            ids=self._ids(raw, bad),
            lines=BlockLines(log.label, raw.lines, raw.text),
        )
        log.extend(raw.bad + [BadRecord(raw.lines[row], raw.text(row), reason, True) for row, reason in bad.items()])
        return _without(batch, bad) if bad else batch

    def _nodes(self, role: str, raw: RawColumns, codes: _Codes, bad: dict[int, str]) -> IntArray:
        def one(value: Any) -> int:
            text = _name_text(role, value)
            if text not in codes:
                self._rules.name(text, role)  # its reason tells src from dst
            return codes[text]

        return _convert(raw, role, lambda values: _codes(values, codes, typed=raw.typed), one, np.int64, bad)

    def _optional_codes(self, role: str, raw: RawColumns, codes: _Codes, bad: dict[int, str]) -> IntArray:
        default = self._default[role]
        if role not in raw.columns:
            return np.full(len(raw.lines), default, dtype=np.int64)

        def one(value: Any) -> int:
            return default if _is_nothing(value) else codes[_name_text(role, value)]

        def all_of(values: Sequence[Any]) -> IntArray:
            return _optional_codes(values, codes, one, default, typed=raw.typed)

        return _convert(raw, role, all_of, one, np.int64, bad)

    def _weights(self, raw: RawColumns, bad: dict[int, str]) -> FloatArray:
        if "weight" not in raw.columns:
            return np.ones(len(raw.lines))
        return _convert(raw, "weight", lambda values: _weights(values, typed=raw.typed), _weight, np.float64, bad)

    def _ids(self, raw: RawColumns, bad: dict[int, str]) -> list[str | None] | None:
        if "id" not in raw.columns:
            return None
        values = raw.columns["id"]
        if _plain_ids(values, self._rules.max_name_chars):
            return list(values)
        ids: list[str | None] = []
        for row, value in enumerate(values):
            try:
                ids.append(self._id(value))
            except InvalidEventError as error:
                ids.append(None)
                bad.setdefault(row, str(error))
        return ids

    def _id(self, value: Any) -> str | None:
        if type(value) is str and value.isalnum() and len(value) <= self._rules.max_name_chars:
            return value
        return None if _is_nothing(value) else self._rules.name(_name_text("id", value), "id")


def _convert(
    raw: RawColumns,
    role: str,
    all_of: Callable[[Sequence[Any]], npt.NDArray[Number]],
    one: Callable[[Any], float],
    dtype: type[Number],
    bad: dict[int, str],
) -> npt.NDArray[Number]:
    """Convert a column at once; where that fails, value by value, with the reason of each bad one in `bad`."""
    values = raw.columns[role]
    try:
        return all_of(values)
    except (ValueError, OverflowError, TypeError):
        converted = np.zeros(len(values), dtype=dtype)
        for row, value in enumerate(values.tolist() if isinstance(values, np.ndarray) else values):
            try:
                converted[row] = one(value)
            except InvalidEventError as error:
                bad.setdefault(row, str(error))
        return converted


def _without(batch: EventBatch, rows: Iterable[int]) -> EventBatch:
    keep = np.ones(len(batch), dtype=np.bool_)
    keep[list(rows)] = False
    lines = batch.lines
    return EventBatch(
        interner=batch.interner,
        graph=batch.graph[keep],
        type=batch.type[keep],
        src=batch.src[keep],
        dst=batch.dst[keep],
        ts_us=batch.ts_us[keep],
        weight=batch.weight[keep],
        ids=None if batch.ids is None else [batch.ids[row] for row in np.flatnonzero(keep).tolist()],
        lines=lines.where(keep) if isinstance(lines, BlockLines) else None,
    )


def _codes(values: Sequence[Any], codes: _Codes, *, typed: bool) -> IntArray:
    if isinstance(values, DictionaryColumn):
        return _codes(values.values, codes, typed=typed)[values.at]
    if isinstance(values, TextColumn):
        return codes.of_texts(values)
    # True == 1 as a key: only text and whole numbers may reach the dictionary.
    if typed and not set(map(type, values)) <= {str, int}:
        raise InvalidEventError("a name is neither text nor a whole number")
    return np.fromiter(map(codes.__getitem__, values), dtype=np.int64, count=len(values))


def _optional_codes(
    values: Sequence[Any], codes: _Codes, one: Callable[[Any], int], default: int, *, typed: bool
) -> IntArray:
    """Return the codes of values [n], `default` for nothing; `one` converts a value that is neither text nor None."""
    if isinstance(values, DictionaryColumn):
        return _optional_codes(values.values, codes, one, default, typed=typed)[values.at]
    if isinstance(values, TextColumn):
        return codes.of_texts(values)
    kinds = set(map(type, values)) if typed else set()
    if kinds <= {str, type(None)} and (typed or "" not in values):
        if type(None) not in kinds:
            return _codes(values, codes, typed=False)
        return np.array([default if value is None else codes[value] for value in values], dtype=np.int64)
    return np.array([one(value) for value in values], dtype=np.int64)


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


def _plain_ids(values: Sequence[Any], max_chars: int) -> bool:
    return set(map(type, values)) == {str} and _plain_texts(values, max_chars)


def _plain_texts(texts: Sequence[str], max_chars: int) -> bool:
    """Tell whether all texts are valid names as they stand: printable, none empty, no space."""
    if not all(texts) or max(map(len, texts)) > max_chars:
        return False
    text = "".join(texts)
    return text.isprintable() and " " not in text


def _weights(values: Sequence[Any], *, typed: bool) -> FloatArray:
    if isinstance(values, np.ndarray):
        if not np.isfinite(values).all():
            raise InvalidEventError("a weight is not finite")
        return values.astype(np.float64)
    if typed and set(map(type, values)) <= {type(None)}:
        return np.ones(len(values))
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
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
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
