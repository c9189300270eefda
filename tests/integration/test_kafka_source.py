"""The Kafka source against a real broker, on both client libraries: nothing lost, nothing twice, nothing in silence."""

import threading
import time

import pytest
from kafka import KafkaAdminClient

from infra.errors import InputError
from stream.decoders.builder import DecodeOptions
from stream.sources.base import PartitionedBatch
from stream.sources.kafka.options import Connection
from stream.sources.kafka.sender import KafkaSender
from tests.integration.kafka_cases import FakeClaims, Opener, Store, event, number_of, send
from tests.servers.kafka import KafkaServer


@pytest.fixture(params=["kafka-python", "confluent"])
def opened(kafka: KafkaServer, request: pytest.FixtureRequest) -> Opener:
    return Opener(kafka, request.param)


def numbers(store: Store) -> list[int]:
    return sorted(number_of(ts_us) for _, ts_us, _ in store.events)


@pytest.mark.parametrize("codec", ["none", "gzip"])
def test_every_event_is_read_once_over_restarts_from_positions(kafka: KafkaServer, opened: Opener, codec: str) -> None:
    topic = kafka.create_topic(partitions=3)
    options = {} if codec == "none" else {"compression.type": codec}
    send(kafka, topic, map(event, range(3000)), 3, **options)
    store = Store()
    for _ in range(2):
        with opened(topic, claims=FakeClaims(store), batch_records=300) as run:
            run.read(until=lambda batch: len(batch.events) > 0)
    assert 0 < len(store.events) < 3000
    with opened(topic, claims=FakeClaims(store)) as run:
        run.read()
    assert numbers(store) == list(range(3000))
    send(kafka, topic, map(event, range(3000, 3010)), 3, **options)
    with opened(topic, claims=FakeClaims(store), close_at_end=True) as run:
        batches = run.read()
        assert [batch.end for batch in batches] == [False] * (len(batches) - 1) + [True]
        assert run.claims.log[-1] == ("release", [f"{topic}/{number}" for number in range(3)])
    assert numbers(store) == list(range(3010))
    of_first = [number_of(ts_us) for partition, ts_us, _ in store.events if partition == f"{topic}/0"]
    assert of_first == sorted(of_first), "the order of the log is kept"


def test_bad_records_are_named_with_their_place_and_given_back_whole(kafka: KafkaServer, opened: Opener) -> None:
    topic = kafka.create_topic(partitions=2)
    values = [event(0), event(1), b"{broken", b'{"src": "a"}', event(4), None, b"\x00\x00\x00\x00\x07x", b"[1]"]
    send(kafka, topic, values, 2)
    with opened(topic) as run:
        batches = run.read()
    rejects = [reject for batch in batches for reject in batch.rejects]
    assert sorted(reject.place for reject in rejects) == [
        f"{topic}, partition 0, offset 1",
        f"{topic}, partition 0, offset 3",
        f"{topic}, partition 1, offset 1",
        f"{topic}, partition 1, offset 3",
    ]
    whole = {
        (reject.record_of.partition, reject.record_of.offset): reject.record_of
        for reject in rejects
        if reject.record_of
    }
    assert whole[0, 1].value == b"{broken"
    assert whole[1, 1].value == b'{"src": "a"}'
    assert whole[0, 1].key == b"k"
    assert all(record.ts_us and record.topic == topic for record in whole.values())
    assert all(reject.reason and reject.stage for reject in rejects)
    assert sum(part.rejected for batch in batches for part in batch.parts) == 4
    assert numbers(run.claims.store) == [0, 1, 4]
    batch = next(batch for batch in batches if len(batch.events))
    assert batch.letter is not None
    letter = batch.letter(0, "late", "TRANSFORMATION")
    assert letter.record_of is not None
    assert letter.record_of.value == event(number_of(int(batch.events.ts_us[0])))


