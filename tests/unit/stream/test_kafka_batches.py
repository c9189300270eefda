"""Record batches read as arrays give what kafka-python gives record by record, and broken bytes are told."""

import re
from collections.abc import Iterator
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.record import MemoryRecords, MemoryRecordsBuilder

import stream.sources.kafka.batches as batches_module
from stream.sources.kafka.batches import HEADER_BYTES, Block, Piece, headers, is_format_2, read_block
from stream.sources.kafka.client import Partition, UnreadableBatchError
from stream.sources.kafka.codecs import decompress
from stream.sources.kafka.fast_fetch import can_hook

P = Partition("t", 3)
Row = tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]

texts = st.one_of(st.none(), st.binary(max_size=300))
rows = st.lists(
    st.tuples(
        st.integers(0, 2**40), texts, texts, st.lists(st.tuples(st.text(max_size=5), texts), max_size=3)
    ),
    max_size=12,
)  # fmt: skip


def built(batches: list[list[Row]], codec: int = 0) -> bytes:
    data, offset = b"", 7
    for batch in batches:
        builder = MemoryRecordsBuilder(2, codec, 1 << 20, offset=offset)
        for ts_ms, key, value, record_headers in batch:
            builder.append(ts_ms, key, value, record_headers)
        builder.close()
        data += bytes(builder.buffer())
        offset += len(batch)
    return data


def pieces(data: bytes) -> Iterator[Piece]:
    for header in headers(data):
        raw = data[header.begin + HEADER_BYTES : header.end]
        codec = header.attributes & 7
        yield Piece(header, decompress(codec, raw) if codec else raw)


def block_of(data: bytes) -> Block:
    """Return the records, read by the compiled part where there is one, and the same without it."""
    found = list(pieces(data))
    with patch.object(batches_module, "native", None):
        try:
            expected = read_block(found)
        except UnreadableBatchError as error:
            with pytest.raises(UnreadableBatchError, match=re.escape(str(error))):
                read_block(found)
            raise
    block = read_block(found)
    for name in Block.__slots__[1:]:
        np.testing.assert_array_equal(getattr(block, name), getattr(expected, name), err_msg=name)
    return block


@given(st.lists(rows.filter(len), max_size=4), st.sampled_from([0, 1]))
def test_arrays_agree_with_the_library_record_by_record(batches: list[list[Row]], codec: int) -> None:
    data = built(batches, codec)
    block = block_of(data)
    told = [record for batch in MemoryRecords(data) for record in batch]
    assert block.values() == [record.value for record in told]
    for at, record in enumerate(told):
        ours = block.record(at, P)
        assert (ours.offset, ours.key, ours.value) == (record.offset, record.key, record.value)
        assert ours.ts_us == record.timestamp * 1000
        assert ours.headers == tuple((name, value or b"") for name, value in record.headers)
        assert (ours.topic, ours.partition) == ("t", 3)


def test_a_block_can_begin_at_an_offset() -> None:
    block = block_of(built([[(0, None, b"%d" % number, []) for number in range(5)]]))
    assert block.since(9).values() == [b"2", b"3", b"4"]
    assert len(block.since(99)) == 0


def test_a_batch_that_the_broker_cut_off_is_left_for_the_next_fetch() -> None:
    data = built([[(0, None, b"whole", [])], [(0, None, b"cut off", [])]])
    assert block_of(data[:-1]).values() == [b"whole"]


@given(st.data())
def test_broken_bytes_are_told_or_read_but_never_fall_over(data: st.DataObject) -> None:
    good = bytearray(built([[(5, b"k", b"value", [("h", b"x")])] * 3]))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(HEADER_BYTES, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert len(block_of(bytes(good)).values()) == 3
    except UnreadableBatchError as error:
        assert str(error)


@pytest.mark.parametrize("codec", [1, 2, 3, 4, 5])
def test_what_is_not_compressed_as_it_says_is_told(codec: int) -> None:
    with pytest.raises(UnreadableBatchError):
        decompress(codec, b"\x05nothing of the kind")


def test_the_installed_library_is_read_as_arrays() -> None:
    assert can_hook()
    assert is_format_2(built([[(0, None, b"x", [])]]))
