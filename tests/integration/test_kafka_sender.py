"""The sender against a real broker: everything arrives as it was given, and what does not is said."""

from dataclasses import replace

import pytest
from kafka import KafkaConsumer, TopicPartition

from infra.errors import GraphtideError
from stream.deadletters import TopicTarget
from stream.decoders.records.base import Record
from stream.sources.kafka.options import Connection
from stream.sources.kafka.sender import MAX_UNACKNOWLEDGED, KafkaSender
from stream.store.dead_letters import DeadLetter
from tests.servers.kafka import KafkaServer


def test_what_is_sent_arrives_as_it_was_given(kafka: KafkaServer) -> None:
    topic = kafka.create_topic(partitions=2)
    with KafkaSender(Connection(kafka.bootstrap_servers, {"compression.type": "gzip"})) as sender:
        sender.send(topic, b"first", key=b"k", headers=[("h", b"1"), ("h", b"2")], partition=1, ts_ms=1_600_000_000_000)
        sender.send(topic, None, key=b"k", partition=1)
        sender.flush()
        for number in range(MAX_UNACKNOWLEDGED + 10):
            sender.send(topic, b"%d" % number, partition=0)
    consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap_servers, group_id=None, max_poll_records=100_000)
    try:
        partitions = [TopicPartition(topic, 0), TopicPartition(topic, 1)]
        ends = consumer.end_offsets(partitions)
        assert [ends[partition] for partition in partitions] == [MAX_UNACKNOWLEDGED + 10, 2]
        consumer.assign(partitions[1:])
        consumer.seek_to_beginning()
        read = []
        while len(read) < 2:
            read += consumer.poll(timeout_ms=10_000)[partitions[1]]
    finally:
        consumer.close()
    first, tombstone = read
    assert (first.value, first.key, first.timestamp) == (b"first", b"k", 1_600_000_000_000)
    assert first.headers == [("h", b"1"), ("h", b"2")]
    assert tombstone.value is None


def test_a_topic_that_is_not_there_and_a_broker_that_goes_are_said(kafka: KafkaServer) -> None:
    connection = Connection(kafka.bootstrap_servers)
    with (
        pytest.raises(GraphtideError, match=r"know no topic 'absent'"),
        KafkaSender(connection, timeout_s=1) as sender,
    ):
        sender.send("absent", b"x")
    topic = kafka.create_topic()
    with (
        pytest.raises(GraphtideError, match=f"a record for topic '{topic}' was not acknowledged"),
        KafkaSender(connection, timeout_s=1) as sender,
    ):
        sender.send(topic, b"x")
        sender.flush()
        kafka.kill()
        sender.send(topic, b"y")
    with pytest.raises(GraphtideError, match="cannot be reached"):
        KafkaSender(connection, timeout_s=1)


@pytest.mark.parametrize("limit", [1 << 20, 3 << 20])
def test_a_letter_that_a_topic_does_not_take_holds_up_no_other(kafka: KafkaServer, limit: int) -> None:
    topic = kafka.create_topic(configs={"max.message.bytes": str(limit)})
    values = [b"a", b"x" * ((1 << 20) - 100), b"b", b"x" * (4 << 20), b"c"]
    letters = [
        DeadLetter(number, "kafka:c/g", Record(value, topic="t", offset=number), "", "late", "", 0)
        for number, value in enumerate(values)
    ]
    with KafkaSender(Connection(kafka.bootstrap_servers)) as sender:
        target = TopicTarget(sender, topic)
        target.take(letters)
        target.take([replace(letters[0], number=5)])
    # With its headers, the second is larger than what topics take unless they are told otherwise.
    assert set(target.refused) == ({1, 3} if limit == 1 << 20 else {3})
    consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap_servers, group_id=None, auto_offset_reset="earliest")
    try:
        consumer.assign([TopicPartition(topic, 0)])
        end = consumer.end_offsets([TopicPartition(topic, 0)])[TopicPartition(topic, 0)]
        found: list[bytes] = []
        while consumer.position(TopicPartition(topic, 0)) < end:
            for records in consumer.poll(timeout_ms=1_000).values():
                found += [record.value for record in records]
    finally:
        consumer.close()
    assert set(found) == {value for number, value in enumerate(values) if number not in target.refused}
