"""Kafka's record batches, format 2: from the bytes of a fetch to arrays of where keys and values stand.

A record of 80 bytes costs a loop in Python some eight microseconds. The compiled part reads all records of a fetch at
once; without it, only their lengths are read one by one. Format: kafka.apache.org/documentation, "Record Batch" and
"Record".
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stream.decoders.records.base import Headers, Record
from stream.events import IntArray
from stream.native import native
from stream.sources.kafka.client import Partition, UnreadableBatchError

# base offset, length, leader epoch, magic, crc, attributes, last offset delta, first and maximal timestamp,
# producer id and epoch, base sequence, count of records
_HEADER = struct.Struct(">qiibIhiqqqhii")
_LENGTH = struct.Struct(">qi")
HEADER_BYTES = _HEADER.size
# What the crc covers begins behind it.
CRC_FROM = struct.calcsize(">qiibI")
_MAGIC_AT = struct.calcsize(">qii")

CODEC_MASK = 0x07
APPEND_TIME = 0x08
TRANSACTIONAL = 0x10
CONTROL = 0x20
_MAX_VARINT_BITS = 63


class Header(NamedTuple):
    """The header of a batch that lies at `begin <= at < end` of the bytes of a fetch."""

    begin: int
    end: int
    base_offset: int
    leader_epoch: int
    crc: int
    attributes: int
    last_offset_delta: int
    first_ts_ms: int
    max_ts_ms: int
    producer_id: int
    records: int

    @property
    def next_offset(self) -> int:
        """The offset after the batch."""
        return self.base_offset + self.last_offset_delta + 1


def is_format_2(data: bytes | memoryview) -> bool:
    """Tell whether the first batch has the format that all brokers write since 0.11."""
    return len(data) <= _MAGIC_AT or data[_MAGIC_AT] == 2


def headers(data: bytes | memoryview) -> Iterator[Header]:
    """Yield the headers of the whole batches of a fetch; brokers cut the last one off where a fetch is full.

    Raises:
        UnreadableBatchError: a batch has another format, or a length that cannot be.
    """
    at = 0
    while at + HEADER_BYTES <= len(data):
        _, length = _LENGTH.unpack_from(data, at)
        end = at + _LENGTH.size + length
        if end > len(data):
            return
        if end < at + HEADER_BYTES or data[at + _MAGIC_AT] != 2:
            raise UnreadableBatchError(f"a batch of format {data[at + _MAGIC_AT]} with {length} bytes")
        base, _, epoch, _, crc, attributes, last, first_ts, max_ts, producer, _, _, count = _HEADER.unpack_from(
            data, at
        )
        yield Header(at, end, base, epoch, crc, attributes, last, first_ts, max_ts, producer, count)
        at = end


@dataclass(frozen=True, slots=True)
class Block:
    """n records: where they stand in `data`, as arrays of shape [n]; a length below 0 stands for null.

    Attributes:
        data: the records of all batches, uncompressed, one after the other.
        offset: of each record.
        ts_ms: the broker's time of each record, in milliseconds since the epoch.
        headers_at: where the headers begin, with their number before them already read.
        headers: how many headers each record has.
    """

    data: bytes
    offset: IntArray
    ts_ms: IntArray
    key_at: IntArray
    key_length: IntArray
    value_at: IntArray
    value_length: IntArray
    headers_at: IntArray
    headers: IntArray

    def __len__(self) -> int:
        return len(self.offset)

    def since(self, offset: int) -> "Block":
        """Return the records from an offset on: a fetch begins with the batch that holds the offset."""
        if not len(self) or self.offset[0] >= offset:
            return self
        kept = self.offset >= offset
        return Block(self.data, *(getattr(self, name)[kept] for name in Block.__slots__[1:]))

    def values(self) -> list[bytes | None]:
        """Return the values."""
        data, begins = self.data, self.value_at.tolist()
        ends = (self.value_at + self.value_length).tolist()
        if (self.value_length >= 0).all():
            return [data[begin:end] for begin, end in zip(begins, ends, strict=True)]
        return [None if end < begin else data[begin:end] for begin, end in zip(begins, ends, strict=True)]

    def record(self, at: int, partition: Partition) -> Record:
        """Make the record at an index."""
        return Record(
            value=self._bytes(int(self.value_at[at]), int(self.value_length[at])),
            key=self._bytes(int(self.key_at[at]), int(self.key_length[at])),
            headers=self._headers(int(self.headers_at[at]), int(self.headers[at])),
            topic=partition.topic,
            partition=partition.number,
            offset=int(self.offset[at]),
            ts_us=None if self.ts_ms[at] < 0 else int(self.ts_ms[at]) * 1000,
        )

    def _bytes(self, at: int, length: int) -> bytes | None:
        return None if length < 0 else self.data[at : at + length]

    def _headers(self, at: int, count: int) -> Headers:
        found: list[tuple[str, bytes]] = []
        for _ in range(count):
            length, at = _varint_at(self.data, at)
            name, at = self.data[at : at + length].decode("utf-8", "replace"), at + length
            length, at = _varint_at(self.data, at)
            found.append((name, self._bytes(at, length) or b""))
            at += max(length, 0)
        return tuple(found)


class Piece(NamedTuple):
    """The records of one batch, uncompressed, and its header."""

    header: Header
    data: bytes | memoryview


def read_block(pieces: Sequence[Piece]) -> Block:
    """Return the records of batches.

    Raises:
        UnreadableBatchError: they are not what the headers say.
    """
    data = b"".join([piece.data for piece in pieces])
    fields = _compiled_fields(data, pieces)
    if fields is not None:
        return _block(data, pieces, *fields)
    try:
        starts = np.array(_record_starts(data, pieces), dtype=np.int64)
        return _block(data, pieces, *_fields(data, starts))
    except IndexError:
        raise UnreadableBatchError("a record that reaches beyond its batch") from None


def _record_starts(data: bytes, pieces: Sequence[Piece]) -> list[int]:
    """Return where each record begins, behind its length."""
    starts: list[int] = []
    add = starts.append
    at = 0
    for header, piece in pieces:
        end = at + len(piece)
        for _ in range(header.records):
            # Lengths are zigzag varints and never negative: twice the length.
            length = data[at]
            at += 1
            if length > 127:
                length, at = _varint_tail(data, at, length)
            add(at)
            at += length >> 1
        if at != end:
            raise UnreadableBatchError(f"{header.records} records that do not fill the batch at {header.base_offset}")
    return starts


def _compiled_fields(data: bytes, pieces: Sequence[Piece]) -> Sequence[IntArray] | None:
    """Return what `_fields` does; None where there is no compiled part, or something is wrong, which is told there."""
    if native is None:
        return None
    end = np.cumsum([len(piece.data) for piece in pieces], dtype=np.int64)
    count = np.array([header.records for header, _ in pieces], dtype=np.int64)
    fields: Sequence[IntArray] | None = native.read_records(data, end, count)
    return fields


def _fields(data: bytes, starts: IntArray) -> Sequence[IntArray]:
    """Return the fields [n] of records, in the order of `_block`'s arguments, from where they begin."""
    raw = np.frombuffer(data, dtype=np.uint8)
    ts_delta, at = _varints(raw, starts + 1)  # one byte of attributes, unused
    offset_delta, at = _varints(raw, at)
    key_length, key_at = _varints(raw, at)
    value_length, value_at = _varints(raw, key_at + np.maximum(key_length, 0))
    header_count, headers_at = _varints(raw, value_at + np.maximum(value_length, 0))
    if min(key_length.min(initial=0), value_length.min(initial=0), header_count.min(initial=0) - 1) < -1:
        raise UnreadableBatchError("a record with a negative length")
    return ts_delta, offset_delta, key_length, key_at, value_length, value_at, header_count, headers_at


