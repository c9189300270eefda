from stream.decoders.builder import DecodeOptions
from stream.decoders.records.base import Record
from stream.decoders.records.formats import record_decoder
from stream.sources.kafka.client import Chunk, Partition
from stream.sources.kafka.decoding import BatchDecoder

PARTITION = Partition("t", 0)


def chunk_of(offset: int, *names: str) -> Chunk:
    values: list[bytes | None] = [b'{"src": "%s", "dst": "x", "ts": 5}' % name.encode() for name in names]
    return Chunk(
        partition=PARTITION,
        values=values,
        next_offset=offset + len(values),
        has_headers=False,
        record=lambda at: Record(values[at], topic="t", offset=offset + at),
    )


def test_names_are_forgotten_beyond_a_bound_and_batches_stay_right() -> None:
    options = DecodeOptions(time_unit="s")
    decoder = BatchDecoder(lambda interner: record_decoder(options, interner=interner), max_names=5)
    interners = set()
    for offset in range(0, 12, 2):
        names = (f"a{offset}", f"b{offset}")
        batch = decoder.decode([chunk_of(offset, *names)], {PARTITION: {"offset": offset + 2}})
        assert [event.src for event in batch.events] == list(names)
        assert decoder.decode([], {}).events.interner is batch.events.interner
        assert len(batch.events.interner) <= 5 + 6
        interners.add(id(batch.events.interner))
    assert len(interners) > 1
