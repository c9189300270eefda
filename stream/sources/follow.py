"""A growing text file, read in the order in which it is written."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from infra.errors import InputError, UsageError
from stream.decoders.builder import DecodeOptions, EventBuilder
from stream.decoders.detect import check_options
from stream.decoders.dialect import Dialect
from stream.decoders.log import LogReader
from stream.events import EventBatch, Interner
from stream.lines import letter_of, printable
from stream.sources.base import Position, ReadBefore, SourceBatch
from stream.sources.compression import compression_of, members, reading
from stream.sources.followed import (
    FINGERPRINT_BYTES,
    Followed,
    earlier_of,
    earlier_to_position,
    fingerprint_of,
    followed_of,
)
from stream.sources.growth import growth_of
from stream.sources.selection import log_file

_BLOCK_BYTES = 1 << 20


class FollowSource:
    """A file that grows at its end; only complete lines are read, and nothing is sorted.

    A file that is replaced (rotated) or cut is an error, not followed: lines that its writer still adds to the old
    file would be lost without a word. With `restart_if_replaced` the old file is read until the new one has bytes, once
    more to its end then, and reading begins at the start of the new file. What its writer adds later is lost; so is
    what was added while nobody followed. Positions keep which files were followed.

    Args:
        path: NDJSON, a table or an edge list, not compressed.
        options: how to read it.
        poll_interval_s: how long to wait before looking for more.
        stop: asked between batches and polls; True ends the reading at the last complete line.
        restart_if_replaced: go on with the new file where the old one was replaced or cut.
        block_bytes: bytes decoded at once.
        may_be_late: its events may belong to steps that are closed.
        sleep: waits for some seconds.
    """

    def __init__(
        self,
        path: Path | str,
        options: DecodeOptions | None = None,
        *,
        poll_interval_s: float = 1.0,
        stop: Callable[[], bool] = lambda: False,
        restart_if_replaced: bool = False,
        block_bytes: int = _BLOCK_BYTES,
        may_be_late: bool = False,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.path = Path(path)
        self.options = options or DecodeOptions()
        self._notes: list[str] = []
        self._log: _Log | None = None
        check_options(self.options)
        if self.options.format == "json":
            raise UsageError("JSON documents cannot be followed", fix="write one object a line: --format ndjson")
        self._poll_interval_s = poll_interval_s
        self._stop = stop
        self._restart = restart_if_replaced
        self._block_bytes = block_bytes
        self._may_be_late = may_be_late
        self._sleep = sleep

    @property
    def notes(self) -> list[str]:
        """How the log was understood, and what is held back now, in lines for the user."""
        held_back = self._log.reader.held_back if self._log is not None else ""
        return [*self._notes, held_back] if held_back else list(self._notes)

    @property
    def name(self) -> str:
        """The identity: `follow:`, the resolved path, and the options."""
        return f"follow:{printable(str(self.path.resolve()))}{self.options.fingerprint()}"

    def goes_on(self, before: Sequence[ReadBefore]) -> None:
        """Make sure that nothing of the file counts again that was ingested before.

        Raises:
            InputError: some would.
        """
        if not self._may_be_late or self.path.is_dir():
            return
        files = [log_file(self.path, members(self.path))]
        growth = growth_of(self.path, files, before, self.options.fingerprint(), may_be_late=True)
        if growth.extents:
            raise InputError(
                f"{self.path} was ingested before, and following it begins at its start:"
                " with --backfill what was ingested would count again",
                place=str(self.path),
                fix="leave out --follow and ingest it again whenever it grew; only what is new is added",
            )

    def batches(self, resume_after: Position | None) -> Iterator[SourceBatch]:
        """Yield what is there, then what comes, until `stop` says so; never a batch without a record.

        Raises:
            InputError: the file cannot be read, is no log, was replaced or cut, or is not the one that
                `resume_after` is about; or a record is bad and the options are strict.
            UsageError: the file is of a kind that cannot be followed.
        """
        if self.path.is_dir():
            raise UsageError(f"{self.path} is a folder, which cannot be followed", fix="follow one file")
        builder = EventBuilder(Interner(), self.options)
        position = resume_after
        earlier = earlier_of(position or {})
        while True:
            with reading(self.path) as file:
                log = self._resume(file, builder, position, earlier)
                if log is not None:
                    self._log = log
                    yield from self._follow(log)
                    position = log.reached
            if self._stop():
                return
            self._notes = self.notes
            self._log = None
            self._notes.append(f"{self.path} was replaced or cut; reading goes on at the start of the new file")
            if position is not None:
                earlier = followed_of(position)
            position = None

    def _resume(
        self, file: BinaryIO, builder: EventBuilder, position: Position | None, earlier: Sequence[Followed]
    ) -> "_Log | None":
        """Return the log at `position`; None if it stands in a file that was replaced, and that is allowed."""
        if position is None:
            return _Log(file, LogReader(str(self.path), builder), earlier)
        byte, line, length = (position.get(key) for key in ("byte", "line", "fingerprint_bytes"))
        dialect, unit = position.get("dialect"), position.get("time_unit")
        if (
            position.get("mode") != "arrival"
            or not (isinstance(byte, int) and isinstance(line, int) and isinstance(length, int))
            or not (isinstance(dialect, str) and isinstance(unit, str))
        ):
            raise InputError(
                f"{self.path} cannot be resumed: the store has another kind of position for it",
                fix="follow it into a new store",
            )
        prefix = file.read(length)
        if fingerprint_of(prefix) != position.get("fingerprint") or os.fstat(file.fileno()).st_size < byte:
            if self._restart:
                return None
            raise self._replaced()
        file.seek(byte)
        reader = LogReader(str(self.path), builder, dialect=Dialect.from_json(dialect), unit=unit, first_line=line)
        return _Log(file, reader, earlier, byte, prefix, reached=position)

    def _follow(self, log: "_Log") -> Iterator[SourceBatch]:
        """Yield batches until `stop`, or until the file was replaced and reading may go on with the new one."""
        rewritten = False
        while True:
            # Once it was: it may grow again to what it was while this waits for its first bytes.
            rewritten = rewritten or log.was_rewritten()
            replaced = rewritten or log.was_moved(self.path)
            # Asked before reading: what came to the old file before the new one got its first bytes is still read.
            goes_over = replaced and _has_bytes(self.path)
            while not rewritten and (block := log.file.read(self._block_bytes)):
                yield from self._decode(log, block)
                if self._stop():
                    break
            if self._stop():
                return
            if replaced and not self._restart:
                raise self._replaced()
            if goes_over:
                return
            self._sleep(self._poll_interval_s)

    def _decode(self, log: "_Log", block: bytes) -> Iterator[SourceBatch]:
        reader = log.reader
        if log.bytes_read == 0:
            self._check_kind(block)
        before = reader.rejects.count
        noted = len(reader.notes)
        batches = reader.feed(block, wait=False)
        log.took(block)
        if reader.dialect is None:
            return
        if reader.dialect.format == "json":
            raise _no_documents(self.path)
        self._notes += reader.notes[noted:]
        rejected = reader.rejects.count - before
        # A line decoder makes one batch of what it is fed: a position stands behind all of it.
        assert len(batches) <= 1
        if batches or rejected:
            events = batches[0] if batches else EventBatch.from_events((), log.interner)
            log.reached = log.position()
            yield SourceBatch(
                events=events,
                position=log.reached,
                rejects=reader.rejects.take(),
                rejected=rejected,
                letter=letter_of(events) if self.options.keep_records else None,
            )

    def _check_kind(self, head: bytes) -> None:
        if kind := compression_of(head):
            raise UsageError(
                f"{self.path} is compressed ({kind}), so it cannot be followed",
                fix="follow the plain file, or ingest this one as it is, without --follow",
            )
        if head.lstrip().startswith(b"["):
            raise _no_documents(self.path)

    def _replaced(self) -> InputError:
        return InputError(
            f"{self.path} was replaced or cut since it was read last",
            place=str(self.path),
            fix="make sure that the old file was read to its end, then begin with the new one: --restart-if-replaced",
        )


class _Log:
    """An open file, how far it was read, and what tells it from another.

    Attributes:
        reached: the position of the last batch, or else the one where reading began; None for the start of the file.
    """

    def __init__(
        self,
        file: BinaryIO,
        reader: LogReader,
        earlier: Sequence[Followed],
        bytes_read: int = 0,
        prefix: bytes = b"",
        *,
        reached: Position | None = None,
    ) -> None:
        self.file = file
        self.reader = reader
        self.bytes_read = bytes_read
        self.reached = reached
        self._earlier = earlier_to_position(earlier)
        self._prefix = prefix

    @property
    def interner(self) -> Interner:
        """The interner of all batches."""
        return self.reader.interner

    def took(self, block: bytes) -> None:
        """Count a block that was read."""
        self.bytes_read += len(block)
        self._prefix += block[: FINGERPRINT_BYTES - len(self._prefix)]

    def position(self) -> Position:
        """Return the resume point behind the last complete record."""
        byte = self.bytes_read - self.reader.pending_bytes
        prefix = self._prefix[:byte]
        assert self.reader.dialect is not None
        return {
            "mode": "arrival",
            "byte": byte,
            "line": self.reader.next_line,
            "fingerprint": fingerprint_of(prefix),
            "fingerprint_bytes": len(prefix),
            "dialect": self.reader.dialect.to_json(),
            "time_unit": self.reader.unit,
            **self._earlier,
        }

    def was_rewritten(self) -> bool:
        """Tell whether the open file was cut, or holds something else where it was read."""
        descriptor = self.file.fileno()
        if os.fstat(descriptor).st_size < self.bytes_read:
            return True
        return os.pread(descriptor, len(self._prefix), 0) != self._prefix

    def was_moved(self, path: Path) -> bool:
        """Tell whether the path names another file now, or none."""
        try:
            now = path.stat()
        except FileNotFoundError:
            return True
        mine = os.fstat(self.file.fileno())
        return (now.st_dev, now.st_ino) != (mine.st_dev, mine.st_ino)


def _has_bytes(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


def _no_documents(path: Path) -> UsageError:
    return UsageError(f"{path} holds JSON documents, which cannot be followed", fix="write one object a line (NDJSON)")
