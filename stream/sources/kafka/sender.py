"""Sends records to Kafka until the brokers have acknowledged every one, or says which they have not."""

import contextlib
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Any, NoReturn, Self

from kafka import KafkaProducer
from kafka import errors as kafka_errors

from infra.errors import GraphtideError, InputError, UsageError
from stream.sources.kafka.options import Connection, kafka_python_config
from stream.sources.kafka.refusals import too_large

# Records that wait for the brokers' word at once. The client itself buffers without a bound.
MAX_UNACKNOWLEDGED = 20_000
# The oldest of them are asked for their fate in groups of this many: asking one by one would wait for each alone.
_SETTLE = 5_000
# A dead letter is a record that some topic took, 1 MiB by default, and the headers that say what was wrong with it.
_MAX_REQUEST_BYTES = (2 << 20) + (64 << 10)
_LINGER_MS = 20
# An answer may be a little late, after the client has given up by itself.
_GRACE_S = 5.0
_TOO_LARGE = (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError)


class KafkaSender:
    """A producer with `acks=all`, idempotent unless the options say otherwise; a context manager.

    `send` may return before a record is acknowledged; a failure is raised by a later `send`, by `flush` or at the end
    of the context. After a failure other than TooLargeError the sender is of no more use. After any, what it was given
    since the last `flush` that returned may or may not have arrived.

    Args:
        connection: how to reach the cluster.
        timeout_s: how long a record may wait for its acknowledgement, retries included; longer where the options give
            a single request more time.

    Raises:
        UsageError: an option is wrong, or does not fit the others.
        GraphtideError: the brokers cannot be reached.
    """

    def __init__(self, connection: Connection, *, timeout_s: float = 60.0) -> None:
        self._where = connection.bootstrap_servers
        self._waiting: deque[tuple[str, Any]] = deque()
        self._known_topics: set[str] = set()
        timeout_ms = max(1, round(timeout_s * 1000))
        options = kafka_python_config(connection, "producer")
        request_ms = options.get("request_timeout_ms", min(30_000, timeout_ms))
        # It has to cover a request and the lingering before it.
        delivery_ms = max(timeout_ms, request_ms) + options.get("linger_ms", _LINGER_MS)
        self._config = {
            "acks": "all",
            "linger_ms": _LINGER_MS,
            "batch_size": 256 * 1024,
            "allow_auto_create_topics": False,
            "max_block_ms": timeout_ms,
            "bootstrap_timeout_ms": timeout_ms,
            "max_request_size": _MAX_REQUEST_BYTES,
            "request_timeout_ms": request_ms,
            "delivery_timeout_ms": delivery_ms,
            **options,
        }
        self._patience_s = self._config["delivery_timeout_ms"] / 1000 + _GRACE_S
        self._producer = self._connected()

    def _connected(self) -> KafkaProducer:
        try:
            return KafkaProducer(**self._config)
        except kafka_errors.KafkaConfigurationError as error:
            raise UsageError(f"kafka-python refuses its options: {error}", fix="check [kafka.options]") from None
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
            TooLargeError: this record, or an earlier one, is larger than what can be sent.
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
            TooLargeError: a record is larger than what the brokers take.
            GraphtideError: something was not, with the topic and the reason.
        """
        with contextlib.suppress(kafka_errors.KafkaTimeoutError):  # which record it was, its future tells
            self._producer.flush(timeout=self._patience_s)
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
            self._close(acknowledged=acknowledged)

    def _close(self, *, acknowledged: bool) -> None:
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
                future.get(timeout=self._patience_s)
            except kafka_errors.KafkaError as error:
                self._waiting.clear()
                if isinstance(error, _TOO_LARGE):
                    # An idempotent producer sends nothing more after the brokers have refused a record.
                    self._close(acknowledged=False)
                    self._producer = self._connected()
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
        if topic and isinstance(error, _TOO_LARGE):
            raise too_large(self._where, topic, error) from error
        what = f"a record for topic {topic!r} was not acknowledged" if topic else "Kafka cannot be reached for sending"
        reason = str(error) or type(error).__name__
        raise GraphtideError(
            f"{what}: {reason}",
            place=self._where,
            fix="check that the brokers run and that this user may write there, then send again",
        ) from error
