"""Dead letters as a store keeps them: whole records that were not counted, or not wholly, and why."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from stream.decoders.records.base import Record


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One record, with one reason.

    Attributes:
        number: names the letter in its store.
        source: the name of the source that it came from.
        record: the whole record.
        place, reason, stage: as in `stream.events.Reject`.
        rejected_us: when, UTC microseconds.
        delivered_us, replayed_us: when it was delivered to the dead letter target, and when its record was sent to
            its topic again; None while it was not.
    """

    number: int
    source: str
    record: Record
    place: str
    reason: str
    stage: str
    rejected_us: int
    delivered_us: int | None = None
    replayed_us: int | None = None

    @property
    def id(self) -> str:
        """The same for every delivery of the letter, and of no other letter."""
        record = self.record
        return f"{record.topic}/{record.partition}/{record.offset}/{self.rejected_us}/{self.number}"


class DeadLetters(Protocol):
    """Read access to dead letters; safe beside a running ingest process. Made by `stream.store.open_dead_letters`."""

    def elect(self) -> bool:
        """Return whether this process is the one that delivers; others get False until it closes or dies.

        Raises:
            StoreError: the store cannot be read.
        """
        ...

    def to_deliver(self, limit: int) -> list[DeadLetter]:
        """Return up to `limit` letters that were not delivered, oldest first.

        Raises:
            StoreError: the store cannot be read.
        """
        ...

    def letters(
        self,
        *,
        after: int = 0,
        limit: int,
        topic: str | None = None,
        numbers: Sequence[int] | None = None,
        only_unreplayed: bool = False,
    ) -> list[DeadLetter]:
        """Return up to `limit` letters whose number is above `after`, by number.

        Args:
            after: the last number of the page before.
            limit: how many at most.
            topic: only those of this topic.
            numbers: only these.
            only_unreplayed: only those whose record was not sent again.

        Raises:
            StoreError: the store cannot be read.
        """
        ...

    def close(self) -> None:
        """Release the connection."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...