def _block(
    data: bytes,
    pieces: Sequence[Piece],
    ts_delta: IntArray,
    offset_delta: IntArray,
    key_length: IntArray,
    key_at: IntArray,
    value_length: IntArray,
    value_at: IntArray,
    headers: IntArray,
    headers_at: IntArray,
) -> Block:
    count = [header.records for header, _ in pieces]

    def of_batch(values: list[int]) -> IntArray:
        return np.repeat(np.array(values, dtype=np.int64), count)

    ts_ms = of_batch([header.first_ts_ms for header, _ in pieces]) + ts_delta
    appended = of_batch([header.attributes & APPEND_TIME for header, _ in pieces]) > 0
    if appended.any():
        ts_ms = np.where(appended, of_batch([header.max_ts_ms for header, _ in pieces]), ts_ms)
    return Block(
        data=data,
        offset=of_batch([header.base_offset for header, _ in pieces]) + offset_delta,
        ts_ms=ts_ms,
        key_at=key_at,
        key_length=key_length,
        value_at=value_at,
        value_length=value_length,
        headers_at=headers_at,
        headers=headers,
    )


def _varints(raw: npt.NDArray[np.uint8], at: IntArray) -> tuple[IntArray, IntArray]:
    """Return the zigzag varints at positions [n], and the positions behind them; raises IndexError beyond the end."""
    value = raw[at].astype(np.uint64)
    at = at + 1
    rows = np.flatnonzero(value > 127)
    value &= np.uint64(127)
    shift = 7
    while len(rows):
        if shift > _MAX_VARINT_BITS:
            raise UnreadableBatchError("a number of more than 64 bits")
        byte = raw[at[rows]].astype(np.uint64)
        value[rows] |= (byte & np.uint64(127)) << np.uint64(shift)
        at[rows] += 1
        rows = rows[byte > 127]
        shift += 7
    return (value >> np.uint64(1)).astype(np.int64) ^ -(value & np.uint64(1)).astype(np.int64), at


def _varint_tail(data: bytes, at: int, value: int) -> tuple[int, int]:
    """Return a varint, zigzag as it stands, whose first byte was `value`, and the position behind it."""
    value &= 127
    for shift in range(7, _MAX_VARINT_BITS + 1, 7):
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise UnreadableBatchError("a length of more than 64 bits")


def _varint_at(data: bytes, at: int) -> tuple[int, int]:
    value, at = data[at], at + 1
    if value > 127:
        value, at = _varint_tail(data, at, value)
    return (value >> 1) ^ -(value & 1), at
