"""The contract of a source: where events come from, in batches, each with the position to resume after it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from stream.events import EventBatch, Reject

# A resume point as JSON-able values; only the source that wrote it understands it.
Position = dict[str, int | str | bool]


@dataclass(frozen=True, slots=True)
class SourceBatch:
    """What a source hands over at once; the store commits its effects and `position` in one transaction.

    Attributes:
        events: the decoded events, in the order of the source; may be empty.
        rejects: records that could not be decoded, a sample (`rejected` counts all).
        rejected: how many records were rejected since the previous batch.
        position: where to go on after this batch.
        partition: the name of the partition that the events came from; a file has one, `""`.
        end: True on the last batch of a bounded source: nothing comes after it, every open step can close.
    """

    events: EventBatch
    position: Position
    rejects: list[Reject] = field(default_factory=list)
    rejected: int = 0
    partition: str = ""
    end: bool = False


class Source(Protocol):
    """A stream of events that can be resumed.

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