def test_strict_stops_at_the_first_bad_record(kafka: KafkaServer, opened: Opener) -> None:
    topic = kafka.create_topic()
    send(kafka, topic, [event(0), b"{broken"])
    with opened(topic, strict=True) as run, pytest.raises(InputError, match="bad record") as caught:
        run.read()
    assert caught.value.place == f"{topic}, partition 0, offset 1"


def test_topics_by_expression_and_graphs_by_topic(kafka: KafkaServer, opened: Opener) -> None:
    first = kafka.create_topic()
    second = kafka.create_topic(name=f"{first}-more")
    send(kafka, first, [event(0)])
    send(kafka, second, [event(1)])
    with opened(f"^{first}.*", decoding=DecodeOptions(graph="{topic}")) as run:
        batches = run.read()
    graphs = {name.graph for batch in batches for name in batch.events}
    assert graphs == {first, second}


def test_a_group_shares_partitions_and_hands_them_over_without_loss(kafka: KafkaServer, opened: Opener) -> None:
    topic = kafka.create_topic(partitions=4)
    send(kafka, topic, map(event, range(400)), 4)
    store, stop = Store(), threading.Event()
    claims = [FakeClaims(store), FakeClaims(store)]
    failed: list[Exception] = []

    def work(which: int) -> None:
        try:
            with opened(topic, claims=claims[which], group="g", follow=True, batch_records=50) as run:
                run.read(until=lambda _: stop.is_set(), polls=2000)
        except Exception as error:  # noqa: BLE001 - told by the test's own thread
            failed.append(error)

    def wait(what: str, holds: object) -> None:
        end_s = time.monotonic() + 40
        while not holds():  # type: ignore[operator]
            assert time.monotonic() < end_s, what
            assert not failed, failed
            time.sleep(0.02)

    workers = [threading.Thread(target=work, args=(which,)) for which in (0, 1)]
    workers[0].start()
    try:
        wait("the first reads all", lambda: len(store.events) == 400)
        workers[1].start()
        wait("both have some", lambda: {id(owner) for owner in store.owner.values()} == set(map(id, claims)))
        send(kafka, topic, map(event, range(400, 800)), 4)
        wait("both read what comes", lambda: len(store.events) == 800)
    finally:
        stop.set()
        for worker in workers:
            if worker.ident is not None:
                worker.join(30)
    assert not failed
    assert numbers(store) == list(range(800))
    assert any(what == "release" for what, _ in claims[0].log)


def test_a_topic_that_appears_and_partitions_that_are_added_are_read_from_their_first_record(
    kafka: KafkaServer, opened: Opener
) -> None:
    first = kafka.create_topic()
    send(kafka, first, [event(0)])
    store = Store()

    def add_partition() -> None:
        admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
        admin.create_partitions({first: 2})
        admin.close()
        with KafkaSender(Connection(kafka.bootstrap_servers)) as sender:
            sender.send(first, event(1), partition=1)

    def add_topic() -> None:
        send(kafka, kafka.create_topic(name=f"{first}-more"), [event(2)])

    steps = [add_partition, add_topic]

    def done(_batch: PartitionedBatch) -> bool:
        # What comes next comes after what came before has been read.
        if store.positions and steps and len(store.events) == 2 - len(steps):
            steps.pop(0)()
        return numbers(store) == [1, 2]

    with opened(f"^{first}.*", claims=FakeClaims(store), follow=True, start="latest") as run:
        run.read(until=done)
    assert set(store.positions) == {f"{first}/0", f"{first}/1", f"{first}-more/0"}


def test_latest_is_where_the_first_run_began(kafka: KafkaServer, opened: Opener) -> None:
    topic = kafka.create_topic()
    send(kafka, topic, [event(0)])
    store = Store()
    with opened(topic, claims=FakeClaims(store), follow=True, start="latest") as run:
        run.read(until=lambda _: bool(store.positions))
    send(kafka, topic, [event(1)])
    with opened(topic, claims=FakeClaims(store), start="latest") as run:
        run.read()
    assert numbers(store) == [1]
