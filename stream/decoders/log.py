"""One log from bytes to validated events: its dialect and time unit are told from the first bytes."""

from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

from infra.errors import InputError
from stream.decoders.base import Decoder, RawColumns
from stream.decoders.builder import DecodeOptions, EventBuilder, RejectLog
from stream.decoders.detect import detect
from stream.decoders.dialect import Dialect
from stream.decoders.ndjson import JsonDecoder, Value
from stream.decoders.times import UNIT_US, UNIT_WORDS, TimeReader
from stream.decoders.units import OPEN, reader_of, tell_unit
from stream.events import EventBatch, Interner

HEAD_BYTES = 256 << 10
_UNIT_RECORDS = 1000
# After so many small numbers in a log that grows, one that looks like another unit is an absurd time.
_OPEN_RECORDS = 20


class LogReader:
    """Decodes one log that is fed in pieces; how it is cut does not change what comes out.

    Args:
        label: the log, as places and errors name it.
        builder: makes the batches.
        dialect, unit: where reading resumes, what was told at its beginning; else the first `HEAD_BYTES` tell.
        first_line: number of the first line that will be fed.
        in_array: where reading of JSON documents resumes, whether that is inside an array.

    Attributes:
        told_unit: the records that were read, or the options, tell the unit of times.
        unfinished_bytes, unfinished_lines: after `finish`, how long the last record was that lacked its end, and how
            many line ends it had.
        unfinished_counts: that record became an event: it was none that is no valid one, a comment or a blank.
    """

    def __init__(
        self,
        label: str,
        builder: EventBuilder,
        *,
        dialect: Dialect | None = None,
        unit: str | None = None,
        first_line: int = 1,
        in_array: bool = False,
    ) -> None:
        options = builder.options
        self.label = label
        limit = None if options.keep_records else options.reject_sample
        self.rejects = RejectLog(label, limit=limit, strict=options.strict)
        self.notes: list[str] = []
        self.dialect = dialect
        self._builder = builder
        self._options: DecodeOptions = options
        self._head = b""
        self._decoder: Decoder | None = None
        self._times: TimeReader | None = None
        self._unit = OPEN
        self._small_numbers = 0
        self.unfinished_bytes = self.unfinished_lines = 0
        self.unfinished_counts = False
        self.told_unit = True
        if dialect is not None and unit is not None:
            self._open(dialect, unit, first_line, in_array=in_array)

    @property
    def interner(self) -> Interner:
        """The interner of all batches."""
        return self._builder.interner

    @property
    def unit(self) -> str:
        """The unit of numeric times, or `units.DATES`; `units.OPEN` while it is not told."""
        return self._unit

    @property
    def next_line(self) -> int:
        """Number of the first line that is not decoded."""
        return 1 if self._decoder is None else self._decoder.next_line

    @property
    def last_value(self) -> Value | None:
        """The last value of JSON documents that was decoded; None of other formats."""
        return self._decoder.last_value if isinstance(self._decoder, JsonDecoder) else None

    @property
    def pending_bytes(self) -> int:
        """Bytes that were fed and not yet decoded."""
        return len(self._head) if self._decoder is None else self._decoder.pending_bytes

    @property
    def held_back(self) -> str:
        """What was fed and not yet decoded, in words for the user; "" for nothing."""
        if not self.pending_bytes:
            return ""
        if self._decoder is None:
            return f"{self.label}: {self.pending_bytes} bytes were left, too few to tell the format"
        if self._decoder.pending_lines:
            place = f"{self.label}:{self.next_line}"
            return f"{place}: a record whose quote is not closed yet was left, {self.pending_bytes} bytes"
        return f"{self.label}: an unfinished last line was left, {self.pending_bytes} bytes"

    def feed(self, data: bytes, *, wait: bool = True) -> list[EventBatch]:
        """Decode what is complete now.

        Args:
            data: the next piece.
            wait: keep the beginning back until `HEAD_BYTES` are there. Without it the dialect and the unit are told
                from the records that are there, for logs that grow slowly.

        Raises:
            InputError: this is no log, or a record is bad and the options are strict.
        """
        if self._decoder is None:
            self._head += data
            if (wait and len(self._head) < HEAD_BYTES) or not self._tell(whole=False, wait=wait):
                return []
            data, self._head = self._head, b""
        assert self._decoder is not None
        return self._build(self._decoder.feed(data))

    def finish(self) -> list[EventBatch]:
        """Decode what is left at the end.

        Raises:
            InputError: as for `feed`; or the log is empty or ends inside a document.
        """
        raws: list[RawColumns] = []
        if self._decoder is None:
            self._tell(whole=True, wait=True)
        assert self._decoder is not None
        if self._head:
            raws, self._head = self._decoder.feed(self._head), b""
        self.unfinished_bytes, self.unfinished_lines = self._decoder.pending_bytes, self._decoder.pending_lines
        last = self._decoder.finish()
        batches = self._build(raws + last)
        self.unfinished_counts = any(len(raw.lines) for raw in last) and self.rejects.last_line != self.next_line
        return batches

    def _tell(self, *, whole: bool, wait: bool) -> bool:
        """Tell dialect and unit from the head; False if it does not hold enough yet."""
        head = self._head[:HEAD_BYTES]
        full = len(self._head) >= HEAD_BYTES
        dialect = detect(head, label=self.label, options=self._options, whole=whole)
        if dialect is None and full:
            raise InputError(
                f"{self.label} is no log in a known format: no complete record in its first {HEAD_BYTES >> 10} KiB",
                fix="give one event a line, or say the format: --format json",
            )
        # Objects that span lines cannot be told from broken lines while there are few.
        if dialect is None or (dialect.format == "json" and not (whole or wait or full)):
            return False
        unit: str | None = self._options.time_unit
        if unit == "auto":
            unit = self._unit_of(dialect, head, whole=whole, settle=whole or wait or full)
            if unit is None and not (whole or wait or full):
                return False
        self.told_unit = unit is not None
        self._open(dialect, unit or "s", 1)
        self.notes.append(f"{self.label}: {dialect.summary}")
        self._note_unit()
        return True

    def _note_unit(self) -> None:
        if self._options.time_unit == "auto" and self.unit in UNIT_US and self.unit != "s":
            self.notes.append(
                f"{self.label}: times are in {UNIT_WORDS[self.unit]}; as seconds they would lie beyond the year 2200"
            )

    def _unit_of(self, dialect: Dialect, head: bytes, *, whole: bool, settle: bool) -> str | None:
        """Return what the first times tell; `OPEN` for small numbers, unless it has to be settled from them."""
        decoder = dialect.decoder(self.label)
        raws = decoder.feed(head)
        if whole:
            raws += decoder.finish()
        told = tell_unit(_first_times(raws))
        if told.day is not None:
            raise self._compact_dates(told.day, next(line for raw in raws for line in raw.lines))
        return told.unit if told.sure or settle or told.unit is None else OPEN

    def _compact_dates(self, day: int, line: int) -> InputError:
        written = f"{day // 10**4}-{day // 100 % 100:02}-{day % 100:02}"
        return InputError(
            f"{self.label}: its times look like compact dates such as {day}; as seconds they would lie in 1970",
            place=f"{self.label}:{line}",
            fix=f"give --time-unit s if these are seconds, or write {written}",
        )

    def _open(self, dialect: Dialect, unit: str, first_line: int, *, in_array: bool | None = None) -> None:
        self.dialect = dialect
        self._decoder = dialect.decoder(self.label, first_line=first_line, in_array=in_array)
        self._take_unit(unit)

    def _take_unit(self, unit: str) -> None:
        self._unit = unit
        self._times = reader_of(unit, self._options.rules, detected=self._options.time_unit == "auto")

    def _settle_unit(self, raws: list[RawColumns]) -> None:
        """Settle an open unit if these records tell it, or if it will not be told any more."""
        told = tell_unit(_first_times(raws))
        self._small_numbers += sum(len(raw.lines) for raw in raws)
        if told.unit is not None and (told.sure and told.day is None):
            self._take_unit(told.unit)
            self._note_unit()
        elif self._small_numbers >= _OPEN_RECORDS:
            self._take_unit("s")

    def _build(self, raws: list[RawColumns]) -> list[EventBatch]:
        if self._unit == OPEN:
            self._settle_unit(raws)
        assert self._times is not None
        batches = [self._builder.build(raw, self._times, self.rejects) for raw in raws]
        return [batch for batch in batches if len(batch)]


def _first_times(raws: list[RawColumns]) -> Iterator[Any]:
    return islice(chain.from_iterable(raw.columns["ts"] for raw in raws), _UNIT_RECORDS)
