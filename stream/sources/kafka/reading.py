"""How far each partition was read, what was missing on the way, and whether it is idle or stands still."""

from collections.abc import Iterable
from dataclasses import dataclass

from stream.sources.base import Position
from stream.sources.kafka.client import Chunk, Partition


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
