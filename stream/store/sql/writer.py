"""The writing side of a store on an SQL database: one connection, one transaction for all that a batch changes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Self

from stream.store.records import GraphState, PartitionState, SourceState
from stream.store.sql.closed_steps import ClosedSteps
from stream.store.sql.database import Database
from stream.store.sql.dictionary import Dictionary
from stream.store.sql.erasure import Erasure
from stream.store.sql.event_ids import EventIds
from stream.store.sql.letters import Letters
from stream.store.sql.open_steps import OpenSteps
from stream.store.sql.sources import ADD_GRAPH

# A point in a transaction before graphs are shared.
_SHARED = "shared"


class SqlWriter(Erasure, Dictionary, OpenSteps, ClosedSteps, EventIds, Letters):
    """A `StoreWriter` and its `Projections`, over any database.

    Args:
        database: the open database; `close` closes it.
        now_us: the time of day in microseconds since the epoch, UTC; only dead letters carry it.
    """

    def __init__(self, database: Database, now_us: Callable[[], int] | None = None) -> None:
        super().__init__(database)
        if now_us is not None:
            self._now_us = now_us

    @property
    def exclusive(self) -> bool:
        """Whether no other process can write the store."""
        return self.database.exclusive

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what is changed inside, durably, or roll all of it back on an error.

        Raises:
            StoreError: the database failed, or another process has taken over what this one writes.
        """
        database = self.database
        try:
            database.begin()
            if not database.exclusive:
                self._check_claims()
            yield
            database.commit()
        except BaseException:
            self._forget()
            database.rollback()
            raise

    def claim(self, source: SourceState, partitions: Sequence[str]) -> dict[str, PartitionState]:
        """Take over partitions, in a transaction of its own, and return their states; new ones are added.

        Every later `transaction` of a process that had claimed one of them before fails.
        """
        with self.transaction():
            states = self._claim(source, partitions)
        self._claimed |= {(source.id, name) for name in partitions}
        # Their graphs may have been written by others meanwhile.
        self._forget()
        return states

    def hold(self, names: Sequence[str]) -> None:
        """Take over the only partitions of sources of these names, in a transaction of its own, if nobody has them.

        Raises:
            StoreError: another process that lives has one.
        """
        if self.exclusive:
            return
        with self.transaction():
            held = self._hold(names)
        self._claimed |= held

    def release(self, source: SourceState, partitions: Sequence[str]) -> None:
        """Note, in a transaction of its own, that this process no longer reads partitions. Others may have them."""
        self._claimed -= {(source.id, name) for name in partitions}
        with self.transaction():
            self._release(source, partitions)

    def share(self, names: Sequence[str], step_us: int, *, alone: bool) -> list[GraphState]:
        """Return graphs that other processes may feed, too, as they are now; nobody changes them in this transaction.

        Those that are not there are added.

        Args:
            names: in order.
            step_us: step size of those that are added, or that nothing feeds yet.
            alone: nobody adds to their open steps either; without it only that may be done, and `unshare`.
        """
        if not alone:
            self.database.fetch(f"SAVEPOINT {_SHARED}")
        return [self._share(name, step_us, alone=alone) for name in names]

    def unshare(self) -> None:
        """Give up what was shared and not taken alone, before anything is changed.

        Who held it together with others and then wanted it alone would wait for them, and they for it.
        """
        self.database.fetch(f"ROLLBACK TO {_SHARED}")

    def _share(self, name: str, step_us: int, *, alone: bool) -> GraphState:
        graph = self.graph(name)
        if graph is None:
            self.database.fetch(ADD_GRAPH, (name, step_us))
            graph = self.graph(name)
            assert graph is not None
        self.database.lock_graph(graph.id, alone=alone)
        if not self.database.exclusive:
            self._share_open(graph.id)
        # Others may have changed it until the lock was ours.
        graph = self.graph(name) or graph
        return graph if graph.step_us == step_us else self._take_unfed(graph.id, step_us) or graph

    def close(self) -> None:
        """Close the store; a new one that nothing was written to goes away."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
