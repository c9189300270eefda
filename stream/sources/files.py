"""Bounded logs: a file, an archive or a folder of them, read whole and handed over in order of time."""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from pathlib import Path

import numpy as np

from infra.errors import InputError
from stream.decoders.builder import DecodeOptions, EventBuilder
from stream.decoders.detect import check_options
from stream.decoders.log import LogReader
from stream.events import EventBatch, Interner, Reject
from stream.lines import letter_of
from stream.sources.base import GoingOn, Position, ReadBefore, SourceBatch
from stream.sources.compression import Member, Text
from stream.sources.extents import Entry, Extent, Extents, left_with, of_position, sources_before, to_position
from stream.sources.follow import FollowSource
from stream.sources.followed import check_not_followed
from stream.sources.growth import Rewritten, growth_of
from stream.sources.kept import KeptRejects
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
        may_be_late: its events may belong to steps that are closed. With it, and with `options.keep_records`, the line
            of each event is kept on disk meanwhile; events that come in order and behind those of others are not late.

    Attributes:
        notes: how each log was understood, and what was left out, in lines for the user; complete after the first
            batch.
        rewritten: a log that was read before from the same place and held something else; None where none was.
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
        may_be_late: bool = False,
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
        self._may_be_late = may_be_late
        self._selection: Selection | None = None
        self.rewritten: Rewritten | None = None

    @property
    def name(self) -> str:
        """The identity: `file:`, the SHA-256 of the content (of several files: of their digests), and the options.

        Raises:
            InputError: the files cannot be read.
        """
        digests = [file.digest for file in self._select().files]
        digest = digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
        return f"file:{digest}{self.options.fingerprint()}"

    def goes_on(self, before: Sequence[ReadBefore]) -> GoingOn | None:
        """Return the position behind what was read of these logs before they grew; None if nothing of them was.

        Raises:
            InputError: it cannot be told where, or something that was read has changed.
        """
        files, reading = self._select().files, self.options.fingerprint()
        growth = growth_of(self.path, files, before, reading, may_be_late=self._may_be_late)
        if self._may_be_late or growth.extents:
            check_not_followed(files, before, reading)
        self.rewritten = growth.rewritten
        if not growth.extents:
            return None
        position: Position = {
            "mode": "sorted",
            "row": 0,
            "rejected": 0,
            **to_position(growth.extents, growth.left_with),
        }
        return GoingOn(position, sources_before(growth.extents, growth.left_with))

    def batches(self, resume_after: Position | None) -> Iterator[SourceBatch]:
        """Decode, sort, and yield the events behind the row of `resume_after`.

        Raises:
            InputError: a file cannot be read, holds no log, changed meanwhile, or holds no valid event; or a record
                is bad and the options are strict.
        """
        row, counted = (0, 0) if resume_after is None else self._place_of(resume_after)
        begun = [] if resume_after is None else of_position(resume_after)
        left = () if resume_after is None else left_with(resume_after)
        after = sources_before(begun, left)
        keep_lines = self.options.keep_records and (self._may_be_late or bool(after))
        interner = Interner()
        with (
            KeptRejects(self._temp_folder) as kept,
            TimeSorter(interner, max_rows=self._max_rows, folder=self._temp_folder, keep_lines=keep_lines) as events,
        ):
            read = self._decode(interner, events, kept, begun if after else ())
            if row > events.rows:
                raise InputError(
                    f"{self.path} holds {events.rows:,} events, but {row:,} of them were ingested before",
                    fix="ingest it into a new store",
                )
            logs = to_position(read.extents, left)
            while True:
                end = min(row + self._batch_rows, events.rows)
                # Whole records are as large as events: they are not committed all at once either.
                upto = min(counted + self._batch_rows, read.rejected) if len(kept) else read.rejected
                batch = events.slice(row, end)
                is_end = end == events.rows and upto == read.rejected
                yield SourceBatch(
                    events=batch,
                    position={"mode": "sorted", "row": end, "rows": events.rows, "rejected": upto, **logs},
                    rejects=kept.slice(counted, upto) if len(kept) else read.sample if counted == 0 else [],
                    rejected=upto - counted,
                    end=is_end,
                    letter=letter_of(batch) if keep_lines else None,
                    after=after,
                )
                if is_end:
                    return
                row, counted = end, upto

    def _select(self) -> Selection:
        if self._selection is None:
            self._selection = select_logs(self.path, self.options)
        return self._selection

    def _decode(self, interner: Interner, events: TimeSorter, kept: KeptRejects, begun: Extents) -> "_Read":
        """Read all logs into `events`, from where they are `begun` on; bad records that are kept whole go to `kept`."""
        selection = self._select()
        self.notes = [f"left out: {what}" for what in selection.left_out[:_SHOWN_NAMES]]
        if len(selection.left_out) > _SHOWN_NAMES:
            self.notes.append(f"left out: {len(selection.left_out) - _SHOWN_NAMES} more")
        read = _Read(EventBuilder(interner, self.options), events, kept)
        extents = iter(begun or repeat(None))
        done = 0
        for file in selection.files:
            for log in file.logs:
                extent = next(extents)
                if extent is None or (isinstance(extent, Extent) and not (extent.begin and extent.begin.whole)):
                    extent = self._read(file, log, read, extent, done)
                read.extents.append(extent)
            file.check_unchanged()
            done += file.bytes
        if not (events.rows or begun):
            raise self._no_event(read.rejected, [*read.sample, *kept.slice(0, _SHOWN_REJECTS)])
        if not (events.rows or read.rejected):
            self.notes.append(f"{self.path} holds nothing that was not ingested before")
        events.finish()
        names = len(interner)
        if read.two_sorts and not self.options.bipartite and (shared := self._names_on_both_sides(events, names)):
            self.notes.append(
                f"{shared:,} names stand both for a source and for an item; if they are counted apart, use --bipartite"
            )
        return read

    def _read(self, file: LogFile, log: Member, read: "_Read", begun: Extent | None, done: int) -> Extent | None:
        """Read a log, from where it is `begun` on; return what was read of it, None if it holds no record.

        Args:
            file: the file that it is in.
            log: the log.
            read: takes what is read.
            begun: what was read of it before.
            done: the bytes of the files before.
        """

        total = sum(each.bytes for each in self._select().files)

        def on_read(at: int) -> None:
            if self._on_progress is not None:
                self._on_progress(done + at, total)

        begin = None if begun is None else begun.begin
        if begun is None or begin is None:
            text, reader = Text(file.path, log), LogReader(log.label, read.builder)
        else:
            text = Text(file.path, log, begin.byte)
            reader = LogReader(
                log.label,
                read.builder,
                dialect=begun.dialect,
                unit=begin.unit,
                first_line=begin.line,
                in_array=begin.in_array,
            )
        rows = read.events.rows
        # `finish` is last.
        for batches in chain(map(reader.feed, text.pieces(self._block_bytes, on_read)), _finish(reader)):
            for batch in batches:
                read.events.add(batch)
            if self.options.keep_records:
                read.kept.extend(reader.rejects.take())
        read.rejected += reader.rejects.count
        read.sample += reader.rejects.take()[: self.options.reject_sample - len(read.sample)]
        read.two_sorts |= reader.dialect is not None and reader.dialect.bipartite_hint
        has_records = read.events.rows > rows or reader.rejects.count > 0
        if begin is not None and has_records:
            where = f"byte {begin.byte:,}" if log.is_plain else f"byte {begin.byte:,} of what it unpacks to"
            self.notes.append(f"{log.label} grew: what is behind {where} is added to what was ingested before")
        self.notes += reader.notes
        return Extent.of(file, log, text, reader, begin) if has_records or begin is not None else None

    def _names_on_both_sides(self, events: TimeSorter, names: int) -> int:
        is_src, is_dst = np.zeros(names, dtype=np.bool_), np.zeros(names, dtype=np.bool_)
        for at in range(0, events.rows, self._batch_rows):
            batch = events.slice(at, min(at + self._batch_rows, events.rows))
            is_src[batch.src] = True
            is_dst[batch.dst] = True
        return int((is_src & is_dst).sum())

    def _place_of(self, position: Position) -> tuple[int, int]:
        """Return how many events, and how many bad records, stand before a position."""
        row, rejected = position.get("row"), position.get("rejected")
        if position.get("mode") != "sorted" or not isinstance(row, int) or row < 0 or not isinstance(rejected, int):
            raise InputError(
                f"{self.path} cannot be resumed: the store has another kind of position for it",
                fix="ingest it into a new store",
            )
        if "after" in position and "logs" not in position:
            raise InputError(
                f"{self.path} cannot be resumed: an earlier version broke off while it added to what it had read, and"
                " counted rows in another way",
                fix="let that version read it to its end; else ingest it into a new store, or under another --graph",
            )
        return row, rejected

    def _no_event(self, rejected: int, rejects: list[Reject]) -> InputError:
        if not rejected:
            return InputError(f"{self.path} holds no record", fix="give a log with events")
        shown = "\n       ".join(f"{reject.place}: {reject.reason}" for reject in rejects[:_SHOWN_REJECTS])
        flags = re.findall(r"\(use (--time-unit \w+)\)", rejects[0].reason if rejects else "")
        fix = f"read it with {flags[0]}" if flags else "check --format, --columns and --time-unit against the file"
        return InputError(f"{self.path}: none of {rejected:,} records is a valid event", place=shown or None, fix=fix)


@dataclass(slots=True)
class _Read:
    """What is read of logs: where their records go, how many are bad with a sample of them, and how far each was read.

    `two_sorts`: the header of one speaks of users and items.
    """

    builder: EventBuilder
    events: TimeSorter
    kept: KeptRejects
    rejected: int = 0
    sample: list[Reject] = field(default_factory=list)
    extents: list[Entry] = field(default_factory=list)
    two_sorts: bool = False


def _finish(reader: LogReader) -> Iterator[list[EventBatch]]:
    yield reader.finish()
