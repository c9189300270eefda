"""What goes wrong with a real broker, on both client libraries: said, waited for or stopped at, never skipped."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition

from infra.errors import InputError, UsageError
from stream.sources.base import PartitionedBatch
from stream.sources.kafka.options import Connection
from tests.integration.kafka_cases import FakeClaims, Opener, Store, event, number_of, send
from tests.servers.kafka import SASL_PASSWORD, SASL_USER, KafkaServer

# What either client waits for an answer.
LONGEST_QUESTION_S = 5.0


@pytest.fixture(params=["kafka-python", "confluent"])
def opened(kafka: KafkaServer, request: pytest.FixtureRequest) -> Opener:
    return Opener(kafka, request.param)


@contextmanager
def after(delay_s: float, act: object) -> Iterator[None]:
    """Do something in the background while the body runs."""
    timer = threading.Timer(delay_s, act)  # type: ignore[arg-type]
    timer.start()
    try:
        yield
    finally:
        timer.join()


def numbers(store: Store) -> list[int]:
    return sorted(number_of(ts_us) for _, ts_us, _ in store.events)


def delete_records(kafka: KafkaServer, topic: str, before: int) -> None:
    """Delete the records before an offset, as retention does."""
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    try:
        admin.delete_records({TopicPartition(topic, 0): before})
    finally:
        admin.close()


def test_records_that_retention_took_stop_the_run_or_are_a_gap(kafka: KafkaServer, opened: Opener) -> None:
    topic = kafka.create_topic()
    send(kafka, topic, map(event, range(10)))
    store = Store(positions={f"{topic}/0": {"offset": 3, "topic_id": ""}})
    delete_records(kafka, topic, 7)
    with (
        opened(topic, claims=FakeClaims(store)) as run,
        pytest.raises(InputError, match=r"4 records .* are gone") as caught,
    ):
        run.read()
    assert "on_gap" in str(caught.value.fix)
    assert store.events == []
    with opened(topic, claims=FakeClaims(store), skip_lost=True) as run:
        run.read()
        [status] = run.source.status().partitions
    assert (status.gaps, status.missing, status.offset, status.lag) == (1, 4, 10, 0)
    assert any("gap: 4 records" in line for line in run.said)
    assert numbers(store) == [7, 8, 9]


def test_retention_that_overtakes_a_reader_is_noticed(kafka: KafkaServer, opened: Opener) -> None:
    topic = kafka.create_topic()
    send(kafka, topic, map(event, range(3)))
    with opened(topic, follow=True) as run:
        run.read(lambda _: len(run.claims.store.events) == 3)
        # Read on from where the broker has nothing any more, as after a long commit.
        run.source.client.start(dict.fromkeys(run.source._readings, 1))
        run.source._readings[next(iter(run.source._readings))].offset = 1
        delete_records(kafka, topic, 2)
        with pytest.raises(InputError, match=r"1 records of .* are gone"):
            run.source._recover_range()


def test_gaps_of_transactions_are_counted(kafka: KafkaServer, opened: Opener) -> None:
    topic = kafka.create_topic()
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap_servers, transactional_id=f"t-{topic}")
    producer.init_transactions()
    for number in range(4):
        producer.begin_transaction()
        producer.send(topic, event(number), partition=0)
        if number == 1:
            producer.flush()
            producer.abort_transaction()
        else:
            producer.commit_transaction()
    producer.close()
    with opened(topic) as run:
        run.read()
        [status] = run.source.status().partitions
    assert numbers(run.claims.store) == [0, 2, 3], "the aborted one does not count"
    assert run.claims.store.positions == {f"{topic}/0": {"offset": 8, "topic_id": run.source._topics[topic].id}}
    assert (status.missing, status.lag) == (5, 0)
    assert sum("gap: " in line for line in run.said) == 1


def test_a_topic_made_again_is_not_mistaken_for_the_old_one(kafka: KafkaServer, opened: Opener) -> None:
    topic = kafka.create_topic()
    send(kafka, topic, map(event, range(2)))
    store = Store()
    with opened(topic, claims=FakeClaims(store)) as run:
        run.read()
    kafka.delete_topic(topic)
    kafka.create_topic(name=topic)
    send(kafka, topic, map(event, range(5)))
    with opened(topic, claims=FakeClaims(store)) as run, pytest.raises(InputError, match="was deleted and made again"):
        run.read()
    assert numbers(store) == [0, 1]


def test_a_log_that_is_shorter_than_what_was_read_stops_the_run(kafka: KafkaServer, opened: Opener) -> None:
    topic = kafka.create_topic()
    send(kafka, topic, [event(0)])
    store = Store(positions={f"{topic}/0": {"offset": 3, "topic_id": ""}})
    with (
        opened(topic, claims=FakeClaims(store)) as run,
        pytest.raises(InputError, match="but was read up to 3"),
    ):
        run.read()


def test_a_topic_deleted_while_it_is_read_is_said(kafka: KafkaServer, opened: Opener) -> None:
    topic = kafka.create_topic()
    send(kafka, topic, [event(0)])
    with opened(topic, follow=True) as run, pytest.raises(InputError, match=f"'{topic}' was deleted"):

        def deleted(batch: PartitionedBatch) -> bool:
            if len(batch.events):
                kafka.delete_topic(topic)
            return False

        run.read(deleted)
    assert numbers(run.claims.store) == [0]


def test_a_missing_topic_is_told_with_those_of_a_similar_name(kafka: KafkaServer, opened: Opener) -> None:
    topic = kafka.create_topic()
    with pytest.raises(InputError, match="there is no topic") as caught, opened(topic[:-1]):
        pass
    assert topic in str(caught.value.fix)
    with pytest.raises(InputError, match=r"no topic of Kafka at .* matches"), opened("^nothing-.*"):
        pass


def test_a_broker_that_is_down_at_the_start_is_waited_for_and_given_up(kafka: KafkaServer, opened: Opener) -> None:
    topic = kafka.create_topic()
    send(kafka, topic, [event(0)])
    kafka.kill()
    with pytest.raises(InputError, match="has not answered for 1 s") as caught, opened(topic, connect_timeout_s=1.0):
        pass
    assert "--bootstrap-servers" in str(caught.value.fix)
    # Later than the first question is given up, so that there is something to say.
    with after(LONGEST_QUESTION_S + 1.0, kafka.restart), opened(topic, connect_timeout_s=60.0) as run:
        run.read()
    assert run.said
    assert "does not answer" in run.said[0]
    assert numbers(run.claims.store) == [0]


def test_a_broker_that_goes_away_midway_is_waited_for_and_idles_nothing(kafka: KafkaServer, opened: Opener) -> None:
    topic = kafka.create_topic(partitions=2)
    send(kafka, topic, map(event, range(10)), 2)
    idle = []
    with opened(topic, follow=True, idle_timeout_s=1000.0) as run:
        restarting: list[threading.Thread] = []
        failed: list[Exception] = []

        def watched(batch: PartitionedBatch) -> bool:
            idle.extend(part.partition for part in batch.parts if part.idle)
            if len(run.claims.store.events) == 10 and not restarting:
                kafka.kill()
                restarting.append(threading.Thread(target=come_back))
                restarting[0].start()
            assert not failed
            # The brokers are asked how they are now and then: records may be quicker.
            return len(run.claims.store.events) == 20 and any("answers again" in line for line in run.said)

        def come_back() -> None:
            try:
                end_s = time.monotonic() + 60
                while not any("has not answered" in line for line in run.said):
                    assert time.monotonic() < end_s
                    time.sleep(0.05)
                kafka.restart()
                send(kafka, topic, map(event, range(10, 20)), 2)
            except Exception as error:  # noqa: BLE001 - told by the test's own thread
                failed.append(error)

        try:
            run.read(watched, polls=1000)
        finally:
            for thread in restarting:
                thread.join()
    assert numbers(run.claims.store) == list(range(20))
    assert any("answers again" in line for line in run.said)
    assert not idle


def test_a_partition_without_news_becomes_idle_once_and_wakes(kafka: KafkaServer, opened: Opener) -> None:
    topic = kafka.create_topic(partitions=2)
    send(kafka, topic, [event(0)], 1)
    with opened(topic, follow=True, idle_timeout_s=0.5) as run:
        seen: list[PartitionedBatch] = []

        def both(batch: PartitionedBatch) -> bool:
            seen.append(batch)
            return {part.partition for each in seen for part in each.parts if part.idle} == {f"{topic}/0", f"{topic}/1"}

        run.read(both)
        send(kafka, topic, [event(1)], 1)
        run.claims.store.events.clear()
        awake = run.read(lambda batch: len(batch.events) > 0)
    [part] = awake[-1].parts
    assert (part.partition, part.idle) == (f"{topic}/0", False)


@pytest.mark.parametrize("is_right", [True, False])
def test_a_password_is_used_or_refused_at_once(kafka: KafkaServer, opened: Opener, is_right: bool) -> None:
    topic = kafka.create_topic()
    send(kafka, topic, [event(0)])
    options = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": SASL_USER}
    password = SASL_PASSWORD if is_right else "wrong-one"
    connection = Connection(kafka.sasl_bootstrap_servers, options, password=password)
    assert password not in repr(connection)
    if is_right:
        with opened(topic, connection=connection) as run:
            run.read()
        assert numbers(run.claims.store) == [0]
        return
    with (
        pytest.raises(InputError, match="does not accept the credentials") as caught,
        opened(topic, connection=connection),
    ):
        pass
    assert password not in str(caught.value)


def test_an_option_that_the_library_does_not_know_is_wrong_usage(kafka: KafkaServer, opened: Opener) -> None:
    with (
        pytest.raises(UsageError, match=r"fetch\.minimum\.bytes"),
        opened("t", connection=Connection(kafka.bootstrap_servers, {"fetch.minimum.bytes": 1})),
    ):
        pass
