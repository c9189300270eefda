"""What the tests of the Kafka source share: claims in memory, sources with short times, producers."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from stream.decoders.builder import DecodeOptions
from stream.decoders.records.formats import record_decoder
from stream.sources.base import PartitionedBatch, Position
from stream.sources.kafka.clients import connector
from stream.sources.kafka.decoding import BatchDecoder
from stream.sources.kafka.options import Connection
from stream.sources.kafka.plan import KafkaOptions
from stream.sources.kafka.sender import KafkaSender
from stream.sources.kafka.source import KafkaSource
from tests.servers.kafka import KafkaServer

DECODING = DecodeOptions()
T0_S = 1_600_000_000


@dataclass
class Store:
    """Positions of partitions and who reads them, as a store keeps them for all processes."""

    positions: dict[str, Position | None] = field(default_factory=dict)
    owner: dict[str, "FakeClaims"] = field(default_factory=dict)
    events: list[tuple[str, int, str]] = field(default_factory=list)


class FencedError(Exception):
    """Another process has claimed a partition."""


class FakeClaims:
    """The claims of one process on a store in memory."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.log: list[tuple[str, list[str]]] = []

    def announce(self, partitions: Sequence[str]) -> None:
        pass

    def claim(self, partitions: Sequence[str]) -> dict[str, Position | None]:
        self.log.append(("claim", list(partitions)))
        self.store.owner |= dict.fromkeys(partitions, self)
        return {partition: self.store.positions.get(partition) for partition in partitions}

    def release(self, partitions: Sequence[str]) -> None:
        self.log.append(("release", list(partitions)))

    def commit(self, batch: PartitionedBatch) -> None:
        """Commit a batch as ingestion does: all or nothing, and only what is still ours."""
        if any(self.store.owner[part.partition] is not self for part in batch.parts):
            raise FencedError
        names = batch.events.interner.names
        for part in batch.parts:
            self.store.positions[part.partition] = part.position
            for row in range(part.begin, part.end):
                self.store.events.append((part.partition, int(batch.events.ts_us[row]), names[batch.events.src[row]]))


@dataclass
class Run:
    """One process that reads."""

    source: KafkaSource
    claims: FakeClaims
    said: list[str]

    def read(
        self, until: Callable[[PartitionedBatch], bool] = lambda _: False, polls: int = 200
    ) -> list[PartitionedBatch]:
        """Commit batches until the source ends or `until` holds; empty ones are not returned."""
        batches = []
        for number, batch in enumerate(self.source.batches(self.claims)):
            assert number < polls, self.said
            self.claims.commit(batch)
            if batch.parts or batch.end:
                batches.append(batch)
            if until(batch):
                break
        return batches


class Opener:
    """Makes sources on one client library."""

    def __init__(self, kafka: KafkaServer, client: str) -> None:
        self._kafka = kafka
        self.client = client

    @contextmanager
    def __call__(
        self,
        *topics: str,
        claims: FakeClaims | None = None,
        decoding: DecodeOptions = DECODING,
        strict: bool = False,
        connection: Connection | None = None,
        **options: Any,
    ) -> Iterator[Run]:
        said: list[str] = []
        connection = connection or Connection(self._kafka.bootstrap_servers)
        chosen = {
            "where": connection.bootstrap_servers, "topics": topics, "probe_every_s": 0.3, "connect_timeout_s": 30.0,
            "idle_timeout_s": 0.0, **options,
        }  # fmt: skip
        plan = KafkaOptions(**chosen)
        with KafkaSource(
            connector(self.client, connection, group=plan.group, ask_timeout_s=2.0),
            BatchDecoder(lambda interner: record_decoder(decoding, interner=interner), strict=strict),
            plan,
            say=said.append,
        ) as source:  # fmt: skip
            yield Run(source, claims or FakeClaims(Store()), said)


def event(number: int, src: str = "a", **more: object) -> bytes:
    """Return an event; its time tells its number."""
    return json.dumps({"src": src, "dst": "b", "ts": T0_S + number, **more}).encode()


def number_of(ts_us: int) -> int:
    """Return the number of an event."""
    return ts_us // 1_000_000 - T0_S


def send(kafka: KafkaServer, topic: str, values: Iterable[bytes | None], partitions: int = 1, **options: Any) -> None:
    """Send values to partitions 0, 1, …, 0, 1, … in turn."""
    connection = Connection(kafka.bootstrap_servers, options)
    with KafkaSender(connection) as sender:
        for number, value in zip(count(), values):
            sender.send(topic, value, key=b"k", partition=number % partitions)
