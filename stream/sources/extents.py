"""What of a log was read, as a position keeps it, so that reading can go on behind it once the log grew."""

import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Self

import msgspec

from stream.decoders.dialect import Dialect
from stream.decoders.log import LogReader
from stream.decoders.units import OPEN
from stream.lines import printable
from stream.sources.base import Position
from stream.sources.compression import Member, Text, beginnings
from stream.sources.selection import LogFile

# As a place to go on: inside a quote nobody can tell where records begin.
INSIDE_QUOTE = -1
_NAME_BEGIN = len("file:")
_DIGEST_LETTERS = 64
# What of a reading says how a file is understood, not which events are taken from it.
_HOW = frozenset(("", "format", "time_unit", "bipartite", "rules"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """Where reading of a log began that goes on with what another source read.

    Attributes:
        after: the name of that source.
        number: of the log in it, counted from 0.
        byte, line, in_array, unit: how the log is read from there; see `Extent`.
        whole: nothing stands behind it, so that the log is not read.
        is_copy: the log that was read went on elsewhere; nothing goes on with this copy of what it was.
    """

    after: str
    number: int
    byte: int
    line: int
    in_array: bool
    unit: str
    whole: bool
    is_copy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """What of a log was read.

    Attributes:
        path: the file, resolved; of a member of an archive `PATH!MEMBER`.
        file: the SHA-256 of the file, packed as it was, in hex.
        bytes: how much of its text, unpacked: all, or of JSON documents what ends with the last value.
        digest: the SHA-256 of these bytes, in hex.
        next_byte: where reading goes on if the last line is longer by then: before the end where that line lacked its
            end and was no event; `INSIDE_QUOTE` where it cannot be told.
        next_line: the number of the line there.
        dialect, unit: how it was understood.
        in_array: the last value stands in an array (JSON documents).
        begin: where reading began; None where it did with the log.
    """

    path: str
    file: str
    bytes: int
    digest: str
    next_byte: int
    next_line: int
    dialect: Dialect
    unit: str
    in_array: bool = False
    begin: Begin | None = None

    @classmethod
    def of(cls, file: LogFile, log: Member, text: Text, reader: LogReader, begin: Begin | None) -> Self:
        """Return what was read of a log to its end.

        Args:
            file: the file.
            log: the log in it.
            text: what was read.
            reader: what read it.
            begin: where it began.
        """
        assert reader.dialect is not None
        size, in_array = text.end_byte, False
        next_byte, next_line = size, reader.next_line
        if reader.dialect.format == "json":
            if (value := reader.last_value) is not None:
                size, next_line, in_array = text.begin_byte + value.end_byte, value.line, value.in_array
            elif begin is not None:
                size, next_line, in_array = begin.byte, begin.line, begin.in_array
            next_byte = size
        elif reader.unfinished_lines:
            next_byte = INSIDE_QUOTE
        elif not reader.unfinished_counts:
            next_byte -= reader.unfinished_bytes
        if size < text.end_byte:
            digest = beginnings(log, {size})[size].digest
        else:
            digest = file.digest if log.is_plain else text.digest
        return cls(
            path=path_of(file, log),
            file=file.digest,
            bytes=size,
            digest=digest,
            next_byte=next_byte,
            next_line=next_line,
            dialect=reader.dialect,
            # Records without a time have told nothing.
            unit=reader.unit if reader.told_unit or begin is not None else OPEN,
            in_array=in_array,
            begin=begin,
        )


class Left(Enum):
    """Of a log nothing is new: what was read of it stays with the source that has it, and is not kept once more."""

    UNCHANGED = True


Entry = Extent | Left | None
Extents = Sequence[Entry]


def path_of(file: LogFile, log: Member) -> str:
    """Return what tells a log by its place."""
    return printable(f"{file.path.resolve()}{log.label.removeprefix(str(file.path))}")


def to_position(extents: Extents, left_with: Sequence[str] = ()) -> Position:
    """Return the extents of a source's logs as a part of a position; None for a log that holds no record.

    Args:
        extents: one for each log.
        left_with: the sources that what is left is gone on with.
    """
    runs: list[Extent | int | None] = []
    for each in extents:
        if not isinstance(each, Left):
            runs.append(each)
        elif runs and isinstance(runs[-1], int):
            runs[-1] += 1
        else:
            runs.append(1)
    # Every commit writes it, and a folder may hold thousands of logs.
    logs: Position = {"logs": b64encode(zlib.compress(msgspec.json.encode(runs))).decode()}
    return logs | ({"left_with": msgspec.json.encode(left_with).decode()} if left_with else {})


def of_position(position: Position) -> list[Entry]:
    """Return the extents that a position holds; none if it holds none."""
    entries: list[Entry] = []
    for each in _runs_of(position):
        entries += [Left.UNCHANGED] * each if isinstance(each, int) else [each]
    return entries


def numbered_extents(position: Position) -> Iterator[tuple[int, Extent]]:
    """Yield what a position holds of logs that were read, each with its number among all logs, counted from 0."""
    number = 0
    for each in _runs_of(position):
        if isinstance(each, Extent):
            yield number, each
        number += each if isinstance(each, int) else 1


def _runs_of(position: Position) -> list[Extent | int | None]:
    """Return the extents that a position holds, of logs that are left how many stand in a row."""
    logs = position.get("logs")
    if not isinstance(logs, str):
        return []
    return msgspec.json.decode(zlib.decompress(b64decode(logs)), type=list[Extent | int | None])


def left_with(position: Position) -> tuple[str, ...]:
    """Return the names of the sources that a position goes on with for what they have of logs that are as before."""
    return msgspec.json.decode(str(position.get("left_with", "[]")), type=tuple[str, ...])


def sources_before(extents: Extents, left_with: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the names of the sources that reading went on with, each once; `left_with` as in `to_position`."""
    begun = (each.begin.after for each in extents if isinstance(each, Extent) and each.begin is not None)
    return tuple(dict.fromkeys((*begun, *left_with)))


def digest_of(source: str) -> str:
    """Return the SHA-256 of what a source of files holds, in hex, as its name says."""
    return source[_NAME_BEGIN : _NAME_BEGIN + _DIGEST_LETTERS]


def reading_of(source: str) -> str:
    """Return how a source of files was read, as its name says."""
    return source[_NAME_BEGIN + _DIGEST_LETTERS :]


def reads_same_events(one: str, other: str) -> bool:
    """Return whether two readings of a file make events of the same fields for the same graph."""
    first, second = (
        {part for part in reading.removeprefix("#").split("&") if part.partition("=")[0] not in _HOW}
        for reading in (one, other)
    )
    return first == second
