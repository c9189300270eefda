"""A file that grew since it was read: which bytes were read before, and where to go on behind them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from infra.errors import InputError
from stream.decoders.dialect import Dialect
from stream.decoders.log import LogReader
from stream.sources.base import Position, ReadBefore
from stream.sources.compression import reading

_HASH_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Extent:
    """What of a file was read.

    Attributes:
        path: the file, resolved.
        bytes: its size then, all of which was read.
        next_byte: where reading goes on if the last line is longer by then; before the end where that line lacked its
            end and was rejected.
        next_line: the number of the line there.
        dialect, unit: how it was understood.
    """

    path: str
    bytes: int
    next_byte: int
    next_line: int
    dialect: str
    unit: str

    @classmethod
    def of(cls, path: Path, size: int, reader: LogReader) -> Self | None:
        """Return what was read of a plain file to its end; None where it is of a kind that cannot be gone on with."""
        # Of documents, an end belongs to the beginning; inside a quote nobody can tell where records begin.
        if reader.dialect is None or reader.dialect.format == "json" or reader.unfinished_lines:
            return None
        was_rejected = bool(reader.unfinished_bytes) and reader.rejects.last_line == reader.next_line
        next_byte = size - (reader.unfinished_bytes if was_rejected else 0)
        return cls(str(path.resolve()), size, next_byte, reader.next_line, reader.dialect.to_json(), reader.unit)

    @classmethod
    def from_position(cls, position: Position) -> Self | None:
        """Return the extent that a position holds; None if it holds none."""
        path, size, byte, line = (position.get(key) for key in ("path", "bytes", "next_byte", "next_line"))
        dialect, unit = position.get("dialect"), position.get("time_unit")
        if not (isinstance(size, int) and isinstance(byte, int) and isinstance(line, int)):
            return None
        if not (isinstance(path, str) and isinstance(dialect, str) and isinstance(unit, str)):
            return None
        return cls(path, size, byte, line, dialect, unit)

    def to_position(self) -> Position:
        """Return the extent as a part of a position."""
        return {
            "path": self.path,
            "bytes": self.bytes,
            "next_byte": self.next_byte,
            "next_line": self.next_line,
            "dialect": self.dialect,
            "time_unit": self.unit,
        }


@dataclass(frozen=True, slots=True)
class Start:
    """Where reading of a file begins that goes on with the source `after`."""

    after: str
    byte: int
    line: int
    dialect: Dialect
    unit: str

    @classmethod
    def from_position(cls, position: Position | None) -> Self | None:
        """Return the start that `start_behind` wrote into a position; None where reading begins with the file."""
        if position is None or "after" not in position:
            return None
        dialect = Dialect.from_json(str(position["begin_dialect"]))
        byte, line = int(position["begin_byte"]), int(position["begin_line"])
        return cls(str(position["after"]), byte, line, dialect, str(position["begin_unit"]))

    def to_position(self) -> Position:
        """Return the start as a part of a position."""
        return {
            "after": self.after,
            "begin_byte": self.byte,
            "begin_line": self.line,
            "begin_dialect": self.dialect.to_json(),
            "begin_unit": self.unit,
        }


def start_behind(path: Path, before: Sequence[ReadBefore], fingerprint: str) -> Start | None:
    """Return where a plain file goes on behind the longest beginning of it that was read before; None if none was.

    Args:
        path: the file.
        before: sources that were read, named `file:DIGEST` and the fingerprint.
        fingerprint: of how this file is read.

    Raises:
        InputError: reading was broken off in this beginning, or ended in the middle of a line that is longer now.
    """
    known = {each.name: (each, extent) for each in before if (extent := Extent.from_position(each.position))}
    sizes = {extent.bytes for _, extent in known.values()}
    names = [f"file:{digest}{fingerprint}" for digest in _digests(path, sizes)]
    found = next((known[name] for name in reversed(names) if name in known), None)
    if found is None:
        return None
    source, extent = found
    if not source.ended:
        raise InputError(
            f"{path} grew after reading it was broken off, and what was there then has to be read to its end first",
            place=f"{path}, byte {extent.bytes:,}",
            fix=f"head -c {extent.bytes} {path} > FILE, ingest FILE with the same flags, and then {path} again",
        )
    dialect = Dialect.from_json(extent.dialect)
    return Start(source.name, _next_byte(path, extent), extent.next_line, dialect, extent.unit)


def rewritten(path: Path, before: Sequence[ReadBefore]) -> int | None:
    """Return up to which byte a file of this path was read last, whatever it held; None if it never was."""
    resolved = str(path.resolve())
    extents = (Extent.from_position(each.position) for each in before)
    sizes = [extent.bytes for extent in extents if extent is not None and extent.path == resolved]
    return sizes[-1] if sizes else None


def _next_byte(path: Path, extent: Extent) -> int:
    """Return where reading goes on, by what stands behind the bytes that were read."""
    with reading(path) as file:
        file.seek(extent.bytes - 1)
        last, following = file.read(1), file.read(2)
    if last == b"\n" or following.startswith((b"\n", b"\r\n")):
        return extent.bytes  # every line was whole, the last one but for its end
    if extent.next_byte < extent.bytes:
        return extent.next_byte
    raise InputError(
        f"{path} grew inside its last line, which was counted when it was not complete",
        place=f"{path}:{extent.next_line}",
        fix="ingest the file into a new store, or under another --graph; write whole lines, or --follow the file",
    )


def _digests(path: Path, sizes: set[int]) -> list[str]:
    """Return the SHA-256 of the beginnings of a file, in hex, by size; of those `sizes` that it is longer than."""
    total = path.stat().st_size
    digest, digests, at = hashlib.sha256(), [], 0
    with reading(path) as file:
        for size in sorted(size for size in sizes if size < total):
            while at < size and (block := file.read(min(size - at, _HASH_BLOCK_BYTES))):
                digest.update(block)
                at += len(block)
            digests.append(digest.hexdigest())
    return digests
