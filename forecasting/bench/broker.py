"""The topics that ingestion is measured on, on a Kafka broker that the benchmark starts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from forecasting.bench.processes import PeerError
from forecasting.bench.servers.base import MissingServerError, ServerFailedError
from forecasting.bench.servers.kafka import KafkaServer
from forecasting.bench.stream_input import PARTITIONS, EventLog, Truth, batched

MESSAGE_EVENTS = 500
# Messages of 500 events are some 40 kB. Without idempotence a retry may change the order of a partition, and with it
# which events are late.
_PRODUCER = {
    "enable.idempotence": True,
    "linger.ms": 50,
    "batch.size": 900_000,
    "queue.buffering.max.messages": 2_000_000,
}
_FLUSH_S = 120.0


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic with events.

    Attributes:
        servers: of the broker.
        records: messages in the topic.
        truth: the right counts of its events, those apart that only close the last steps.
    """

    servers: str
    name: str
    records: int
    truth: Truth


@contextmanager
def running_broker() -> Iterator[KafkaServer]:
    """Run a broker in a folder of its own.

    Raises:
        PeerError: it is not installed, or does not start.
    """
    with TemporaryDirectory(prefix="graphtide-bench-") as folder:
        try:
            server = KafkaServer(Path(folder) / "kafka").start()
        except (MissingServerError, ServerFailedError) as error:
            raise PeerError(f"no Kafka broker: {error}") from error
        try:
            yield server
        finally:
            server.discard()


def single_messages(server: KafkaServer, log: EventLog, *, closing: bool = False) -> Topic:
    """Send each event as a message of its own; `closing`: and then those that close the last steps."""
    lines = log.json_lines() + (EventLog.closing_lines() if closing else [])
    return _topic(server, lines, log)


def batch_messages(server: KafkaServer, log: EventLog) -> Topic:
    """Send the events as messages of `MESSAGE_EVENTS` lines of JSON each."""
    return _topic(server, list(batched(log.json_lines(), MESSAGE_EVENTS)), log)


def _topic(server: KafkaServer, messages: Sequence[bytes], log: EventLog) -> Topic:
    """Send messages, in turns to each partition, and wait until all are acknowledged.

    Raises:
        PeerError: a message was not.
    """
    from confluent_kafka import Producer  # noqa: PLC0415 - an extra

    name = server.create_topic(partitions=PARTITIONS)
    producer = Producer({"bootstrap.servers": server.bootstrap_servers, **_PRODUCER})
    failures: list[str] = []

    def acknowledged(error: object, _message: object) -> None:
        if error is not None:
            failures.append(str(error))

    for at, message in enumerate(messages):
        number = at % PARTITIONS
        while True:
            try:
                producer.produce(name, message, key=b"p%d" % number, partition=number, on_delivery=acknowledged)
                break
            except BufferError:
                producer.poll(0.1)
        if at % 4096 == 0:
            producer.poll(0)
    left = producer.flush(_FLUSH_S)
    if failures or left:
        raise PeerError(f"{len(failures) + left} messages could not be sent: {(failures or ['no answer'])[0]}")
    return Topic(server.bootstrap_servers, name, len(messages), log.truth())
