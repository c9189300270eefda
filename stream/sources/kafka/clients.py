"""Which client library reads: the choice, and what makes a client of it."""

from collections.abc import Callable
from importlib.util import find_spec

from infra.errors import UsageError
from stream.sources.kafka.client import KafkaClient
from stream.sources.kafka.options import Connection

KAFKA_PYTHON = "kafka-python"
CONFLUENT = "confluent"
ASK_TIMEOUT_S = 5.0
CLIENTS = ("auto", KAFKA_PYTHON, CONFLUENT)


def choose_client(wanted: str) -> str:
    """Return the library that `auto` means here, or the one that is named.

    `auto` is the faster one: kafka-python where its fetches can be decoded as whole batches (docs/benchmarks.md), else
    confluent-kafka if it is installed.

    Raises:
        UsageError: it is unknown, or not installed.
    """
    is_there = find_spec("confluent_kafka") is not None
    if wanted == "auto":
        from stream.sources.kafka.fast_fetch import can_hook  # noqa: PLC0415 - imports the library

        return CONFLUENT if is_there and not can_hook() else KAFKA_PYTHON
    if wanted not in CLIENTS:
        raise UsageError(f"unknown Kafka client {wanted!r}", fix=f"use one of {', '.join(CLIENTS)}")
    if wanted == CONFLUENT and not is_there:
        raise UsageError(
            "confluent-kafka is not installed", fix="pip install 'graphtide[fast]', or use --client kafka-python"
        )
    return wanted


def connector(
    wanted: str, connection: Connection, *, group: str | None, ask_timeout_s: float = ASK_TIMEOUT_S
) -> Callable[[], KafkaClient]:
    """Return what makes clients of a library.

    Args:
        wanted: the library, or `auto`.
        connection: how to reach the cluster.
        group: the consumer group, None for none.
        ask_timeout_s: how long a question to the brokers waits for its answer.

    Raises:
        UsageError: it is unknown, or not installed.
    """
    chosen = choose_client(wanted)

    def connect() -> KafkaClient:
        # Each library is slow to import, and one of them may not be there.
        if chosen == CONFLUENT:
            from stream.sources.kafka.client_confluent import ConfluentClient  # noqa: PLC0415

            return ConfluentClient(connection, group=group, ask_timeout_s=ask_timeout_s)
        from stream.sources.kafka.client_kafka_python import KafkaPythonClient  # noqa: PLC0415

        return KafkaPythonClient(connection, group=group, ask_timeout_s=ask_timeout_s)

    return connect
