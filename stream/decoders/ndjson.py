"""JSON: one object a line (NDJSON), or an array, a single object or several documents in a row, also pretty-printed."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from itertools import chain
from typing import Any

import msgspec

from infra.errors import InputError
from stream.decoders.base import (
    MAX_RECORD_BYTES,
    REQUIRED_ROLES,
    BadRecord,
    LineDecoder,
    RawColumns,
    fields_of_roles,
    split_lines,
)

# Decimal keeps fractional seconds as they are written.
_JSON = msgspec.json.Decoder(float_hook=Decimal)
_BLANK = re.compile(rb"[\s,]*")
# All up to the next bracket, strings skipped as a whole.
_TO_BRACKET = re.compile(rb'(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+")*+[{}\[\]]', re.DOTALL)
_BOM = b"\xef\xbb\xbf"
_NO_OBJECT = re.compile(rb'"(?:[^"\\]|\\.)*+"|[^\s,{\["][^\s,{\[\]"]*', re.DOTALL)


def parse_json(text: str | bytes) -> Any:
    """Return a JSON value; floats are Decimals.

    Raises:
        ValueError: it is no valid JSON; the text of the error is the reason.
    """
    try:
        return _JSON.decode(text)
    except UnicodeError:
        raise ValueError("no valid JSON: not UTF-8 text") from None
    except RecursionError:
        raise ValueError("no valid JSON: nested too deeply") from None
    except InvalidOperation:
        raise ValueError("no valid JSON: a number whose exponent is too large") from None
    except ValueError as error:
        raise ValueError(f"no valid JSON: {error}") from None


def parse_object(text: str | bytes) -> dict[str, Any]:
    """Return one JSON object; floats are Decimals.

    Raises:
        ValueError: it is no valid JSON, or no object; the text of the error is the reason.
    """
    value = parse_json(text)
    if not isinstance(value, dict):
        raise ValueError("a JSON value, but no object")
    return value


class NdjsonDecoder(LineDecoder):
    """Decodes one JSON object a line; a broken line costs that line only.

    Args:
        label: the file, as errors name it.
        columns: role to key where the caller says so; other roles are found by `base.ALIASES`.
        first_line: number of the first line that will be fed.
    """

    def __init__(self, label: str, *, columns: Mapping[str, str], first_line: int = 1) -> None:
        super().__init__(label, first_line=first_line)
        self._columns = columns

    def decode(self, text: str, first_line: int, *, final: bool) -> tuple[RawColumns, str]:
        """Decode whole lines; a record never spans lines, so nothing stays over."""
        del final
        lines = split_lines(text)
        return _decode(range(first_line, first_line + len(lines)), lines, self._columns), ""


@dataclass(frozen=True, slots=True)
class Value:
    """A value of JSON documents.

    Attributes:
        end_byte: where it ends, counted in what was fed.
        line: the line of its end.
        in_array: it stands in an array.
    """

    end_byte: int
    line: int
    in_array: bool


class JsonDecoder:
    """Decodes JSON documents: objects one after another, or inside arrays, whatever the white space between them.

    Args:
        label: the file, as errors name it.
        columns: role to key where the caller says so; other roles are found by `base.ALIASES`.
        first_line: number of the first line that will be fed.
        in_array: reading resumes behind a value: whether that stands in an array. None: it begins with the file.

    Attributes:
        last_value: the last value that was decoded.
    """

    def __init__(
        self, label: str, *, columns: Mapping[str, str], first_line: int = 1, in_array: bool | None = None
    ) -> None:
        self.label = label
        self.next_line = first_line
        self.last_value: Value | None = None
        self._columns = columns
        self._pending = b""
        self._started = in_array is not None
        self._in_array = bool(in_array)
        # Bytes that were decoded.
        self._done = 0

    @property
    def pending_bytes(self) -> int:
        """Bytes of the unfinished last record."""
        return len(self._pending)

    @property
    def pending_lines(self) -> int:
        """Line ends in the unfinished last record."""
        return self._pending.count(b"\n")

    def feed(self, data: bytes) -> list[RawColumns]:
        """Decode the objects that are complete now."""
        return self._advance(self._pending + data, final=False)

    def finish(self) -> list[RawColumns]:
        """Decode what is left at the end."""
        decoded = self._advance(self._pending, final=True)
        if self._pending or self._in_array:
            raise InputError(
                f"{self.label}: the JSON ends inside {'a value' if self._pending else 'an array'}",
                place=f"{self.label}:{self.next_line}",
                fix="the file is cut short or broken: fetch or write it again",
            )
        return decoded

    def _advance(self, data: bytes, *, final: bool) -> list[RawColumns]:
        if not self._started:
            if len(data) < 3 and not final:
                self._pending = data
                return []
            if data.startswith(_BOM):
                data = data.removeprefix(_BOM)
                self._done = len(_BOM)
            self._started = True
        numbers: list[int] = []
        pieces: list[bytes] = []
        last: tuple[int, int, bool] | None = None
        at = 0
        while True:
            start = _end(_BLANK, data, at)
            self.next_line += data.count(b"\n", at, start)
            at = start
            opening = data[at : at + 1]
            if opening == b"[" and not self._in_array:
                self._in_array = True
                at += 1
                continue
            if opening == b"]" and self._in_array:
                self._in_array = False
                at += 1
                continue
            is_value = opening in (b"{", b"[")
            end = _value_end(data, at) if is_value else _end(_NO_OBJECT, data, at)
            # Text that is no string may go on in the next piece.
            if end <= at or (end == len(data) and not final and not is_value and opening != b'"'):
                break
            self._check_length(end - at)
            piece = data[at:end]
            numbers.append(self.next_line)
            pieces.append(piece)
            self.next_line += piece.count(b"\n")
            at = end
            last = (at, self.next_line, self._in_array)
        if last is not None:
            self.last_value = Value(self._done + last[0], *last[1:])
        self._done += at
        self._pending = data[at:]
        self._check_length(len(self._pending))
        return [_decode(numbers, pieces, self._columns)]

    def _check_length(self, length: int) -> None:
        if length > MAX_RECORD_BYTES:
            raise InputError(
                f"{self.label}: a JSON value of more than {MAX_RECORD_BYTES >> 20} MiB",
                place=f"{self.label}:{self.next_line}",
                fix="check that every bracket and quote is closed, and that each event is an object of its own",
            )


def _end(pattern: re.Pattern[bytes], data: bytes, at: int) -> int:
    match = pattern.match(data, at)
    return at if match is None else match.end()


def _value_end(data: bytes, at: int) -> int:
    """Return where the object or array at `at` ends; -1 if it is not complete."""
    depth = 0
    while token := _TO_BRACKET.match(data, at):
        at = token.end()
        depth += 1 if data[at - 1] in b"{[" else -1
        if not depth:
            return at
    return -1


def _decode(numbers: Sequence[int], texts: Sequence[str | bytes], columns: Mapping[str, str]) -> RawColumns:
    """Decode JSON texts, each with its line; blank ones count as nothing."""
    try:
        objects = list(map(_JSON.decode, texts))
        if set(map(type, objects)) <= {dict}:
            return _object_columns(objects, numbers, texts, columns, [])
    except (ValueError, RecursionError, InvalidOperation):
        objects = []
    objects.clear()
    bad: list[BadRecord] = []
    kept: list[int] = []
    for at, text in enumerate(texts):
        try:
            if text.strip():
                objects.append(parse_object(text))
                kept.append(at)
        except ValueError as error:
            bad.append(BadRecord(numbers[at], _as_text(text), str(error)))
    return _object_columns(objects, [numbers[at] for at in kept], [texts[at] for at in kept], columns, bad)


def _object_columns(
    objects: list[dict[str, Any]],
    numbers: Sequence[int],
    texts: Sequence[str | bytes],
    columns: Mapping[str, str],
    bad: list[BadRecord],
) -> RawColumns:
    """Return the fields of objects as columns; of several keys for one role the first that is not null counts."""
    names = fields_of_roles(set(chain.from_iterable(objects)), columns)
    values: dict[str, Sequence[Any]] = {role: [None] * len(objects) for role in REQUIRED_ROLES}
    for role, keys in names.items():
        if len(keys) == 1:
            key = keys[0]
            values[role] = [fields.get(key) for fields in objects]
        else:
            values[role] = [
                next((fields[key] for key in keys if fields.get(key) is not None), None) for fields in objects
            ]
    return RawColumns(lines=numbers, columns=values, text=lambda row: _as_text(texts[row]), typed=True, bad=bad)


def _as_text(text: str | bytes) -> str:
    return text if isinstance(text, str) else text.decode("utf-8", "surrogateescape")
