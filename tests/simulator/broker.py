"""A simulated cluster: the logs of one topic's partitions, and the consumer group that shares them out."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from stream.sources.kafka.client import Bounds, Chunk, Partition, Polled, Topic, UnavailableError
from tests.simulator.clock import Clock, Trace
from tests.simulator.history import TOPIC, History


class Broker:
    """The cluster: what is in the logs by now, and whether it answers.

    Args:
        histories: what comes into each partition.
        clock: the simulated clock.
        trace: where assignments are noted.
        draw: decides how fetches are cut.
    """

    def __init__(self, histories: Sequence[History], clock: Clock, trace: Trace, draw: random.Random) -> None:
        self.histories = histories
        self.group = Group(len(histories), trace)
        self.down_until_us = 0
        self.cuts_fetches = True
        self._clock = clock
        self._draw = draw

    @property
    def is_down(self) -> bool:
        """Whether nothing answers now."""
        return self._clock.elapsed_us < self.down_until_us

    def end(self, partition: int) -> int:
        """Return the offset after the last record that a partition has by now."""
        history = self.histories[partition]
        count = int(np.searchsorted(history.at_us, self._clock.elapsed_us, side="right"))
        return int(history.offset[count - 1]) + 1 if count else 0

    def fetch(self, offsets: Mapping[int, int], max_records: int) -> list[Chunk]:
        """Return records of partitions from their offsets on: while it cuts, of some, and as many as it likes."""
        chunks = []
        partitions = [number for number in offsets if not self.cuts_fetches or self._draw.random() < 0.85]
        self._draw.shuffle(partitions)
        for number in partitions:
            history = self.histories[number]
            begin, end = np.searchsorted(history.offset, (offsets[number], self.end(number))).tolist()
            whole = not self.cuts_fetches or self._draw.random() < 0.5
            most = max_records if whole else self._draw.randint(1, max_records)
            end = min(end, begin + most)
            if begin < end:
                chunks.append(_chunk(history, number, begin, end))
                max_records -= end - begin
                if max_records <= 0:
                    break
        return chunks


def _chunk(history: History, number: int, begin: int, end: int) -> Chunk:
    records = history.records[begin:end]
    return Chunk(
        partition=Partition(TOPIC, number),
        values=[record.value for record in records],
        next_offset=int(history.offset[end - 1]) + 1,
        has_headers=False,
        record=records.__getitem__,
    )


@dataclass(slots=True)
class Member:
    """One process in the group; `generation` is the last assignment that it has heard of."""

    name: str
    partitions: tuple[int, ...] = ()
    generation: int = 0


@dataclass
class Group:
    """Who reads which partition. Each change begins a generation, of which members hear when they poll.

    Attributes:
        n_partitions: how many there are.
        members: those that the group believes to be alive.
        generation: counts the assignments.
    """

    n_partitions: int
    trace: Trace
    members: list[Member] = field(default_factory=list)
    generation: int = 0

    def join(self, name: str) -> Member:
        """Add a member."""
        member = Member(name)
        self.members.append(member)
        self.share_out(0)
        return member

    def leave(self, member: Member) -> None:
        """Remove a member: it said so, or it was not heard of for too long."""
        if member in self.members:
            self.members.remove(member)
            self.share_out(0)

    def rejoin(self, member: Member) -> None:
        """Let a member back in that the group had given up."""
        if member not in self.members:
            self.members.append(member)
            self.share_out(0)

    def share_out(self, turn: int) -> None:
        """Begin a generation; `turn` says how far the assignment is rotated."""
        self.generation += 1
        for index, member in enumerate(self.members):
            share = range(self.n_partitions)
            member.partitions = tuple(p for p in share if (p + turn) % len(self.members) == index)
        shares = ", ".join(f"{member.name} {list(member.partitions)}" for member in self.members)
        self.trace.note("group", f"generation {self.generation}: {shares or 'nobody'}")


class SimulatedClient:
    """A `KafkaClient` of the simulated cluster.

    Args:
        broker: the cluster.
        name: the process, for the trace.
        pause: lets the rest of the world go on; the process may be dead, or long given up, when it returns.
        max_records: what a fetch holds at most, whatever is asked for.
        rejoins: a process that was given up comes back into the group when it wakes; where the store is exclusive it
            must not, because its lock would have kept one of the two away.
        draw: decides whether time passes between a fetch and its use.
    """

    def __init__(
        self,
        broker: Broker,
        name: str,
        *,
        pause: Callable[[], None],
        max_records: int,
        rejoins: bool,
        draw: random.Random,
    ) -> None:
        self._broker = broker
        self._who = name
        self._pause = pause
        self._max_records = max_records
        self._rejoins = rejoins
        self._draw = draw
        self._offsets: dict[int, int] = {}
        self.member: Member | None = None

    @property
    def name(self) -> str:
        """The library and its version."""
        return "simulated"

    def cluster_id(self) -> str:
        """Return the identity of the cluster."""
        self._ask()
        return "simulated-cluster"

    def topics(self, names: Sequence[str] | None = None) -> dict[str, Topic]:
        """Return the one topic, whatever is asked for."""
        del names
        self._ask()
        return {TOPIC: Topic("topic-id", len(self._broker.histories))}

    def bounds(self, partitions: Sequence[Partition]) -> dict[Partition, Bounds]:
        """Return the bounds of partitions."""
        self._ask()
        return {partition: Bounds(0, self._broker.end(partition.number)) for partition in partitions}

    def join(self, topics: Sequence[str]) -> None:
        """Join the group."""
        if self.member is None:
            self.member = self._broker.group.join(self._who)

    def start(self, offsets: Mapping[Partition, int]) -> None:
        """Read these partitions and no others."""
        self._offsets = {partition.number: offset for partition, offset in offsets.items()}

    def poll(self, max_records: int, max_bytes: int, timeout_s: float) -> Polled:
        """Return records, an assignment or nothing; anything may happen meanwhile."""
        del max_bytes, timeout_s  # a fetch is cut much shorter; time passes as the world likes
        self._pause()
        if self._broker.is_down:
            return Polled()
        group, member = self._broker.group, self.member
        if member is not None:
            if self._rejoins:
                group.rejoin(member)
            if member in group.members and member.generation != group.generation:
                member.generation = group.generation
                self._offsets = {}
                return Polled(assigned=tuple(Partition(TOPIC, number) for number in member.partitions))
        chunks = self._broker.fetch(self._offsets, min(max_records, self._max_records))
        for chunk in chunks:
            self._offsets[chunk.partition.number] = chunk.next_offset
        if chunks and self._draw.random() < 0.4:
            self._pause()
        return Polled(chunks)

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Forget it: nothing rests on the group's offsets."""

    def close(self) -> None:
        """Leave the group."""
        if self.member is not None:
            self._broker.group.leave(self.member)

    def _ask(self) -> None:
        if self._broker.is_down:
            raise UnavailableError("no broker answers")
