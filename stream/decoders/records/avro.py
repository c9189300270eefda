"""Avro payloads to plain values as JSON has them, by fastavro (the optional extra `avro`)."""

import re
import struct
from collections.abc import Callable, Iterator
from datetime import date, datetime
from decimal import Decimal
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from io import BytesIO
from math import isfinite
from typing import Any
from uuid import UUID

from infra.errors import InputError
from stream.decoders.ndjson import parse_json
from stream.decoders.records.registry import Schema

# What fastavro raises on broken bytes.
_ERRORS = (
    *(EOFError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError),
    *(RecursionError, MemoryError, struct.error, AssertionError),
)


class AvroDecoder:
    """Decodes payloads of one schema.

    Args:
        schema: the schema, with those that it refers to.

    Raises:
        InputError: fastavro is not installed.
        ValueError: the schema is no valid one; the text of the error is the reason.
    """

    def __init__(self, schema: Schema) -> None:
        fastavro = _fastavro()
        named: dict[str, Any] = {}
        try:
            self._schema = _parsed(schema, named, fastavro.parse_schema)
        except (*_ERRORS, fastavro.schema.SchemaParseException, fastavro.schema.UnknownType) as error:
            raise ValueError(f"its schema is no valid Avro: {_one_line(error)}") from None
        # The compiled reader goes down as deep as a record says, until the stack ends and the process with it.
        reader = import_module("fastavro._read_py") if _holds_itself(named) else fastavro
        self._read: Callable[..., Any] = reader.schemaless_reader

    def decode(self, payload: bytes) -> Any:
        """Return the value of a payload.

        Raises:
            ValueError: the bytes do not fit the schema; the text of the error is the reason.
        """
        source = BytesIO(payload)
        try:
            value = _plain(self._read(source, self._schema, None))
        except RecursionError:
            raise ValueError("no valid Avro: nested too deeply") from None
        except _ERRORS as error:
            is_cut = isinstance(error, EOFError | LookupError) and source.tell() == len(payload)
            reason = "the payload ends before the record does" if is_cut else _one_line(error)
            raise ValueError(f"no valid Avro: {reason}") from None
        left = len(payload) - source.tell()
        if left:
            raise ValueError(f"no valid Avro: {left} bytes are left over")
        return value


def _fastavro() -> Any:
    try:
        return import_module("fastavro")
    except ImportError:
        raise InputError(
            "Avro records need the package fastavro", fix="pip install 'graphtide[avro]'; nothing was skipped"
        ) from None


def _parsed(schema: Schema, named: dict[str, Any], parse: Callable[..., Any]) -> Any:
    for referred in schema.references:
        _parsed(referred, named, parse)
    return parse(parse_json(schema.text), named_schemas=named)


def _holds_itself(named: dict[str, Any]) -> bool:
    """Tell whether one of these types can hold one of its own kind, itself or by way of others."""
    uses = {
        name: {used for field in one.get("fields", ()) for used in _used(field["type"])} for name, one in named.items()
    }
    try:
        TopologicalSorter(uses).prepare()
    except CycleError:
        return True
    return False


def _used(schema: Any) -> Iterator[str]:
    """Return the names of the types that a parsed schema is made of."""
    if isinstance(schema, str):
        yield schema
    elif isinstance(schema, list):
        for branch in schema:
            yield from _used(branch)
    else:
        yield from _used(schema.get("name") or schema.get("items") or schema.get("values") or schema["type"])


def _plain(value: Any) -> Any:
    """Return a value as JSON would give it: times as ISO 8601, floats as the shortest decimals that name them."""
    if isinstance(value, str | int | None):
        return value
    if isinstance(value, float):
        return Decimal(repr(value)) if isfinite(value) else repr(value)
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, datetime | date):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    # What it was read from has an address for a name, another each time.
    return re.sub(r" from <[^>]*>", "", text)[:200] or type(error).__name__
