"""The outbox of a store: which snapshots a projection, such as the one into InfluxDB, still has to write.

Ingestion notes changes in the transaction that makes them, so none is ever missed. A projector, on a thread or a
connection of its own, asks for `pending` changes, reads those snapshots *then*, writes them elsewhere, and has the
ingesting thread note them as `projected`. After a crash in between it writes them again, which must not matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

# A change covers at most this many steps, so that it is one bounded piece of work.
CHANGE_STEPS = 8192


@dataclass(frozen=True, slots=True)
class Change:
    """Snapshots of a graph were written or revised: those with `first_step_us <= step_start <= last_step_us`.

    Attributes:
        number: names the change in `projected`; unique, but concurrent writers need not commit in this order.
        graph: the graph's name.
        step_us: its step size.
    """

    number: int
    graph: str
    step_us: int
    first_step_us: int
    last_step_us: int

    @property
    def n_steps(self) -> int:
        """How many snapshots."""
        return (self.last_step_us - self.first_step_us) // self.step_us + 1


class Outbox(Protocol):
    """Read access to the outbox; safe beside a running ingest process. Made by `stream.store.open_outbox(url)`."""

    def elect(self, projection: str) -> bool:
        """Return whether this process is the one that projects; others get False until it closes or dies.

        Ask again before each round: where the connection was lost, the election is lost with it.

        Raises:
            StoreError: the store cannot be read.
        """
        ...

    def pending(self, projection: str, limit: int) -> list[Change]:
        """Return up to `limit` changes that the projection has not written, oldest first; [] if it is not enabled.

        Raises:
            StoreError: the store cannot be read.
        """
        ...

    def waiting(self, projection: str) -> int:
        """Return how many snapshots the projection has not written; one that changed twice counts twice.

        Raises:
            StoreError: the store cannot be read.
        """
        ...

    def store_id(self) -> str:
        """Return what tells the store from others, a copy of it aside; "" if no projection to a place is enabled.

        Raises:
            StoreError: the store cannot be read.
        """
        ...

    def rebuilt_from(self, origin: str) -> list[str]:
        """Return the graphs that were restored from this place, so that it has them, as they stay, whoever wrote them.

        Args:
            origin: the address of the place as a store URL, without the token.

        Raises:
            StoreError: the store cannot be read.
        """
        ...

    def close(self) -> None:
        """Release the connection."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


class Projections(Protocol):
    """What a `StoreWriter` also offers for projections; each call inside its `transaction`, on its thread."""

    def enable_projection(self, name: str, place: str = "") -> None:
        """Note changes for a projection from now on, and all snapshots that are there already; no change if it is.

        Args:
            name: of the projection.
            place: tells where it writes from other places, in letters and digits; where it was another one before, all
                snapshots are noted again. With it the store gets an identity. "" for a projection that has no place.
        """
        ...

    def disable_projection(self, name: str) -> None:
        """Note no more changes for a projection, and forget those that wait."""
        ...

    def projected(self, name: str, numbers: Sequence[int]) -> None:
        """Note that the projection has durably written these changes."""
        ...
