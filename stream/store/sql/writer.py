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

    def release(self, source: SourceState, partitions: Sequence[str]) -> None:
        """Note, in a transaction of its own, that this process no longer reads partitions. Others may have them."""
        self._claimed -= {(source.id, name) for name in partitions}
        with self.transaction():
            self._release(source, partitions)

    def share(self, name: str, step_us: int) -> GraphState:
        """Return a graph that other processes may feed, too, as it is now; none of them changes it in this transaction.

        It is added if there is none of that name. Take several in the order of their names.
        """
        graph = self.graph(name)
        if graph is None:
            self.database.fetch(ADD_GRAPH, (name, step_us))
            graph = self.graph(name)
            assert graph is not None
        self.database.lock_graph(graph.id)
        if not self.database.exclusive:
            self._share_open(graph.id)
        # Others may have changed it until the lock was ours.
        return self.graph(name) or graph

    def close(self) -> None:
        """Close the store; a new one that nothing was written to goes away."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
