"""What kafka-python answers where a partition has no leader."""

from typing import Any

import pytest
from kafka import TopicPartition

from stream.sources.kafka.client import Partition, UnavailableError
from stream.sources.kafka.client_kafka_python import KafkaPythonClient


class Consumer:
    """Misses one partition in the answer, as the library's fetcher does."""

    def __init__(self, missing: TopicPartition) -> None:
        self._missing = missing

    def beginning_offsets(self, _partitions: Any, timeout_ms: int) -> Any:
        return {}[self._missing]


def client_without(missing: TopicPartition) -> KafkaPythonClient:
    client = KafkaPythonClient.__new__(KafkaPythonClient)  # without brokers
    client._consumer = Consumer(missing)
    client._ask_timeout_ms = 1
    return client


def test_a_partition_without_a_leader_is_no_answer_yet() -> None:
    client = client_without(TopicPartition("t", 1))
    with pytest.raises(UnavailableError, match="topic 't', partition 1 has no leader now"):
        client.bounds([Partition("t", 0), Partition("t", 1)])


def test_what_was_not_asked_for_is_another_mistake() -> None:
    with pytest.raises(KeyError):
        client_without(TopicPartition("u", 0)).bounds([Partition("t", 0)])
