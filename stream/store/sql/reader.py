"""Reading snapshots from a store on an SQL database, beside running ingest processes."""

from collections.abc import Sequence
from typing import Self

import numpy as np

from infra.schema import METRIC_NAMES
from stream.events import Reject
from stream.store.base import GraphInfo, SnapshotTable
from stream.store.outbox import Change
from stream.store.rebuild import REBUILT
from stream.store.sql.database import ReadDatabase, Row
from stream.store.sql.marks import PROJECTIONS, store_id_of
from stream.store.sql.sources import BEGUN
from stream.store.unknown import check_metrics, unknown_graph

_GRAPH_COLUMNS = "name, step_us, snapshots, events, first_step_us, next_step_us, late, final_us"
GRAPHS = f"SELECT {_GRAPH_COLUMNS} FROM graphs WHERE {BEGUN} ORDER BY name"
GRAPH = f"SELECT {_GRAPH_COLUMNS} FROM graphs WHERE name = ? AND {BEGUN}"
PENDING = (
    "SELECT outbox.id, name, step_us, outbox.first_step_us, last_step_us FROM outbox"
    " JOIN graphs ON graphs.id = graph_id WHERE projection = ? ORDER BY outbox.id LIMIT ?"
)
WAITING = (
    "SELECT sum((last_step_us - outbox.first_step_us) / step_us + 1) FROM outbox JOIN graphs ON graphs.id = graph_id"
    " WHERE projection = ?"
)
REBUILT_FROM = (
    "SELECT graphs.name FROM sources JOIN feeders ON feeders.source_id = sources.id"
    " JOIN graphs ON graphs.id = feeders.graph_id WHERE sources.name = ?"
)


class SqlSnapshots:
    """A `SnapshotReader` over any database; it may be used from several threads."""

    def __init__(self, database: ReadDatabase) -> None:
        self.database = database

    def graphs(self) -> list[GraphInfo]:
        """Return all graphs, by name."""
        return [_info(row) for row in self.database.fetch(GRAPHS)]

    def graph(self, name: str) -> GraphInfo:
        """Return one graph.

        Raises:
            StoreError: there is no such graph; the message names the nearest ones.
        """
        rows = self.database.fetch(GRAPH, (name,))
        if not rows:
            raise unknown_graph(name, [info.name for info in self.graphs()], self.database.name)
        return _info(rows[0])

    def snapshots(
        self,
        name: str,
        *,
        start_us: int | None = None,
        end_us: int | None = None,
        metrics: tuple[str, ...] | None = None,
        last: int | None = None,
    ) -> SnapshotTable:
        """Return snapshots with `start_us <= step_start < end_us`, the newest `last` of them if given.

        Raises:
            StoreError: there is no such graph, or a metric is unknown.
        """
        info = self.graph(name)
        columns = METRIC_NAMES if metrics is None else metrics
        check_metrics(columns)
        sql, parameters = range_query(columns, name, start_us=start_us, end_us=end_us, last=last)
        none = np.zeros(0, dtype=np.int64)
        steps, revisions, values = [none], [none], [np.zeros((0, len(columns)))]
        for rows in self.database.pages(sql, parameters):
            steps.append(np.array([row[0] for row in rows], dtype=np.int64))
            revisions.append(np.array([row[1] for row in rows], dtype=np.int64))
            values.append(np.array([row[2:] for row in rows], dtype=np.float64))
        order = slice(None, None, -1) if last is not None else slice(None)
        return SnapshotTable(
            graph=name,
            step_us=info.step_us,
            metrics=tuple(columns),
            step_start_us=np.ascontiguousarray(np.concatenate(steps)[order]),
            revision=np.ascontiguousarray(np.concatenate(revisions)[order]),
            values=np.ascontiguousarray(np.concatenate(values)[order]),
        )

    def rejects(self) -> list[Reject]:
        """Return the sample of rejected records and late events that the store keeps, in their order."""
        rows = self.database.fetch("SELECT place, record, reason, stage FROM rejects ORDER BY source_id, number")
        return [Reject(*row) for row in rows]

    def close(self) -> None:
        """Release the connection."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class SqlOutbox:
    """An `Outbox` over any database."""

    def __init__(self, database: ReadDatabase) -> None:
        self._database = database

    def elect(self, projection: str) -> bool:
        """Return whether this process is the one that projects; others get False until it closes or dies.

        Raises:
            StoreError: the store cannot be read.
        """
        return self._database.elect(f"projection {projection}")

    def pending(self, projection: str, limit: int) -> list[Change]:
        """Return up to `limit` changes that the projection has not written, oldest first; [] if it is not enabled.

        Raises:
            StoreError: the store cannot be read.
        """
        return [Change(*row) for row in self._database.fetch(PENDING, (projection, limit))]

    def waiting(self, projection: str) -> int:
        """Return how many snapshots the projection has not written; one that changed twice counts twice.

        Raises:
            StoreError: the store cannot be read.
        """
        return int(self._database.fetch(WAITING, (projection,))[0][0] or 0)

    def store_id(self) -> str:
        """Return what tells the store from others, a copy of it aside; "" if no projection to a place is enabled.

        Raises:
            StoreError: the store cannot be read.
        """
        return store_id_of(name for (name,) in self._database.fetch(PROJECTIONS))

    def rebuilt_from(self, origin: str) -> list[str]:
        """Return the graphs that were restored from this place, so that it has them, as they stay, whoever wrote them.

        Args:
            origin: the address of the place as a store URL, without the token.

        Raises:
            StoreError: the store cannot be read.
        """
        return [name for (name,) in self._database.fetch(REBUILT_FROM, (REBUILT + origin,))]

    def close(self) -> None:
        """Release the connection."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def range_query(
    columns: Sequence[str], name: str, *, start_us: int | None, end_us: int | None, last: int | None
) -> tuple[str, list[object]]:
    """Return the query of a range of a graph's snapshots, by primary key, and its parameters.

    Its columns are step_start_us, revision and `columns`, in step order; newest first where `last` is given.
    """
    conditions = ["graph_id = (SELECT id FROM graphs WHERE name = ?)"]
    parameters: list[object] = [name]
    for condition, value in (("step_start_us >= ?", start_us), ("step_start_us < ?", end_us)):
        if value is not None:
            conditions.append(condition)
            parameters.append(value)
    order = "ORDER BY step_start_us"
    if last is not None:
        order += " DESC LIMIT ?"
        # A negative LIMIT would mean no limit.
        parameters.append(max(last, 0))
    selected = ", ".join(("step_start_us", "revision", *columns))
    return f"SELECT {selected} FROM snapshots WHERE {' AND '.join(conditions)} {order}", parameters


def _info(row: Row) -> GraphInfo:
    name, step_us, snapshots, events, first_step_us, next_step_us, late, final_us = row
    return GraphInfo(
        name=name,
        step_us=step_us,
        snapshots=snapshots,
        events=events,
        first_step_us=first_step_us,
        last_step_us=None if next_step_us is None else next_step_us - step_us,
        late=late,
        final_us=final_us,
    )
