"""The sender against a real broker: everything arrives as it was given, and what does not is said."""

import pytest
from kafka import KafkaConsumer, TopicPartition

from infra.errors import GraphtideError
from stream.sources.kafka.options import Connection
from stream.sources.kafka.sender import MAX_UNACKNOWLEDGED, KafkaSender
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
