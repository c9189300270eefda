"""Bounded logs: a file, an archive or a folder of them, read whole and handed over in order of time."""

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from infra.errors import InputError
from stream.decoders.builder import DecodeOptions, EventBuilder
from stream.decoders.detect import check_options
from stream.decoders.log import LogReader
from stream.events import Interner, Reject
from stream.sources.base import Position, SourceBatch
from stream.sources.follow import FollowSource
from stream.sources.selection import LogFile, Selection, select_logs
from stream.sources.sorting import TimeSorter

__all__ = ["FileSource", "FollowSource"]

_BLOCK_BYTES = 1 << 20
_SHOWN_NAMES = 10
_SHOWN_REJECTS = 3


class FileSource:
    """A bounded log, sorted by time; equal times keep the order of the log.

    Everything is decoded before the first batch, so that a broken file leaves nothing behind.

    Args:
        path: a file, plain or packed as gz, zst or zip (each member a log), or a folder, whose logs are read by name.
        options: how to read it.
        batch_rows: events of one batch.
        max_rows_in_memory: beyond it events are sorted on disk.
        temp_folder: where; None for the system's.
        on_progress: called with the bytes decoded so far and all bytes of the files, packed as they are.
        block_bytes: plain bytes decoded at once.

    Attributes:
        notes: how each log was understood, and what was left out, in lines for the user; complete after the first
            batch.
    """

    def __init__(
        self,
        path: Path | str,
        options: DecodeOptions | None = None,
        *,
        batch_rows: int = 50_000,
        max_rows_in_memory: int = 2_000_000,
        temp_folder: Path | None = None,
        on_progress: Callable[[int, int], None] | None = None,
        block_bytes: int = _BLOCK_BYTES,
    ) -> None:
        self.path = Path(path)
        self.options = options or DecodeOptions()
        self.notes: list[str] = []
        check_options(self.options)
        self._batch_rows = batch_rows
        self._max_rows = max_rows_in_memory
        self._temp_folder = temp_folder
        self._on_progress = on_progress
        self._block_bytes = block_bytes
        self._selection: Selection | None = None

    @property
    def name(self) -> str:
        """The identity: `file:`, the SHA-256 of the content (of several files: of their digests), and the options.

        Raises:
            InputError: the files cannot be read.
        """
        digests = [file.digest for file in self._select().files]
        digest = digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
        return f"file:{digest}{self.options.fingerprint()}"

    def batches(self, resume_after: Position | None) -> Iterator[SourceBatch]:
        """Decode, sort, and yield the events behind the row of `resume_after`.

        Raises:
            InputError: a file cannot be read, holds no log, changed meanwhile, or holds no valid event; or a record
                is bad and the options are strict.
        """
        row = 0 if resume_after is None else self._row_of(resume_after)
        interner = Interner()
        with TimeSorter(interner, max_rows=self._max_rows, folder=self._temp_folder) as events:
            rejected, rejects = self._decode(interner, events)
            if row > events.rows:
                raise InputError(
                    f"{self.path} holds {events.rows:,} events, but {row:,} of them were ingested before",
                    fix="ingest it into a new store",
                )
            at_start = row == 0
            while True:
                end = min(row + self._batch_rows, events.rows)
                yield SourceBatch(
                    events=events.slice(row, end),
                    position={"mode": "sorted", "row": end, "rows": events.rows, "rejected": rejected},
                    rejects=rejects if at_start else [],
                    rejected=rejected if at_start else 0,
                    end=end == events.rows,
                )
                if end == events.rows:
                    return
                row, at_start = end, False

    def _select(self) -> Selection:
        if self._selection is None:
            self._selection = select_logs(self.path, self.options)
        return self._selection

    def _decode(self, interner: Interner, events: TimeSorter) -> tuple[int, list[Reject]]:
        """Read all logs into `events`; return how many records are bad, and a sample of them."""
        selection = self._select()
        builder = EventBuilder(interner, self.options)
        self.notes = [f"left out: {what}" for what in selection.left_out[:_SHOWN_NAMES]]
        if len(selection.left_out) > _SHOWN_NAMES:
            self.notes.append(f"left out: {len(selection.left_out) - _SHOWN_NAMES} more")
        total = sum(file.bytes for file in selection.files)
        done = rejected = 0
        rejects: list[Reject] = []
        two_sorts = False
        for file in selection.files:
            for reader in self._read(file, builder, events, done, total):
                rejected += reader.rejects.count
                rejects += reader.rejects.sample[: self.options.reject_sample - len(rejects)]
                self.notes += reader.notes
                two_sorts |= reader.dialect is not None and reader.dialect.bipartite_hint
            done += file.bytes
        if not events.rows:
            raise self._no_event(rejected, rejects)
        events.finish()
        if two_sorts and not self.options.bipartite and (shared := self._names_on_both_sides(events, len(interner))):
            self.notes.append(
                f"{shared:,} names stand both for a source and for an item; if they are counted apart, use --bipartite"
            )
        return rejected, rejects

    def _read(
        self, file: LogFile, builder: EventBuilder, events: TimeSorter, done: int, total: int
    ) -> Iterator[LogReader]:
        def on_read(at: int) -> None:
            if self._on_progress is not None:
                self._on_progress(done + at, total)

        for log in file.logs:
            reader = LogReader(log.label, builder)
            for piece in log.pieces(self._block_bytes, on_read):
                for batch in reader.feed(piece):
                    events.add(batch)
            for batch in reader.finish():
                events.add(batch)
            yield reader
        file.check_unchanged()

    def _names_on_both_sides(self, events: TimeSorter, names: int) -> int:
        is_src, is_dst = np.zeros(names, dtype=np.bool_), np.zeros(names, dtype=np.bool_)
        for at in range(0, events.rows, self._batch_rows):
            batch = events.slice(at, min(at + self._batch_rows, events.rows))
            is_src[batch.src] = True
            is_dst[batch.dst] = True
        return int((is_src & is_dst).sum())

    def _row_of(self, position: Position) -> int:
        row = position.get("row")
        if position.get("mode") != "sorted" or not isinstance(row, int) or row < 0:
            raise InputError(
                f"{self.path} cannot be resumed: the store has another kind of position for it",
                fix="ingest it into a new store",
            )
        return row

    def _no_event(self, rejected: int, rejects: list[Reject]) -> InputError:
        if not rejected:
            return InputError(f"{self.path} holds no record", fix="give a log with events")
        shown = "\n       ".join(f"{reject.place}: {reject.reason}" for reject in rejects[:_SHOWN_REJECTS])
        flags = re.findall(r"\(use (--time-unit \w+)\)", rejects[0].reason if rejects else "")
        fix = f"read it with {flags[0]}" if flags else "check --format, --columns and --time-unit against the file"
        return InputError(f"{self.path}: none of {rejected:,} records is a valid event", place=shown or None, fix=fix)
