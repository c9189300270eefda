"""A source that claims, reads and gives up partitions as a script says, as a group makes a process do."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from stream.events import Event, EventBatch, Interner
from stream.sources.base import Claims, Part, PartitionedBatch


@dataclass(frozen=True, slots=True)
class Claim:
    """Take partitions over."""

    partitions: Sequence[str]


@dataclass(frozen=True, slots=True)
class Release:
    """Give partitions up."""

    partitions: Sequence[str]


@dataclass(frozen=True, slots=True)
class Read:
    """Read the next events of a partition; without any, say that it is idle."""

    partition: str
    events: Sequence[Event] = ()


@dataclass
class ScriptSource:
    """Does what `script` says. `announced` are all partitions that there are, if it tells."""

    script: Iterable[Claim | Release | Read]
    announced: Sequence[str] = ()
    name: str = "script:test"

    def batches(self, claims: Claims) -> Iterator[PartitionedBatch]:
        interner = Interner()
        if self.announced:
            claims.announce(self.announced)
        for number, act in enumerate(self.script):
            if isinstance(act, Claim):
                claims.claim(act.partitions)
            elif isinstance(act, Release):
                claims.release(act.partitions)
            else:
                n = len(act.events)
                part = Part(act.partition, 0, n, {"at": number}, idle=not n)
                yield PartitionedBatch(EventBatch.from_events(act.events, interner), (part,))
