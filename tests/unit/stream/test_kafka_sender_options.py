"""What the sender makes of the options, without brokers."""

from typing import Any

import pytest
from kafka import errors as kafka_errors

from infra.errors import UsageError
from stream.sources.kafka import sender as sender_module
from stream.sources.kafka.options import Connection
from stream.sources.kafka.refusals import TooLargeError
from stream.sources.kafka.sender import KafkaSender


class Producer:
    """Keeps its configuration, and says of each record that it is too large."""

    made: dict[str, Any]

    def __init__(self, **config: Any) -> None:
        Producer.made = config
        if config["delivery_timeout_ms"] < config["request_timeout_ms"] + config["linger_ms"]:
            raise kafka_errors.KafkaConfigurationError("delivery_timeout_ms is too small")

    def partitions_for(self, _topic: str) -> set[int]:
        return {0}

    def send(self, *_: Any, **__: Any) -> None:
        raise kafka_errors.MessageSizeTooLargeError("The message is 9 bytes")


@pytest.fixture(autouse=True)
def producer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender_module, "KafkaProducer", Producer)


@pytest.mark.parametrize(
    ("options", "delivery_ms"),
    [
        ({}, 60_020),
        ({"linger.ms": 100}, 60_100),
        ({"request.timeout.ms": 90_000}, 90_020),
        ({"delivery.timeout.ms": 120_000}, 120_000),
    ],
)
def test_the_time_for_delivery_covers_a_request(options: dict[str, int], delivery_ms: int) -> None:
    KafkaSender(Connection("a:1", options))
    assert Producer.made["delivery_timeout_ms"] == delivery_ms


def test_options_that_do_not_fit_each_other_are_no_brokers_that_are_down() -> None:
    with pytest.raises(UsageError, match="delivery_timeout_ms is too small") as caught:
        KafkaSender(Connection("a:1", {"delivery.timeout.ms": 1_000}))
    assert caught.value.fix == "check [kafka.options]"


def test_a_record_that_is_too_large_is_told_with_what_to_raise() -> None:
    sender = KafkaSender(Connection("a:1"))
    with pytest.raises(TooLargeError, match="a record for topic 't' is too large") as caught:
        sender.send("t", b"x")
    assert "max.request.size" in str(caught.value.fix)
    assert "max.message.bytes" in str(caught.value.fix)
    assert Producer.made["max_request_size"] > 2 << 20
