"""The Kafka source on a client in memory: what a real broker does only when it is ill."""

from collections.abc import Callable, Mapping, Sequence

import pytest

from infra.errors import InputError
from stream.decoders.builder import DecodeOptions
from stream.decoders.records.base import Record
from stream.decoders.records.formats import record_decoder
from stream.sources.base import PartitionedBatch, Position
from stream.sources.kafka.client import Bounds, Chunk, Partition, Polled, Topic, UnavailableError
from stream.sources.kafka.decoding import BatchDecoder
from stream.sources.kafka.plan import KafkaOptions
from stream.sources.kafka.source import KafkaSource

P = Partition("t", 0)


def event(number: int) -> bytes:
    return b'{"src": "a", "dst": "b", "ts": %d}' % (1_600_000_000 + number)


def chunk(begin: int, end: int, *, next_offset: int | None = None) -> Chunk:
    values: list[bytes | None] = [event(number) for number in range(begin, end)]
    return Chunk(P, values, next_offset or end, False, lambda at: Record(values[at], topic="t", offset=begin + at))


class Client:
    """A client that gives out what it was told, one poll after the other, and then nothing."""

    def __init__(self, polls: Sequence[Polled], end: int) -> None:
        self.polls = list(polls)
        self.end = end
        self.started: list[Mapping[Partition, int]] = []
        self.is_down = False
        self.closed = False

    name = "client in memory"

    def cluster_id(self) -> str:
        return "c"

    def topics(self, names: Sequence[str] | None = None) -> dict[str, Topic]:
        if self.is_down:
            raise UnavailableError("down")
        return {"t": Topic("id", 1)}

    def bounds(self, partitions: Sequence[Partition]) -> dict[Partition, Bounds]:
        return {each: Bounds(0, self.end) for each in partitions}

    def join(self, topics: Sequence[str]) -> None:
        raise AssertionError

    def start(self, offsets: Mapping[Partition, int]) -> None:
        self.started.append(offsets)

    def poll(self, max_records: int, max_bytes: int, timeout_s: float) -> Polled:
        return self.polls.pop(0) if self.polls else Polled()

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        raise AssertionError

    def close(self) -> None:
        self.closed = True


class Claims:
    def announce(self, partitions: Sequence[str]) -> None:
        pass

    def claim(self, partitions: Sequence[str]) -> dict[str, Position | None]:
        return dict.fromkeys(partitions)

    def release(self, partitions: Sequence[str]) -> None:
        pass


def source(clients: Sequence[Client], said: list[str], **options: object) -> KafkaSource:
    waiting = list(clients)
    plan: dict[str, object] = {"where": "w", "topics": ("t",), "follow": True, "probe_every_s": 0.0, **options}
    return KafkaSource(
        lambda: waiting.pop(0),
        BatchDecoder(lambda interner: record_decoder(DecodeOptions(), interner=interner)),
        KafkaOptions(**plan),  # type: ignore[arg-type]
        say=said.append,
    )


def read(reader: KafkaSource, until: Callable[[PartitionedBatch], bool], most: int = 20) -> list[PartitionedBatch]:
    batches: list[PartitionedBatch] = []
    for batch in reader.batches(Claims()):
        batches.append(batch)
        assert len(batches) <= most
        if until(batch):
            break
    return batches


def offsets(batches: Sequence[PartitionedBatch]) -> list[object]:
    return [part.position["offset"] for batch in batches for part in batch.parts]


def test_a_marker_behind_records_of_the_same_poll_does_not_hide_them() -> None:
    said: list[str] = []
    client = Client([Polled([chunk(0, 3)], moved={P: 3}), Polled([chunk(3, 5)], moved={P: 7})], end=7)
    with source([client], said) as reader:
        batches = read(reader, lambda batch: offsets([batch]) == [7])
        [status] = reader.status().partitions
    assert [len(batch.events) for batch in batches] == [3, 2]
    assert offsets(batches) == [3, 7]
    assert (status.gaps, status.missing) == (1, 2)
    assert said == [
        "gap: 2 offsets of t/0 from 5 to 7 have no record. Compacted topics and transactions leave such gaps; further"
        " ones are only counted"
    ]


def test_records_that_come_again_are_not_read_again() -> None:
    client = Client([Polled([chunk(0, 3)]), Polled([chunk(1, 3)]), Polled([chunk(2, 6)])], end=6)
    with source([client], []) as reader:
        batches = read(reader, lambda batch: offsets([batch]) == [6])
    assert [len(batch.events) for batch in batches] == [3, 0, 3]


def test_a_partition_that_stands_still_gets_a_new_client_once_and_is_then_an_error() -> None:
    said: list[str] = []
    first, second = Client([Polled([chunk(0, 2)])], end=5), Client([], end=5)
    with source([first, second], said, stall_timeout_s=1e-9) as reader, pytest.raises(InputError) as caught:
        read(reader, lambda _: False)
    assert first.closed
    assert second.started == [{P: 2}]
    assert [line for line in said if "warning" in line] == said
    assert "t/0 stands at offset 2, 3 records before its end, also with a new client" in str(caught.value)


