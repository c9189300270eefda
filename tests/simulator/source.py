"""A source over a `KafkaClient`: claims, positions, decoding and idleness, without patience and watchdogs."""

from collections.abc import Iterator, Sequence

import numpy as np

from stream.decoders.builder import DecodeOptions
from stream.decoders.records.base import Record
from stream.decoders.records.formats import record_decoder
from stream.events import Interner, Reject
from stream.sources.base import Claims, Part, PartitionedBatch
from stream.sources.kafka.client import Chunk, KafkaClient, Partition, UnavailableError
from tests.simulator.clock import Clock
from tests.simulator.faults import N_PARTITIONS
from tests.simulator.history import TOPIC

_RECORD_CHARS = 200


class GroupSource:
    """Reads the partitions that the group gives this process; a `PartitionedSource`.

    Args:
        client: the consumer.
        clock: tells for how long nothing came.
        idle_timeout_us: after this long without a record a partition that was read to its end is idle.
    """

    def __init__(self, client: KafkaClient, clock: Clock, idle_timeout_us: int) -> None:
        self._client = client
        self._clock = clock
        self._idle_timeout_us = idle_timeout_us
        self._next: dict[Partition, int] = {}
        self._heard_us: dict[Partition, int] = {}
        self._idle: set[Partition] = set()
        self._decoder = record_decoder(DecodeOptions(format="json"), interner=Interner())
        self._nothing = self._decoder.decode([])

    @property
    def name(self) -> str:
        """The identity of the source in the store."""
        return f"kafka:{TOPIC}"

    def batches(self, claims: Claims) -> Iterator[PartitionedBatch]:
        """Yield batches for ever."""
        self._client.join((TOPIC,))
        claims.announce([str(Partition(TOPIC, number)) for number in range(N_PARTITIONS)])
        while True:
            polled = self._client.poll(10_000, 1 << 20, 1.0)
            if polled.assigned is not None:
                self._take(claims, polled.assigned)
                continue
            yield self._batch(polled.chunks)

    def _take(self, claims: Claims, partitions: Sequence[Partition]) -> None:
        lost = [str(partition) for partition in self._next if partition not in partitions]
        if lost:
            claims.release(lost)
        fresh = [partition for partition in partitions if partition not in self._next]
        positions = claims.claim([str(partition) for partition in fresh]) if fresh else {}
        self._next = {partition: at for partition, at in self._next.items() if partition in partitions}
        for partition in fresh:
            position = positions[str(partition)]
            self._next[partition] = 0 if position is None else int(position["offset"])
            self._heard_us[partition] = self._clock.elapsed_us
            self._idle.discard(partition)
        self._client.start(self._next)

    def _batch(self, chunks: Sequence[Chunk]) -> PartitionedBatch:
        records: list[Record] = []
        begins: list[int] = []
        for chunk in chunks:
            begins.append(len(records))
            records += map(chunk.record, range(len(chunk.values)))
            self._next[chunk.partition] = chunk.next_offset
            self._heard_us[chunk.partition] = self._clock.elapsed_us
            self._idle.discard(chunk.partition)
        decoded = self._decoder.decode(records) if records else self._nothing
        rejects = [_reject(records[bad.record], bad.reason, bad.stage) for bad in decoded.bad]
        bad_at = np.array([bad.record for bad in decoded.bad], dtype=np.int64)
        parts = []
        for chunk, begin, end in zip(chunks, begins, [*begins, len(records)][1:], strict=True):
            first, last = np.searchsorted(decoded.record, (begin, end)).tolist()
            rejected = int(((bad_at >= begin) & (bad_at < end)).sum())
            parts.append(Part(str(chunk.partition), first, last, {"offset": chunk.next_offset}, rejected))
        for partition in self._newly_idle():
            n = len(decoded.events)
            parts.append(Part(str(partition), n, n, {"offset": self._next[partition]}, idle=True))
        return PartitionedBatch(
            decoded.events,
            tuple(parts),
            rejects,
            letter=lambda row, reason, stage: _reject(records[decoded.record[row]], reason, stage),
        )

    def _newly_idle(self) -> list[Partition]:
        now_us = self._clock.elapsed_us
        silent = [
            partition
            for partition in self._next
            if partition not in self._idle and now_us - self._heard_us[partition] >= self._idle_timeout_us
        ]
        try:
            bounds = self._client.bounds(silent) if silent else {}
        except UnavailableError:
            return []
        idle = [partition for partition in silent if bounds[partition].end <= self._next[partition]]
        self._idle.update(idle)
        return idle


def _reject(record: Record, reason: str, stage: str) -> Reject:
    place = f"{record.topic}/{record.partition}, offset {record.offset}"
    text = (record.value or b"").decode("utf-8", "backslashreplace")[:_RECORD_CHARS]
    return Reject(place, text, reason, stage, record)
