"""The contracts of sources: where events come from, in batches, each with the positions to resume after it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from stream.events import EventBatch, Reject

# A resume point as JSON-able values; only the source that wrote it understands it.
Position = dict[str, int | str | bool]

# Makes the reject of a decoded event that is not counted, from its row in the batch, the reason and the stage.
Letter = Callable[[int, str, str], Reject]


@dataclass(frozen=True, slots=True)
class ReadBefore:
    """A source of one partition that the store knows.

    Attributes:
        name: its name.
        ended: it was read to its end.
        position: how far it was read.
        elsewhere: another process reads it.
    """

    name: str
    ended: bool
    position: Position
    elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class GoingOn:
    """Where a source begins that goes on with others.

    Attributes:
        position: there.
        after: the names of those others, which were read to their ends.
    """

    position: Position
    after: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SourceBatch:
    """What a source of one partition hands over at once; its effects and `position` are committed together.

    Attributes:
        events: the decoded events, in the order of the source; may be empty.
        position: where to go on after this batch.
        rejects: records that could not be decoded; all that have a `record_of`, of others a sample (`rejected` counts
            all).
        rejected: how many records were rejected since the previous batch.
        end: True on the last batch of a bounded source: nothing comes after it, every open step can close.
        letter: makes the reject of one of the events, should it be late; None where the source has no whole records.
        after: the names of sources that were read to their ends and that this one goes on with. Its events may belong
            to steps that are closed, if there are any.
    """

    events: EventBatch
    position: Position
    rejects: list[Reject] = field(default_factory=list)
    rejected: int = 0
    end: bool = False
    letter: Letter | None = None
    after: tuple[str, ...] = ()


class Source(Protocol):
    """A stream of events in one order that can be resumed.

    `name` identifies the source in the store across runs (for a file, its content or its resolved path).
    """

    @property
    def name(self) -> str:
        """The identity of the source in the store."""
        ...

    def batches(self, resume_after: Position | None) -> Iterator[SourceBatch]:
        """Yield batches after `resume_after` (None: from the beginning).

        A replay from a committed position yields the same events in the same order.

        Raises:
            InputError: the input cannot be read at all, or does not fit `resume_after`.
        """
        ...


@runtime_checkable
class Growing(Protocol):
    """A source whose content may be that of one that was read before, and more."""

    def goes_on(self, before: Sequence[ReadBefore]) -> GoingOn | None:
        """Return where to begin so that nothing is read twice; None: at the beginning.

        Raises:
            InputError: some of it was read, and it cannot be told where to go on.
        """
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """What a batch has of one partition.

    Attributes:
        partition: its name.
        begin, end: its events are rows `begin <= row < end` of the batch, in the order of its log.
        position: where to go on in the partition after this batch.
        rejected: its records that are no valid events, not counting those that ingestion itself turns away.
        idle: nothing is left to read, and nothing came for the idle timeout; steps no longer wait for it.
    """

    partition: str
    begin: int
    end: int
    position: Position
    rejected: int = 0
    idle: bool = False


@dataclass(frozen=True, slots=True)
class PartitionedBatch:
    """What a partitioned source hands over at once; everything in it is committed together.

    Attributes:
        events: the decoded events; may be empty.
        parts: what belongs to which partition, in the order of the rows, without a gap; each partition once.
        rejects: records that are no valid events. Those with a `record_of` are all of them, others a sample.
        letter: makes the reject of one of the events, should it be late, for example.
        names_graphs: producers name the graph of each record, so that one which others fill is a mistake of a record;
            else it is that of who started the source, and the whole is refused.
        end: every open step can close, whatever the watermarks.
        complete: nothing will ever come after this batch, in no run.
        after: see `SourceBatch`.
    """

    events: EventBatch
    parts: tuple[Part, ...]
    rejects: list[Reject] = field(default_factory=list)
    letter: Letter | None = None
    names_graphs: bool = True
    end: bool = False
    complete: bool = False
    after: tuple[str, ...] = ()


class Claims(Protocol):
    """The partitions that this process reads, as the store has them: how a source learns where to go on."""

    def announce(self, partitions: Sequence[str]) -> None:
        """Say which partitions there are, whoever reads them: those that this process has not claimed are waited for.

        A source whose partitions are all claimed by each of its processes need not call it.
        """
        ...

    def claim(self, partitions: Sequence[str]) -> dict[str, Position | None]:
        """Take partitions over from whoever had them, and return where each goes on (None: it was never read).

        From now on a commit of their previous reader fails.
        """
        ...

    def read_before(self, prefix: str) -> list[ReadBefore]:
        """Return the sources of one partition whose names begin so and that were read, at least in part."""
        ...

    def hold(self, names: Sequence[str]) -> None:
        """Let no other process go on with these sources while this one lives.

        Raises:
            StoreError: another one does already.
        """
        ...

    def check_first(self, check: Callable[[], None]) -> None:
        """Have this called in the transaction of the next batch, while no other process commits its first one.

        What it raises leaves nothing of the batch.
        """
        ...

    def release(self, partitions: Sequence[str]) -> None:
        """Give partitions up; every batch that was yielded has been committed before this returns."""
        ...


class PartitionedSource(Protocol):
    """A log of several partitions, some or all of which this process reads."""

    @property
    def name(self) -> str:
        """The identity of the source in the store, the same for all processes that share it."""
        ...

    def batches(self, claims: Claims) -> Iterator[PartitionedBatch]:
        """Claim partitions, then yield batches; claims may change between two batches.

        Batches are committed in their order before the next one is asked for, or by `release` at the latest. A
        batch without events, rejects and changes of position or idleness gives its reader a chance to stop.

        Raises:
            InputError: the log cannot be read at all, or does not fit what the store has of it.
        """
        ...