def test_a_new_client_that_reads_on_is_a_warning_only() -> None:
    first, second = Client([Polled([chunk(0, 2)])], end=5), Client([Polled([chunk(2, 5)])], end=5)
    with source([first, second], [], stall_timeout_s=1e-9) as reader:
        batches = read(reader, lambda batch: offsets([batch]) == [5])
    assert sum(len(batch.events) for batch in batches) == 5


def test_silence_of_brokers_makes_nothing_idle() -> None:
    said: list[str] = []
    client = Client([Polled([chunk(0, 1)])], end=1)
    with source([client], said, idle_timeout_s=1e-9) as reader:
        batches = reader.batches(Claims())
        next(batches)
        client.is_down = True
        assert not any(part.idle for _ in range(5) for part in next(batches).parts)
        assert reader.status().waiting_s is not None
        client.is_down = False
        [idle] = [part for _ in range(3) for part in next(batches).parts]
    assert idle.idle
    assert "has not answered" in said[0]
    assert said[-1] == "Kafka at w answers again"


class Counting(Client):
    """A client that counts how often it was asked for records."""

    def __init__(self, polls: Sequence[Polled], end: int) -> None:
        super().__init__(polls, end)
        self.asked = 0

    def poll(self, max_records: int, max_bytes: int, timeout_s: float) -> Polled:
        self.asked += 1
        if not self.polls:
            raise InputError("broken", fix="mend it")
        return super().poll(max_records, max_bytes, timeout_s)


def test_more_is_asked_for_before_a_batch_is_handed_over_only_where_more_is_known_to_be_there() -> None:
    client = Counting([Polled([chunk(0, 2)]), Polled([chunk(2, 4)]), Polled([chunk(4, 5)])], end=4)
    asked = []
    with source([client], [], probe_every_s=60.0) as reader:
        for batch in reader.batches(Claims()):
            asked.append((client.asked, *offsets([batch])))
            if len(asked) == 3:
                break
    assert asked == [(2, 2), (2, 4), (3, 5)]


def test_what_waits_is_handed_over_before_an_error_ends_the_run() -> None:
    batches: list[PartitionedBatch] = []
    client = Counting([Polled([chunk(0, 2)])], end=4)
    with source([client], [], probe_every_s=60.0) as reader, pytest.raises(InputError, match="broken"):
        batches.extend(reader.batches(Claims()))
    assert offsets(batches) == [2]


class Grouped(Client):
    """A client of a group."""

    def join(self, topics: Sequence[str]) -> None:
        pass

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        pass


def test_what_waits_while_partitions_are_shared_out_anew_is_read_again_by_whoever_has_it() -> None:
    ours, shared = Polled([chunk(0, 2)]), Polled(assigned=(P,))
    client = Grouped([shared, ours, shared, Polled([chunk(0, 4)])], end=4)
    with source([client], [], group="g", probe_every_s=60.0) as reader:
        batches = read(reader, lambda batch: len(batch.events) > 0)
    assert [len(batch.events) for batch in batches if len(batch.events)] == [4]
    assert client.started == [{P: 0}, {P: 0}]


class Growing(Client):
    """A client of a topic that gets a second partition, which has no leader until `is_led`."""

    def __init__(self, polls: Sequence[Polled], end: int) -> None:
        super().__init__(polls, end)
        self.partitions = 1
        self.is_led = False
        self.refused = 0

    def topics(self, names: Sequence[str] | None = None) -> dict[str, Topic]:
        return {"t": Topic("id", self.partitions)}

    def bounds(self, partitions: Sequence[Partition]) -> dict[Partition, Bounds]:
        if not self.is_led and any(each.number for each in partitions):
            self.refused += 1
            assert self.refused < 4, "the other partition waits"
            raise UnavailableError("topic 't', partition 1 has no leader now")
        return super().bounds(partitions)


def test_a_new_partition_without_a_leader_holds_up_no_other_and_is_read_from_its_first_record() -> None:
    client = Growing([Polled([chunk(0, 1)]), Polled([chunk(1, 2)]), Polled([chunk(2, 3)])], end=0)
    with source([client], [], start="latest") as reader:
        batches = reader.batches(Claims())
        next(batches)
        client.partitions, client.end = 2, 5
        assert [len(next(batches).events) for _ in range(2)] == [1, 1]
        assert client.started == [{P: 0}]
        client.is_led = True
        next(batches)
    assert client.started[1][Partition("t", 1)] == 0


def test_where_reading_begins_is_handed_over_before_anything_has_come() -> None:
    with source([Client([], end=7)], [], start="latest") as reader:
        assert offsets([next(reader.batches(Claims()))]) == [7]
