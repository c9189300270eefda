"""From what one poll brought to a batch of events: all records of all partitions are decoded together."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate, chain
from typing import Any

import numpy as np

from infra.errors import InputError
from stream.decoders.records.base import LazyRecords, Record, RecordDecoder
from stream.events import EventBatch, Interner, Reject, shown
from stream.sources.base import Part, PartitionedBatch, Position
from stream.sources.kafka.client import Chunk, Partition

SHOWN_RECORD_BYTES = 200


class FetchedRecords(LazyRecords):
    """The records of chunks, one after the other."""

    __slots__ = ("_begins", "_chunks", "_values")

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self._chunks = chunks
        self._values = chunks[0].values if len(chunks) == 1 else list(chain(*(chunk.values for chunk in chunks)))
        self._begins = list(accumulate((len(chunk.values) for chunk in chunks), initial=0))

    @property
    def values(self) -> list[bytes | None]:
        """The values of all records."""
        return self._values

    @property
    def has_headers(self) -> bool:
        """Whether any record has headers."""
        return any(chunk.has_headers for chunk in self._chunks)

    def topics(self, at: Sequence[int]) -> list[str]:
        """Return the topics of the records at these indices."""
        names = [chunk.partition.topic for chunk in self._chunks]
        chunk_of = np.searchsorted(self._begins, np.asarray(at, dtype=np.int64), side="right") - 1
        return [names[chunk] for chunk in chunk_of.tolist()]

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, at: Any) -> Any:
        """Make one record, or a list of them for a slice."""
        if isinstance(at, slice):
            return [self._record(each) for each in range(*at.indices(len(self)))]
        if not -len(self) <= at < len(self):
            raise IndexError(at)
        return self._record(at % len(self))

    def _record(self, at: int) -> Record:
        chunk = bisect_right(self._begins, at) - 1
        return self._chunks[chunk].record(at - self._begins[chunk])


def in_partitions(chunks: Sequence[Chunk]) -> list[Chunk]:
    """Return the chunks in the order of the partitions' first appearance, those of a partition in their order."""
    first: dict[Partition, int] = {}
    for at, chunk in enumerate(chunks):
        first.setdefault(chunk.partition, at)
    return sorted(chunks, key=lambda chunk: first[chunk.partition])


class BatchDecoder:
    """Decodes what one poll brought.

    Args:
        make_decoder: makes the decoder of the records' format, for an interner.
        strict: stop at the first record that is no valid event.
        max_names: names that the interner of the batches holds at most, about; a new one follows, or a reader that
            runs for months would remember everyone who ever was.
    """

    def __init__(
        self, make_decoder: Callable[[Interner], RecordDecoder], *, strict: bool = False, max_names: int = 2_000_000
    ) -> None:
        self._make_decoder = make_decoder
        self._strict = strict
        self._max_names = max_names
        self._interner = Interner()
        self._decoder = make_decoder(self._interner)

    def decode(self, chunks: Sequence[Chunk], positions: dict[Partition, Position]) -> PartitionedBatch:
        """Decode records.

        Args:
            chunks: those of a partition together, in their order; none make a batch without events.
            positions: where each of their partitions goes on.

        Raises:
            InputError: something beside the records fails; or `strict`, and a record is no valid event.
        """
        if not chunks:
            return PartitionedBatch(EventBatch.from_events([], self._interner), ())
        if len(self._interner) > self._max_names:
            self._interner = Interner()
            self._decoder = self._make_decoder(self._interner)
        records = FetchedRecords(chunks)
        decoded = self._decoder.decode(records)

        def reject(at: int, reason: str, stage: str) -> Reject:
            record = records[at]
            return Reject(place_of(record), _shown(record.value), reason, stage, record_of=record)

        def letter(row: int, reason: str, stage: str) -> Reject:
            return reject(int(decoded.record[row]), reason, stage)

        rejects = [reject(at, reason, stage) for at, reason, stage in decoded.bad]
        if rejects and self._strict:
            raise InputError(
                f"bad record: {rejects[0].reason}",
                place=rejects[0].place,
                fix=f"mend the producer ({shown(rejects[0].record)}), or read on past bad records without --strict",
            )
        bad_at = np.array([bad.record for bad in decoded.bad], dtype=np.int64)
        parts, begin, row = [], 0, 0
        for partition, position in positions.items():
            end = begin + sum(len(chunk.values) for chunk in chunks if chunk.partition == partition)
            end_row = int(np.searchsorted(decoded.record, end))
            rejected = int(np.count_nonzero((bad_at >= begin) & (bad_at < end)))
            parts.append(Part(str(partition), row, end_row, position, rejected=rejected))
            begin, row = end, end_row
        return PartitionedBatch(decoded.events, tuple(parts), rejects, letter)


def place_of(record: Record) -> str:
    """Return where a record stands, for people."""
    return f"{record.topic}, partition {record.partition}, offset {record.offset}"


def _shown(value: bytes | None) -> str:
    if value is None:
        return ""
    return value[:SHOWN_RECORD_BYTES].decode("utf-8", "backslashreplace")
