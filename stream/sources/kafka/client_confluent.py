"""The Kafka client on confluent-kafka, the C library: the extra `fast`."""

import base64
import logging
import struct
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from functools import partial
from itertools import pairwise
from typing import Any

import confluent_kafka
from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from infra.errors import InputError, UsageError
from stream.decoders.records.base import Record
from stream.sources.kafka.client import Bounds, Chunk, OutOfRangeError, Partition, Polled, Topic, UnavailableError
from stream.sources.kafka.options import Connection, confluent_config
from stream.sources.kafka.refusals import denied, unreadable, wrong_credentials

logger = logging.getLogger(__name__)

# One consume: it waits until it is full or its time is over, so a slow topic must not be made to wait for long.
FIRST_WAIT_S = 0.1
FIRST_MESSAGES = 500
MAX_MESSAGES = 10_000
# Sizes are looked at in one of so many messages: bounds are kept roughly.
_SAMPLE_EVERY = 16
# The library insists on a group; nothing is committed to this one.
NO_GROUP = "graphtide-without-a-group"
CREATE_TIME_UNKNOWN = 0
_DENIED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}
_CREDENTIALS = {KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._SSL}
_GONE = {
    KafkaError._AUTO_OFFSET_RESET,
    KafkaError.OFFSET_OUT_OF_RANGE,
    KafkaError._LOG_TRUNCATION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.UNKNOWN_TOPIC_ID,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
}
_BROKEN = {KafkaError._BAD_MSG, KafkaError._BAD_COMPRESSION, KafkaError._NOT_IMPLEMENTED}


