"""How far each partition was read, what was missing on the way, and whether it is idle or stands still."""

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass

from stream.sources.base import Position
from stream.sources.kafka.client import Chunk, Partition, Polled
from stream.sources.kafka.decoding import in_partitions


@dataclass(slots=True)
class Reading:
    """One partition that this process reads. Times are seconds of the source's clock.

    Attributes:
        topic_id: of the topic that the offsets belong to, "" if unknown.
        offset: what is read next.
        quiet_since_s: when it last moved, or since when its silence counts.
        end: the end of the log when the brokers were last asked.
        target: where a bounded source stops.
        gaps, missing: how often offsets had no record, and how many.
        idle: nothing came for the idle timeout although everything was read.
        unsaid: `offset` or `idle` differ from what was last handed over.
        stalled_at: the offset at which a new client was tried, None if none was since it last moved.
    """

    partition: Partition
    topic_id: str
    offset: int
    quiet_since_s: float
    end: int
    target: int | None = None
    gaps: int = 0
    missing: int = 0
    idle: bool = False
    unsaid: bool = False
    stalled_at: int | None = None

    @property
    def lag(self) -> int:
        """Records between what is read next and the end of the log, as far as known."""
        return max(0, self.end - self.offset)

    @property
    def reached(self) -> bool:
        """Whether a bounded source has read what it was to read."""
        return self.target is not None and self.offset >= self.target

    def position(self) -> Position:
        """Return where to go on, for the store."""
        return {"offset": self.offset, "topic_id": self.topic_id}

    def take(self, chunk: Chunk, now_s: float) -> int:
        """Move behind a chunk that holds no record before `offset`; return how many offsets had no record."""
        missing = self._move(chunk.next_offset, len(chunk.values), now_s)
        self.idle = False
        return missing

    def skip_to(self, offset: int, now_s: float) -> int:
        """Move to an offset without a record; return how many had none."""
        self.unsaid = self.unsaid or offset > self.offset
        return self._move(offset, 0, now_s)

    def _move(self, offset: int, records: int, now_s: float) -> int:
        missing = offset - self.offset - records
        self.gaps += missing > 0
        self.missing += missing
        self.offset = offset
        self.end = max(self.end, offset)
        self.quiet_since_s = now_s
        self.stalled_at = None
        return missing


def advance(
    readings: Mapping[Partition, Reading], polled: Polled, now_s: float, *, say: Callable[[str], None]
) -> list[Chunk]:
    """Move the partitions behind what was polled; return its new records, those of a partition together.

    Args:
        readings: the partitions that this process reads.
        polled: may hold records that were asked for before, and partitions that are not ours any more.
        now_s: of the source's clock.
        say: tells the user of a partition's first gap.
    """
    chunks = in_partitions([kept for chunk in polled.chunks if (kept := _new_of(chunk, readings)) is not None])
    for chunk in chunks:
        reading = readings[chunk.partition]
        _say_gap(reading, reading.offset, reading.take(chunk, now_s), say)
    # Only now: where a partition moved without records lies behind the records that came with it.
    for partition, offset in polled.moved.items():
        moved = readings.get(partition)
        if moved is not None and offset > moved.offset:
            _say_gap(moved, moved.offset, moved.skip_to(offset, now_s), say)
    return chunks


def _new_of(chunk: Chunk, readings: Mapping[Partition, Reading]) -> Chunk | None:
    reading = readings.get(chunk.partition)
    if reading is None or chunk.next_offset <= reading.offset:
        return None
    return chunk.since(reading.offset)


def _say_gap(reading: Reading, begin: int, missing: int, say: Callable[[str], None]) -> None:
    if missing and reading.gaps == 1:
        say(
            f"gap: {missing:,} offsets of {reading.partition} from {begin} to {reading.offset} have no record."
            " Compacted topics and transactions leave such gaps; further ones are only counted"
        )


def take_unsaid(
    readings: Mapping[Partition, Reading], with_records: Container[Partition]
) -> tuple[tuple[str, Position, bool], ...]:
    """Return where partitions without records go on and whether they are idle, if that is new; now all is said."""
    unsaid = []
    for partition, reading in readings.items():
        if reading.unsaid and partition not in with_records:
            unsaid.append((str(partition), reading.position(), reading.idle))
        reading.unsaid = False
    return tuple(unsaid)


def newly_idle(readings: Iterable[Reading], now_s: float, idle_timeout_s: float) -> bool:
    """Mark the partitions that have become idle, after the brokers were asked; tell whether any has."""
    found = False
    for reading in readings:
        is_quiet = now_s - reading.quiet_since_s >= idle_timeout_s > 0
        if is_quiet and not reading.lag and not reading.idle:
            reading.idle = reading.unsaid = found = True
    return found


def stalled(readings: Iterable[Reading], now_s: float, stall_timeout_s: float) -> list[Reading]:
    """Return the partitions that have more to read and stand still, after the brokers were asked."""
    return [reading for reading in readings if reading.lag and now_s - reading.quiet_since_s >= stall_timeout_s]


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """One partition, for people and for metrics; `lag` is in records."""

    partition: str
    offset: int
    lag: int
    idle: bool
    gaps: int
    missing: int


@dataclass(frozen=True, slots=True)
class KafkaStatus:
    """What a source does now.

    Attributes:
        client: the library that reads.
        partitions: those of this process.
        waiting_s: how long no broker has answered; None while they do.
    """

    client: str
    partitions: tuple[PartitionStatus, ...]
    waiting_s: float | None
