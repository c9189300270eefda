"""What a Kafka source needs of a client library: a small contract, and what goes over it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from stream.decoders.records.base import Record


class Partition(NamedTuple):
    """One partition of a topic; `str` gives its name in the store, `topic/number`."""

    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.number}"


class Topic(NamedTuple):
    """A topic of the cluster.

    Attributes:
        id: as Kafka writes it, another one for a topic that was deleted and made again; "" if the brokers tell none.
        partitions: how many.
    """

    id: str
    partitions: int


class Bounds(NamedTuple):
    """The offsets of the first record that the brokers still have, and of the one after the last that can be read."""

    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive records of one partition.

    Attributes:
        values: [n] the payloads, None for tombstones.
        next_offset: where to go on after them. Fewer than n offsets further means that some offsets have no record.
        has_headers: whether any record has headers.
        record: makes the record at an index.
    """

    partition: Partition
    values: list[bytes | None]
    next_offset: int
    has_headers: bool
    record: Callable[[int], Record]

    def since(self, offset: int) -> "Chunk":
        """Return the records from an offset on."""
        skip = 0
        while skip < len(self.values) and self.record(skip).offset < offset:
            skip += 1
        if not skip:
            return self
        return replace(self, values=self.values[skip:], record=lambda at: self.record(at + skip))


@dataclass(frozen=True, slots=True)
class Polled:
    """What came of one poll.

    Attributes:
        chunks: records, those of one partition in the order of their offsets.
        moved: where partitions go on, behind their chunks, if what stands before is not meant for readers.
        assigned: all partitions of this process where the group has just shared them out anew, else None. Nothing of
            them is read until `start` says from where; there are no chunks then.
    """

    chunks: list[Chunk] = field(default_factory=list)
    moved: Mapping[Partition, int] = field(default_factory=dict)
    assigned: tuple[Partition, ...] | None = None


class UnavailableError(Exception):
    """No broker answers now; it may do so later. The text says what the client library knows of it."""


class OutOfRangeError(Exception):
    """The brokers do not have the offset that is to be read next, or the topic is gone."""


class UnreadableBatchError(Exception):
    """The bytes of a batch of records are not what Kafka's format says; the text says what they are."""


class KafkaClient(Protocol):
    """One consumer. One thread calls its methods; they raise GraphtideError for what cannot be mended by waiting.

    `UnavailableError` may come from every method but `poll`, `start` and `close`.
    """

    @property
    def name(self) -> str:
        """The library and its version, for people."""
        ...

    def cluster_id(self) -> str:
        """Return the identity of the cluster."""
        ...

    def topics(self, names: Sequence[str] | None = None) -> dict[str, Topic]:
        """Ask the brokers for topics by name, for all of them by None; those that are not there are left out."""
        ...

    def bounds(self, partitions: Sequence[Partition]) -> dict[Partition, Bounds]:
        """Ask the brokers for the bounds of partitions; those that are not there are left out."""
        ...

    def join(self, topics: Sequence[str]) -> None:
        """Share topics with the others of the group, others than before if called again; `poll` tells what is ours."""
        ...

    def start(self, offsets: Mapping[Partition, int]) -> None:
        """Read these partitions and no others, each from its offset."""
        ...

    def poll(self, max_records: int, max_bytes: int, timeout_s: float) -> Polled:
        """Return records as soon as there are some, nothing after `timeout_s`. The bounds are kept roughly.

        Raises:
            OutOfRangeError: see there.
        """
        ...

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Tell the group how far was read, for tools that show lag; without waiting, and whatever becomes of it."""
        ...

    def close(self) -> None:
        """Leave the group and close all connections, in bounded time."""
        ...
