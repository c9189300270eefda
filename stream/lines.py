"""Lines of files as records: whole, with the file and the number of the line, so that they can be dead letters."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from stream.decoders.records.base import Record
from stream.events import EventBatch, IntArray, Reject
from stream.sources.base import Letter

SHOWN_RECORD_CHARS = 200
# How the names of sources begin that are files, read once or followed.
_FILE_SOURCES = ("file:", "follow:")


class Lines(Protocol):
    """Where the events of a batch stood, and what stood there; a record is made when it is asked for."""

    def record(self, row: int) -> Record:
        """Return the whole record of an event: the file as its topic, the number of its line as its offset."""
        ...


@dataclass(frozen=True, slots=True)
class BlockLines:
    """The lines of a block that was decoded.

    Attributes:
        label: the file.
        numbers: the line of each of the block's records.
        text: one of these records as it stood there.
        kept: [n] the records that became the events of the batch; None: all, in their order.
    """

    label: str
    numbers: Sequence[int]
    text: Callable[[int], str]
    kept: IntArray | None = None

    def record(self, row: int) -> Record:
        """Return the whole record of an event."""
        at = row if self.kept is None else int(self.kept[row])
        return line_record(self.label, self.numbers[at], self.text(at))

    def where(self, keep: npt.NDArray[np.bool_]) -> "BlockLines":
        """Return the lines of the records that a mask selects; all of them must be there."""
        return replace(self, kept=np.flatnonzero(keep))


def line_record(label: str, line: int, text: str) -> Record:
    """Return a line of a file as a record; a file has one partition."""
    return Record(text.encode("utf-8", "surrogateescape"), topic=printable(label), offset=line)


def line_reject(record: Record, reason: str, stage: str) -> Reject:
    """Return the reject that keeps the whole line."""
    return Reject(f"{record.topic}:{record.offset}", shown_line(_text(record)), reason, stage, record_of=record)


def letter_of(events: EventBatch) -> Letter:
    """Return what makes the reject of one of the events, with the whole line."""

    def letter(row: int, reason: str, stage: str) -> Reject:
        assert events.lines is not None
        return line_reject(events.lines.record(row), reason, stage)

    return letter


def ends_a_line(path: Path) -> bool:
    """Tell whether the last line of a file is whole: what was appended to it by a process that was killed may not be.

    Raises:
        OSError: the file cannot be read.
    """
    if not path.stat().st_size:
        return True
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def is_file(source: str) -> bool:
    """Return whether the source of this name is a file."""
    return source.startswith(_FILE_SOURCES)


def shown_line(text: str) -> str:
    """Return a line as people see it: cut, and bytes that are no text as escapes."""
    return printable(text[:SHOWN_RECORD_CHARS])


def printable(text: str) -> str:
    """Return a text whose bytes that are none are escapes; file names may have such bytes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _text(record: Record) -> str:
    return (record.value or b"").decode("utf-8", "surrogateescape")
