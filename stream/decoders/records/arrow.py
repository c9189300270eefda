"""Arrow IPC records, as a stream or as a file: batches of events as columns, decoded without a Python object an event.

Columns go by our own names of fields or aliases of them, as keys of JSON do. Format: https://arrow.apache.org/docs/format.
"""

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stream.decoders.base import REQUIRED_ROLES, fields_of_roles
from stream.decoders.columns import DictionaryColumn
from stream.decoders.records.base import VALUE_STAGE, BadEvent, Read, Record, Rows, payloads
from stream.decoders.times import TimeReader
from stream.events import EventRules, IntArray

FILE_MAGIC = b"ARROW1"
STREAM_MARK = b"\xff\xff\xff\xff"  # before the length of each message of a stream

# What pyarrow raises on broken bytes; a broken length may ask for any amount of memory.
_ERRORS = (pa.ArrowException, ValueError, TypeError, KeyError, OverflowError, OSError, EOFError, MemoryError)


class ArrowReader:
    """Reads Arrow records.

    Args:
        columns: role to column name where the caller says so; others are found by `decoders.base.ALIASES`.
        rules: the valid range of times that are timestamps and thus have a unit of their own.
    """

    def __init__(self, *, columns: Mapping[str, str], rules: EventRules) -> None:
        self._columns = columns
        self._rules = rules

    def read(self, records: Sequence[Record]) -> Read:
        """Read records; those of one schema become one block of rows."""
        read = Read()
        by_schema: dict[str, list[tuple[int, Any]]] = {}
        for at, payload in enumerate(payloads(records)):
            try:
                table = self._table(payload)
            except _ERRORS as error:
                read.bad.append(BadEvent(at, f"no valid Arrow IPC: {_one_line(error)}", VALUE_STAGE))
                continue
            if table.num_rows:
                by_schema.setdefault(str(table.schema), []).append((at, table))
            else:
                read.skipped += 1
        for found in by_schema.values():
            read.rows.append(self._rows([at for at, _ in found], [table for _, table in found]))
        return read

    def _table(self, payload: bytes) -> Any:
        """Return the columns that hold fields of events, safe to be read."""
        source = pa.py_buffer(payload)
        opened = pa.ipc.open_file(source) if payload.startswith(FILE_MAGIC) else pa.ipc.open_stream(source)
        with opened as reader:
            table = reader.read_all()
        found = {names[0]: role for role, names in fields_of_roles(table.column_names, self._columns).items()}
        doubled = next((name for name in found if table.column_names.count(name) > 1), None)
        if doubled is not None:
            raise ValueError(f"two columns are called {doubled!r}")
        # Without metadata, so that tables that hold the same can be joined.
        table = pa.table({role: _plain(role, name, table.column(name)) for name, role in found.items()})
        # Offsets and dictionary codes of a broken batch may point anywhere.
        table.validate(full=True)
        return pa.table({role: _undictionaried(table.column(role)) for role in table.column_names})

    def _rows(self, owners: list[int], tables: list[Any]) -> Rows:
        table = pa.concat_tables(tables)
        lengths = np.array([each.num_rows for each in tables], dtype=np.int64)
        first = np.repeat(np.cumsum(lengths) - lengths, lengths)
        columns: dict[str, Any] = {role: [None] * table.num_rows for role in REQUIRED_ROLES}
        times: TimeReader | None = None
        for role in table.column_names:
            column = table.column(role)
            if role == "ts" and _is_moment(column.type):
                columns[role], unit = _moments(column)
                times = TimeReader(unit, self._rules)
            elif role == "weight":
                columns[role] = _numbers(column)
            elif role == "id":
                columns[role] = column.to_pylist()
            else:
                columns[role] = _times(column) if role == "ts" else _names(column)
        several = lengths > 1
        shown = np.repeat(several, lengths)
        return Rows(
            columns=columns,
            record=np.repeat(np.array(owners, dtype=np.int64), lengths),
            place=lambda row: f"row {row - first[row] + 1}: " if shown[row] else "",
            times=times,
        )


def _plain(role: str, name: str, column: Any) -> Any:
    """Return a column as it is, if its type can hold the field of an event."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    whole_or_text = pa.types.is_integer(kind) or _is_text(kind) or pa.types.is_null(kind)
    number = pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if not (whole_or_text or (role in ("ts", "weight") and number) or (role == "ts" and _is_moment(kind))):
        raise ValueError(f"column {name!r} has type {column.type}, which cannot be {role}")
    return column


def _undictionaried(column: Any) -> Any:
    # Dictionaries of several records, joined, may have more entries than their codes can count.
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _is_moment(kind: Any) -> bool:
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def _moments(column: Any) -> tuple[Any, str]:
    """Return timestamps or dates as whole numbers, and their unit; without a time zone they are UTC."""
    kind = column.type
    if pa.types.is_date(kind):
        kind = pa.timestamp("s" if pa.types.is_date32(kind) else "ms")
        column = column.cast(kind)
    return _whole(column.cast(pa.int64())), kind.unit


def _whole(column: Any) -> Any:
    """Return 64-bit numbers: an array, or a list where some are null."""
    return column.to_pylist() if column.null_count else np.asarray(column.to_numpy(), dtype=np.int64)


def _times(column: Any) -> Any:
    if pa.types.is_integer(column.type) and not pa.types.is_uint64(column.type):
        return _whole(column.cast(pa.int64()))
    return _exact(column.to_pylist())


def _numbers(column: Any) -> Any:
    if (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)) and not column.null_count:
        return np.asarray(column.to_numpy(), dtype=np.float64)
    return _exact(column.to_pylist())


def _names(column: Any) -> Any:
    if column.null_count or not _is_text(column.type):
        return column.to_pylist()
    encoded = pc.dictionary_encode(column.combine_chunks())
    at: IntArray = np.asarray(encoded.indices.to_numpy(), dtype=np.int64)
    return DictionaryColumn(encoded.dictionary.to_pylist(), at)


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _exact(values: list[Any]) -> list[Any]:
    """Return values with floats as the shortest decimals that name them, as JSON gives them."""
    return [_decimal(value) if isinstance(value, float) else value for value in values]


def _decimal(value: float) -> Decimal | str:
    return Decimal(repr(value)) if math.isfinite(value) else repr(value)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
