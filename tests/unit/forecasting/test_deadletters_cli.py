"""`graphtide deadletters replay`: what it tells before it needs a broker, and what it sends."""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import pytest

from forecasting.bench.servers.base import free_port
from stream.decoders.records.base import Record
from stream.events import Reject
from stream.sources.kafka import sender as sender_module
from stream.store import open_writer
from tests.conftest import Ran

Cli = Callable[..., Ran]
STORE = "sqlite:///store.db"


class Sender:
    """Keeps what it is given."""

    sent: list[tuple[str, bytes | None]]

    def __init__(self, _connection: object) -> None:
        Sender.sent = []

    def send(self, topic: str, value: bytes | None, *_: Any) -> None:
        Sender.sent.append((topic, value))

    def flush(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        pass


@pytest.fixture
def replay(graphtide: Cli) -> Cli:
    """Return a function that sends letters again, by way of a broker that is not there."""
    where = f"127.0.0.1:{free_port()}"
    return lambda *more: graphtide("deadletters", "replay", *more, "--store", STORE, "--bootstrap-servers", where)


def fill(*sources: str) -> None:
    with open_writer(STORE) as writer, writer.transaction():
        for at, name in enumerate(sources):
            source = writer.add_source(name, split_by_type=False)
            record = Record(name.encode(), topic="town", offset=at)
            writer.add_rejects(source, [Reject("p", "…", "late", "STAGE", record)], keep=0)


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> type[Sender]:
    monkeypatch.setattr(sender_module, "KafkaSender", Sender)
    return Sender


def test_numbers_that_are_not_there_are_told_without_a_broker(replay: Cli) -> None:
    fill("kafka:c/g")
    ran = replay(1, 7, 8)
    assert ran.code == 2
    assert "there is no dead letter 7, 8" in ran.err


def test_that_there_are_none_is_told_without_a_broker(replay: Cli) -> None:
    fill()
    ran = replay()
    assert (ran.code, ran.err.strip()) == (
        0, "There are no dead letters to send. Those that were sent before need --again."
    )  # fmt: skip


@pytest.mark.parametrize("flags", [(), ("--topic", "town")])
def test_only_what_came_from_kafka_is_sent(replay: Cli, broker: type[Sender], flags: Sequence[str]) -> None:
    fill("spool:1", "kafka:c/g", "sse:x")
    ran = replay(*flags)
    assert (ran.code, ran.err.splitlines()) == (
        0,
        [
            "note: 2 dead letters came from no topic of Kafka and are left out",
            "Sent the records of 1 dead letters again.",
        ],
    )
    assert broker.sent == [("town", b"kafka:c/g")]


def test_one_that_is_named_and_has_no_topic_is_an_error(replay: Cli) -> None:
    fill("spool:1")
    ran = replay(1)
    assert ran.code == 2
    assert "dead letter 1 came from spool:1, which has no topic to send it to" in ran.err
