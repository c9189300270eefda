"""The Kafka client on kafka-python, pure Python: installed everywhere."""

import base64
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from uuid import UUID

import kafka
from kafka import ConsumerRebalanceListener, KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors
from kafka.structs import OffsetAndMetadata

from infra.errors import InputError, UsageError
from stream.sources.kafka.client import (
    Bounds,
    Chunk,
    OutOfRangeError,
    Partition,
    Polled,
    Topic,
    UnavailableError,
    UnreadableBatchError,
)
from stream.sources.kafka.fast_fetch import Room, can_hook, chunk_of_records, hook
from stream.sources.kafka.handshakes import Handshakes
from stream.sources.kafka.options import Connection, kafka_python_config
from stream.sources.kafka.refusals import denied, unreadable, wrong_credentials

logger = logging.getLogger(__name__)

# One fetch of a partition: small enough that partitions advance together, large enough that a fetch is a small cost.
FETCH_PARTITION_BYTES = 4 << 20
FETCH_BYTES = 16 << 20


class KafkaPythonClient:
    """A consumer of kafka-python.

    Args:
        connection: how to reach the cluster.
        group: the consumer group, None for none.
        ask_timeout_s: how long a question to the brokers waits for its answer.

    Raises:
        UnavailableError: no broker answers.
        UsageError: an option is wrong.
        InputError: the brokers refuse this user.
    """

    def __init__(self, connection: Connection, *, group: str | None, ask_timeout_s: float) -> None:
        self._where = connection.bootstrap_servers
        self._ask_timeout_ms = max(1, round(ask_timeout_s * 1000))
        self._room = Room()
        self._assigned: tuple[Partition, ...] = ()
        self._joined = False
        # Counts the assignments of the group; those up to `_told` are known to the caller.
        self._assignments = self._told = 0
        config = {
            "max_partition_fetch_bytes": FETCH_PARTITION_BYTES,
            "fetch_max_bytes": FETCH_BYTES,
            "isolation_level": "read_committed",
            "bootstrap_timeout_ms": self._ask_timeout_ms,
            "reconnect_backoff_max_ms": 2_000,
            "metrics_enabled": False,
            **kafka_python_config(connection, "consumer"),
            "group_id": group,
            "auto_offset_reset": "none",
            "enable_auto_commit": False,
            "allow_auto_create_topics": False,
        }
        admin = {name: value for name, value in config.items() if name in KafkaAdminClient.DEFAULT_CONFIG}
        self._admin = self._made(KafkaAdminClient, {**admin, "request_timeout_ms": self._ask_timeout_ms})
        try:
            self._consumer = self._made(KafkaConsumer, config)
        except BaseException:
            self._admin.close()
            raise
        self._is_fast = can_hook()
        if self._is_fast:
            hook(self._consumer._fetcher, self._room)
        else:
            logger.warning("kafka-python %s is read record by record, more slowly", kafka.__version__)

    def _made(self, kind: Any, config: dict[str, Any]) -> Any:
        """Return a client of the library, connected; one that is not leaves no thread behind."""
        tries = Handshakes()
        try:
            with self._asking():
                return kind(**config, kafka_client=tries.client)
        except (AssertionError, TypeError, ValueError, OSError, kafka_errors.KafkaConfigurationError) as error:
            raise UsageError(f"kafka-python refuses its options: {error}", fix="check [kafka.options]") from None
        except UnavailableError:
            tries.close()
            refusal = tries.refusal()
            if refusal is not None:
                raise wrong_credentials(self._where, refusal) from None
            raise

    @property
    def name(self) -> str:
        """The library and its version."""
        return f"kafka-python {kafka.__version__}"

    def cluster_id(self) -> str:
        """Return the identity of the cluster."""
        with self._asking():
            return str(self._admin.describe_cluster()["cluster_id"])

    def topics(self, names: Sequence[str] | None = None) -> dict[str, Topic]:
        """Ask the brokers for topics."""
        with self._asking():
            described = self._admin.describe_topics(None if names is None else list(names))
        return {
            topic["name"]: Topic(_topic_id(topic.get("topic_id")), len(topic["partitions"]))
            for topic in described
            if not topic["error_code"]
        }

    def bounds(self, partitions: Sequence[Partition]) -> dict[Partition, Bounds]:
        """Ask the brokers for the bounds of partitions."""
        asked = [TopicPartition(*partition) for partition in partitions]
        try:
            with self._asking():
                first = self._consumer.beginning_offsets(asked, timeout_ms=self._ask_timeout_ms)
                end = self._consumer.end_offsets(asked, timeout_ms=self._ask_timeout_ms)
        except KeyError as error:
            # The library leaves out partitions without a known leader, and then misses them in its own answer.
            missing = error.args[0]
            if missing not in asked:
                raise
            raise UnavailableError(
                f"topic {missing.topic!r}, partition {missing.partition} has no leader now"
            ) from None
        return {Partition(*partition): Bounds(first[partition], end[partition]) for partition in asked}

    def join(self, topics: Sequence[str]) -> None:
        """Share topics with the others of the group."""
        self._joined = True
        self._consumer.subscribe(topics=list(topics), listener=_Listener(self))

    def start(self, offsets: Mapping[Partition, int]) -> None:
        """Read these partitions, each from its offset."""
        if not self._joined:
            self._assigned = tuple(offsets)
            self._consumer.assign([TopicPartition(*partition) for partition in offsets])
        for partition, offset in offsets.items():
            # A rebalance may have taken it away in the meantime; then `poll` is about to say so.
            with suppress(KeyError, ValueError):
                self._consumer.seek(TopicPartition(*partition), offset)
                self._consumer.resume(TopicPartition(*partition))

    def poll(self, max_records: int, max_bytes: int, timeout_s: float) -> Polled:
        """Return records as soon as there are some."""
        self._room.records, self._room.bytes = max_records, max_bytes
        chunks: list[Chunk] = []
        timeout_ms = max(1, round(timeout_s * 1000))
        while self._room.is_left:
            got = self._poll_once(timeout_ms)
            if self._assignments != self._told:
                self._told = self._assignments
                return Polled(assigned=self._assigned)
            if not got:
                break
            timeout_ms = 0
            for items in got.values():
                if self._is_fast:
                    chunks += items
                else:
                    self._room.records -= len(items)
                    self._room.bytes -= sum(len(record.value or b"") for record in items)
                    chunks.append(chunk_of_records(items))
        return Polled(chunks, moved={} if chunks else self._positions())

    def _poll_once(self, timeout_ms: int) -> dict[Any, list[Any]]:
        try:
            # A chunk counts as one record: each call returns what one take gives.
            found: dict[Any, list[Any]] = self._consumer.poll(
                timeout_ms=timeout_ms, max_records=1 if self._is_fast else self._room.records
            )
            return found
        except kafka_errors.NoOffsetForPartitionError:
            return {}  # a partition that has just fallen to us, and that `start` has not placed yet
        except (kafka_errors.OffsetOutOfRangeError, kafka_errors.LogTruncationError) as error:
            raise OutOfRangeError(str(error)) from None
        except (UnreadableBatchError, kafka_errors.CorruptRecordError, kafka_errors.UnsupportedCodecError) as error:
            raise unreadable(self._where, error) from None
        except (kafka_errors.SaslAuthenticationFailedError, kafka_errors.AuthorizationError) as error:
            raise self._refusal(error) from None
        except kafka_errors.KafkaError as error:
            if not (error.retriable or isinstance(error, kafka_errors.BrokerResponseError)):
                raise InputError(
                    f"Kafka at {self._where} cannot be read: {error}", fix="check the brokers, then run it again"
                ) from error
            logger.info("while polling: %s", error)
            return {}

    def _positions(self) -> dict[Partition, int]:
        """Return where partitions stand that have a position."""
        found = {}
        for partition in self._assigned:
            state = self._consumer._subscription.assignment.get(TopicPartition(*partition))
            # `KafkaConsumer.position` would ask the brokers, without end where they are gone.
            if state is not None and not state.paused and state.position is not None:
                found[partition] = state.position.offset
        return found

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Tell the group how far was read."""
        committed = {
            TopicPartition(*partition): OffsetAndMetadata(offset, "", -1) for partition, offset in offsets.items()
        }
        with suppress(kafka_errors.KafkaError):
            self._consumer.commit_async(committed)

    def close(self) -> None:
        """Leave the group and close all connections."""
        with suppress(kafka_errors.KafkaError):
            self._consumer.close(autocommit=False, timeout_ms=2_000)
        with suppress(kafka_errors.KafkaError):
            self._admin.close()

    def _take_assignment(self, partitions: Sequence[Any]) -> None:
        """Note a new assignment; called by the library's thread, while `poll` waits."""
        for partition in partitions:
            # Any position keeps the library from looking for one of its own; nothing is read before `start`.
            self._consumer.pause(partition)
            self._consumer.seek(partition, 0)
        self._assigned = tuple(sorted(Partition(*partition) for partition in partitions))
        self._assignments += 1

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Say in our words what goes wrong with a question to the brokers."""
        try:
            yield
        except (kafka_errors.SaslAuthenticationFailedError, kafka_errors.AuthorizationError) as error:
            raise self._refusal(error) from None
        except kafka_errors.KafkaConfigurationError:
            raise
        except (kafka_errors.KafkaError, ConnectionError, TimeoutError) as error:
            raise UnavailableError(str(error) or type(error).__name__) from None

    def _refusal(self, error: Exception) -> InputError:
        if isinstance(error, kafka_errors.AuthorizationError):
            return denied(self._where, error)
        return wrong_credentials(self._where, error)


def _topic_id(id_: Any) -> str:
    """Return a topic's id as Kafka's tools and the other client write it."""
    raw = UUID(str(id_)).bytes if id_ else b""
    return base64.urlsafe_b64encode(raw).decode().rstrip("=") if any(raw) else ""


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self, client: KafkaPythonClient) -> None:
        self._client = client

    def on_partitions_assigned(self, assigned: Sequence[Any]) -> None:
        self._client._take_assignment(assigned)

    def on_partitions_revoked(self, revoked: Sequence[Any]) -> None:
        """Do nothing: what was yielded is committed when `poll` runs, and the next assignment tells what is left."""
