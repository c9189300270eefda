"""Puts our reader of record batches in the place of kafka-python's, which makes an object for each record.

kafka-python hands the bytes of a fetch to a class of its fetcher; a subclass of it takes whole batches from them. The
class is no public interface: `can_hook` tells whether this version of the library has it as it is needed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any

from kafka.consumer.fetcher import Fetcher
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.util import calc_crc32c

from stream.sources.kafka.batches import (
    CODEC_MASK,
    CONTROL,
    CRC_FROM,
    HEADER_BYTES,
    TRANSACTIONAL,
    Block,
    Header,
    Piece,
    headers,
    is_format_2,
    read_block,
)
from stream.sources.kafka.client import Chunk, Partition, UnreadableBatchError
from stream.sources.kafka.codecs import decompress

READ_COMMITTED = 1
_NEEDED = {"fetch_offset", "tp", "records", "check_crcs", "isolation_level", "aborted_transactions", "on_drain"}


@dataclass(slots=True)
class Room:
    """What may still be taken; kept roughly, as batches are taken whole."""

    records: int = 0
    bytes: int = 0

    @property
    def is_left(self) -> bool:
        """Whether anything may be taken."""
        return self.records > 0 and self.bytes > 0


def can_hook() -> bool:
    """Tell whether this version of kafka-python reads fetches as we need it."""
    records = getattr(Fetcher, "PartitionRecords", None)
    return (
        records is not None
        and set(signature(records.__init__).parameters) >= _NEEDED
        and all(hasattr(records, name) for name in ("take", "drain", "_is_batch_aborted", "_contains_abort_marker"))
        and hasattr(records, "_consume_aborted_transactions_up_to")
    )


def hook(fetcher: Any, room: Room) -> None:
    """Let a fetcher return chunks in the place of records; `room` bounds each take."""
    fetcher.PartitionRecords = partial(_chunks_class(), room)


def _chunks_class() -> Callable[..., Any]:
    class Chunks(Fetcher.PartitionRecords):  # type: ignore[misc]
        """The records of one partition in one fetch, handed out in chunks of whole batches."""

        def __init__(self, room: Room, fetch_offset: int, tp: Any, records: Any, **options: Any) -> None:
            super().__init__(fetch_offset, tp, records, **options)
            self._room = room
            self._data = memoryview(records._buffer)
            self._is_old = not is_format_2(self._data)
            self._headers = iter(()) if self._is_old else headers(self._data)
            self._partition = Partition(tp.topic, tp.partition)

        def take(self, n: int | None = None) -> list[Chunk]:
            """Return at most one chunk; none where nothing is left that is meant for readers."""
            if self._is_old:
                records = super().take(self._room.records)
                self._room.records -= len(records)
                return [chunk_of_records(records)] if records else []
            pieces = list(self._pieces())
            if not pieces:
                return []
            block = read_block(pieces).since(self.fetch_offset)
            self.records_read += len(block)
            if not len(block):
                return []
            return [
                Chunk(
                    partition=self._partition,
                    values=block.values(),
                    next_offset=self.next_fetch_offset,
                    has_headers=bool(block.headers.any()),
                    record=partial(_record, block, self._partition),
                )
            ]

        def _pieces(self) -> Iterator[Piece]:
            """Yield batches while there is room; at the end of the fetch, drain it."""
            while self._room.is_left:
                header = next(self._headers, None)
                if header is None:
                    self.drain()
                    return
                piece = self._piece(header)
                self.next_fetch_offset = header.next_offset
                self.leader_epoch = header.leader_epoch
                if piece is not None and header.next_offset > self.fetch_offset:
                    self._room.records -= header.records
                    self._room.bytes -= len(piece.data)
                    self.bytes_read += header.end - header.begin
                    yield piece

        def _piece(self, header: Header) -> Piece | None:
            """Return the records of a batch; None if it is not meant for readers."""
            raw = self._data[header.begin : header.end]
            if self.check_crcs and calc_crc32c(raw[CRC_FROM:]) != header.crc:
                raise UnreadableBatchError(f"a batch at offset {header.base_offset} whose checksum is wrong")
            if self.isolation_level == READ_COMMITTED and header.producer_id >= 0:
                self._consume_aborted_transactions_up_to(header.next_offset - 1)
                if header.attributes & CONTROL:
                    if self._contains_abort_marker(DefaultRecordBatch(raw)):
                        self.aborted_producer_ids.discard(header.producer_id)
                elif header.attributes & TRANSACTIONAL and header.producer_id in self.aborted_producer_ids:
                    return None
            if header.attributes & CONTROL or not header.records:
                return None
            data: bytes | memoryview = raw[HEADER_BYTES:]
            codec = header.attributes & CODEC_MASK
            return Piece(header, decompress(codec, bytes(data)) if codec else data)

    return Chunks


def _record(block: Block, partition: Partition, at: int) -> Any:
    return block.record(at, partition)


def chunk_of_records(records: list[Any]) -> Chunk:
    """Return records of kafka-python, of one partition and at least one, as a chunk."""
    first, last = records[0], records[-1]
    return Chunk(
        partition=Partition(first.topic, first.partition),
        values=[record.value for record in records],
        next_offset=last.offset + 1,
        has_headers=any(record.headers for record in records),
        record=partial(_converted, records),
    )


def _converted(records: list[Any], at: int) -> Any:
    from stream.decoders.records.base import Record  # noqa: PLC0415

    record = records[at]
    return Record(
        value=record.value,
        key=record.key,
        headers=tuple((name, value or b"") for name, value in record.headers or ()),
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        ts_us=None if record.timestamp < 0 else record.timestamp * 1000,
    )
