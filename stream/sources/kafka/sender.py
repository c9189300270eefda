"""Sends records to Kafka until the brokers have acknowledged every one, or says which they have not."""

import contextlib
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Any, NoReturn, Self

from kafka import KafkaProducer
from kafka import errors as kafka_errors

from infra.errors import GraphtideError, InputError
from stream.sources.kafka.options import Connection, kafka_python_config

# Records that wait for the brokers' word at once. The client itself buffers without a bound.
MAX_UNACKNOWLEDGED = 20_000
# The oldest of them are asked for their fate in groups of this many: asking one by one would wait for each alone.
_SETTLE = 5_000


class KafkaSender:
    """A producer with `acks=all`, idempotent unless the options say otherwise; a context manager.

    `send` may return before a record is acknowledged; a failure is raised by a later `send`, by `flush` or at the end
    of the context. After a failure the sender is of no more use: what it was given since the last `flush` that
    returned may or may not have arrived.

    Args:
        connection: how to reach the cluster.
        timeout_s: how long a record may wait for its acknowledgement, retries included.
    """

    def __init__(self, connection: Connection, *, timeout_s: float = 60.0) -> None:
        self._where = connection.bootstrap_servers
        self._timeout_s = timeout_s
        self._waiting: deque[tuple[str, Any]] = deque()
        self._known_topics: set[str] = set()
        timeout_ms = max(1, round(timeout_s * 1000))
        config = {
            "acks": "all",
            "linger_ms": 20,
            "batch_size": 256 * 1024,
            "allow_auto_create_topics": False,
            "max_block_ms": timeout_ms,
            "bootstrap_timeout_ms": timeout_ms,
            "request_timeout_ms": min(30_000, timeout_ms),
            "delivery_timeout_ms": timeout_ms + 20,  # it has to cover a request and the lingering before it
            **kafka_python_config(connection, "producer"),
        }
        try:
            self._producer = KafkaProducer(**config)
        except kafka_errors.KafkaError as error:
            self._refuse(None, error)
        except (AssertionError, ValueError, TypeError, OSError) as error:  # wrong options end so in the client
            raise InputError(f"Kafka at {self._where} cannot be used: {error}", fix="check [kafka.options]") from None

    def send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
        partition: int | None = None,
        ts_ms: int | None = None,
    ) -> None:
        """Hand a record over for sending.

        Args:
            topic: it has to exist.
            value: the payload; None for a tombstone, which needs a key.
            key: the key, by which the partition is chosen where `partition` is None.
            headers: names and values.
            partition: its number.
            ts_ms: the record's time, in milliseconds since the epoch; None for now.

        Raises:
            GraphtideError: the topic is not there, or an earlier record was not acknowledged.
        """
        self._check_topic(topic)
        if len(self._waiting) >= MAX_UNACKNOWLEDGED:
            self._settle(_SETTLE)
        try:
            future = self._producer.send(
                topic, value, key=key, headers=list(headers), partition=partition, timestamp_ms=ts_ms
            )
        except (kafka_errors.KafkaError, AssertionError, ValueError) as error:
            self._refuse(topic, error)
        self._waiting.append((topic, future))

    def flush(self) -> None:
        """Wait until everything that was sent is acknowledged.

        Raises:
            GraphtideError: something was not, with the topic and the reason.
        """
        with contextlib.suppress(kafka_errors.KafkaTimeoutError):  # which record it was, its future tells
            self._producer.flush(timeout=self._timeout_s + 5)
        self._settle(len(self._waiting))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Flush, unless an error is under way already, and close."""
        acknowledged = False
        try:
            if kind is None:
                self.flush()
                acknowledged = True
        finally:
            if not acknowledged:
                # `close` flushes first, and gives up without ending its thread where that fails: nothing may be left.
                self._producer._sender.force_close()  # there is no public way
            with contextlib.suppress(kafka_errors.KafkaError):
                self._producer.close(timeout=5)

    def _settle(self, count: int) -> None:
        """Wait for the fate of the oldest records."""
        for _ in range(count):
            topic, future = self._waiting.popleft()
            try:
                future.get(timeout=self._timeout_s + 5)
            except kafka_errors.KafkaError as error:
                self._waiting.clear()
                self._refuse(topic, error)

    def _check_topic(self, topic: str) -> None:
        if topic in self._known_topics:
            return
        try:
            partitions = self._producer.partitions_for(topic)
        except kafka_errors.KafkaTimeoutError:
            partitions = None
        except (kafka_errors.KafkaError, AssertionError, ValueError) as error:
            self._refuse(topic, error)
        if not partitions:
            raise InputError(
                f"the brokers at {self._where} know no topic {topic!r}",
                fix="create it first: topics are not made by sending to them; or check that the brokers run",
            )
        self._known_topics.add(topic)

    def _refuse(self, topic: str | None, error: BaseException) -> NoReturn:
        what = f"a record for topic {topic!r} was not acknowledged" if topic else "Kafka cannot be reached for sending"
        reason = str(error) or type(error).__name__
        raise GraphtideError(
            f"{what}: {reason}",
            place=self._where,
            fix="check that the brokers run and that this user may write there, then send again",
        ) from error