class ConfluentClient:
    """A consumer of confluent-kafka.

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
        self._ask_timeout_s = ask_timeout_s
        self._assigned: tuple[Partition, ...] = ()
        self._learnt: set[str] = set()  # the topics whose leaders the consumer has asked for
        self._assignments = self._told = 0
        self._refused: KafkaError | None = None
        self._record_bytes = 0.0  # of what was read last, on average
        common = {
            "logger": logging.getLogger("confluent_kafka"),
            "error_cb": self._note_error,
            "reconnect.backoff.max.ms": 2_000,
        }
        consumer = {
            **common,
            "queued.min.messages": 1_000_000,
            "queued.max.messages.kbytes": 65_536,
            "fetch.queue.backoff.ms": 10,
            "fetch.message.max.bytes": 4 << 20,
            "isolation.level": "read_committed",
            "check.crcs": True,
            "allow.auto.create.topics": False,
            **confluent_config(connection),
            "group.id": group or NO_GROUP,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
        }
        try:
            self._admin = AdminClient({**common, **confluent_config(connection)})
            self._consumer = Consumer(consumer)
        except KafkaException as error:
            raise UsageError(
                f"confluent-kafka refuses its options: {error.args[0].str()}", fix="check [kafka.options]"
            ) from None
        try:
            self._metadata()
        except BaseException:
            self._consumer.close()
            raise

    @property
    def name(self) -> str:
        """The library and its version."""
        return f"confluent-kafka {confluent_kafka.version()}"

    def cluster_id(self) -> str:
        """Return the identity of the cluster."""
        return str(self._metadata().cluster_id)

    def topics(self, names: Sequence[str] | None = None) -> dict[str, Topic]:
        """Ask the brokers for topics."""
        if names is None:
            names = list(self._metadata().topics)
        if not names:
            return {}
        found = {}
        with self._asking():
            futures = self._admin.describe_topics(TopicCollection(list(names)), request_timeout=self._ask_timeout_s)
            for name, future in futures.items():
                try:
                    topic = future.result(timeout=self._ask_timeout_s * 2)
                except KafkaException as error:
                    if error.args[0].code() not in _GONE:
                        raise
                else:
                    found[name] = Topic(_topic_id(topic.topic_id), len(topic.partitions))
        return found

    def bounds(self, partitions: Sequence[Partition]) -> dict[Partition, Bounds]:
        """Ask the brokers for the bounds of partitions."""
        first = self._list_offsets(partitions, OffsetSpec.earliest())
        end = self._list_offsets(partitions, OffsetSpec.latest())
        return {each: Bounds(first[each], end[each]) for each in partitions if each in first and each in end}

    def join(self, topics: Sequence[str]) -> None:
        """Share topics with the others of the group."""
        # What is taken away needs no word: all that was yielded is committed when `poll` runs, where the library calls
        # back, and the next assignment tells what is left.
        self._consumer.subscribe(list(topics), on_assign=self._on_assign)

    def start(self, offsets: Mapping[Partition, int]) -> None:
        """Read these partitions, each from its offset."""
        self._learn_leaders({each.topic for each in offsets} - self._learnt)
        self._assigned = tuple(offsets)
        self._consumer.assign([TopicPartition(*each, offset) for each, offset in offsets.items()])

    def poll(self, max_records: int, max_bytes: int, timeout_s: float) -> Polled:
        """Return records as soon as there are some."""
        messages: list[Message] = []
        size, waited_s = 0, 0.0
        while len(messages) < max_records and size < max_bytes:
            wait_s = min(FIRST_WAIT_S, timeout_s - waited_s) if not messages else 0.0
            count = min(self._count(max_bytes - size), max_records - len(messages))
            got = self._consumer.consume(count, wait_s)
            if self._refused is not None:
                raise self._refusal(self._refused)
            if self._assignments != self._told:
                self._told = self._assignments
                return Polled(assigned=self._assigned)
            if not got:
                waited_s += wait_s
                if messages or waited_s >= timeout_s:
                    break
                continue
            messages += got
            sample = got[::_SAMPLE_EVERY]
            self._record_bytes = sum(map(len, sample)) / len(sample)
            size += int(self._record_bytes * len(got))
            if len(got) < count:
                break
        return self._sorted_out(messages)

    def _count(self, room_bytes: int) -> int:
        if not self._record_bytes:
            return FIRST_MESSAGES
        return max(1, min(MAX_MESSAGES, int(room_bytes / self._record_bytes)))

    def _sorted_out(self, messages: list[Message]) -> Polled:
        """Tell records from events of the library, and cut the records into chunks."""
        moved: dict[Partition, int] = {}
        if any(map(Message.error, messages)):
            for message in messages:
                self._take_event(message, moved)
            messages = [message for message in messages if message.error() is None]
        return Polled([_chunk(run) for run in self._runs(messages)], moved)

    def _runs(self, messages: list[Message]) -> list[list[Message]]:
        """Cut messages where the next one is of another partition."""
        places = list(map(Message.partition, messages))
        cuts = [at for at, (before, after) in enumerate(pairwise(places), 1) if before != after]
        if len({each.topic for each in self._assigned}) > 1:
            names = list(map(Message.topic, messages))
            cuts = sorted({*cuts, *(at for at, (before, after) in enumerate(pairwise(names), 1) if before != after)})
        return [messages[begin:end] for begin, end in pairwise((0, *cuts, len(messages))) if end > begin]

    def _take_event(self, message: Message, moved: dict[Partition, int]) -> None:
        error = message.error()
        if error is None:
            return
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            moved[Partition(message.topic(), message.partition())] = message.offset()
        elif code in _GONE:
            raise OutOfRangeError(error.str())
        elif code in _DENIED or code in _CREDENTIALS or code in _BROKEN or error.fatal():
            raise self._refusal(error)
        else:
            logger.info("while polling: %s", error)

    def _learn_leaders(self, topics: Set[str]) -> None:
        """Let the consumer ask who leads partitions: by itself it may do so only a second after it was assigned them.

        What goes wrong here it finds out again when it reads.
        """
        with suppress(KafkaException):
            for topic in topics:
                self._consumer.list_topics(topic, timeout=self._ask_timeout_s)
                self._learnt.add(topic)

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Tell the group how far was read."""
        with suppress(KafkaException):
            self._consumer.commit(
                offsets=[TopicPartition(*each, offset) for each, offset in offsets.items()], asynchronous=True
            )

    def close(self) -> None:
        """Leave the group and close all connections."""
        self._consumer.close()

    def _metadata(self) -> Any:
        with self._asking():
            return self._admin.list_topics(timeout=self._ask_timeout_s)

    def _list_offsets(self, partitions: Sequence[Partition], spec: Any) -> dict[Partition, int]:
        with self._asking():
            futures = self._admin.list_offsets(
                {TopicPartition(*each): spec for each in partitions},
                isolation_level=IsolationLevel.READ_COMMITTED,
                request_timeout=self._ask_timeout_s,
            )
            found = {}
            for asked, future in futures.items():
                try:
                    found[Partition(asked.topic, asked.partition)] = future.result(
                        timeout=self._ask_timeout_s * 2
                    ).offset
                except KafkaException as error:
                    if error.args[0].code() not in _GONE:
                        raise
        return found

    def _on_assign(self, consumer: Any, partitions: Sequence[Any]) -> None:
        # Nothing is read before `start` says from where.
        consumer.assign([])
        self._assigned = tuple(sorted(Partition(each.topic, each.partition) for each in partitions))
        self._assignments += 1

    def _note_error(self, error: KafkaError) -> None:
        if error.code() in _CREDENTIALS:
            self._refused = error
        else:
            logger.info("%s", error)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Say in our words what goes wrong with a question to the brokers."""
        try:
            yield
        except (KafkaException, TimeoutError) as exception:
            self._admin.poll(0)  # calls back with what went wrong with the connections
            if self._refused is not None:
                raise self._refusal(self._refused) from None
            error = exception.args[0] if exception.args else None
            if isinstance(error, KafkaError) and (error.code() in _DENIED or error.code() in _CREDENTIALS):
                raise self._refusal(error) from None
            raise UnavailableError(error.str() if isinstance(error, KafkaError) else str(exception)) from None

    def _refusal(self, error: KafkaError) -> InputError:
        code = error.code()
        if code in _CREDENTIALS:
            return wrong_credentials(self._where, error.str())
        if code in _DENIED:
            return denied(self._where, error.str())
        if code in _BROKEN:
            return unreadable(self._where, error.str())
        return InputError(
            f"Kafka at {self._where} cannot be read: {error.str()}", fix="check the brokers, then run it again"
        )


def _topic_id(id_: Any) -> str:
    """Return a topic's id as Kafka's tools and the other client write it; the library's own form has other letters."""
    if id_ is None:
        return ""
    high, low = id_.get_most_significant_bits(), id_.get_least_significant_bits()
    raw = struct.pack(">qq", high, low)
    return base64.urlsafe_b64encode(raw).decode().rstrip("=") if any(raw) else ""


def _chunk(messages: list[Message]) -> Chunk:
    return Chunk(
        partition=Partition(messages[0].topic(), messages[0].partition()),
        values=list(map(Message.value, messages)),
        next_offset=messages[-1].offset() + 1,
        has_headers=any(map(Message.headers, messages)),
        record=partial(_record, messages),
    )


def _record(messages: list[Message], at: int) -> Record:
    message = messages[at]
    kind, ts_ms = message.timestamp()
    return Record(
        value=message.value(),
        key=message.key(),
        headers=tuple((name, value or b"") for name, value in message.headers() or ()),
        topic=message.topic(),
        partition=message.partition(),
        offset=message.offset(),
        ts_us=None if kind == CREATE_TIME_UNKNOWN else ts_ms * 1000,
    )
