"""Reading snapshots from a SQLite store, beside a running ingest process."""

import difflib
from pathlib import Path
from typing import Self

import numpy as np

from infra.errors import StoreError
from infra.schema import METRIC_INDEX, METRIC_NAMES
from stream.events import Reject
from stream.store.base import GraphInfo, SnapshotTable
from stream.store.sqlite_file import connect_reader, path_of_url, translated

_FETCH_ROWS = 8192
_GRAPH_COLUMNS = "name, step_us, snapshots, events, first_step_us, next_step_us, late"


class SqliteSnapshots:
    """A `SnapshotReader` over a SQLite store; it may be used from several threads.

    Raises:
        StoreError: there is no store at `url`, or it cannot be read.
    """

    def __init__(self, url: str) -> None:
        self._path: Path = path_of_url(url)
        self._connection = connect_reader(self._path)

    def graphs(self) -> list[GraphInfo]:
        """Return all graphs, by name."""
        with translated(self._path):
            rows = self._connection.execute(f"SELECT {_GRAPH_COLUMNS} FROM graphs ORDER BY name").fetchall()
        return [_info(row) for row in rows]

    def graph(self, name: str) -> GraphInfo:
        """Return one graph.

        Raises:
            StoreError: there is no such graph; the message names the nearest ones.
        """
        with translated(self._path):
            row = self._connection.execute(f"SELECT {_GRAPH_COLUMNS} FROM graphs WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise self._unknown(name)
        return _info(row)

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
        _check_metrics(columns)
        sql, parameters = range_query(columns, start_us=start_us, end_us=end_us, last=last)
        steps, revisions, values = [], [], []
        with translated(self._path):
            cursor = self._connection.execute(sql, {"name": name, **parameters})
            while rows := cursor.fetchmany(_FETCH_ROWS):
                steps.append(np.array([row[0] for row in rows], dtype=np.int64))
                revisions.append(np.array([row[1] for row in rows], dtype=np.int64))
                values.append(np.array([row[2:] for row in rows], dtype=np.float64))
        order = slice(None, None, -1) if last is not None else slice(None)
        no_steps = np.zeros(0, dtype=np.int64)
        return SnapshotTable(
            graph=name,
            step_us=info.step_us,
            metrics=tuple(columns),
            step_start_us=np.ascontiguousarray(np.concatenate([no_steps, *steps])[order]),
            revision=np.ascontiguousarray(np.concatenate([no_steps, *revisions])[order]),
            values=np.ascontiguousarray(np.concatenate([np.zeros((0, len(columns))), *values])[order]),
        )

    def rejects(self) -> list[Reject]:
        """Return the sample of rejected records and late events that the store keeps, in their order."""
        with translated(self._path):
            rows = self._connection.execute(
                "SELECT place, record, reason FROM rejects ORDER BY source_id, number"
            ).fetchall()
        return [Reject(*row) for row in rows]

    def close(self) -> None:
        """Release the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _unknown(self, name: str) -> StoreError:
        names = [info.name for info in self.graphs()]
        if not names:
            return StoreError(
                f"there is no graph {name!r}: the store is empty",
                place=str(self._path),
                fix="ingest events first: graphtide ingest",
            )
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        known = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
        return StoreError(
            f"there is no graph {name!r}; the store has {known}",
            place=str(self._path),
            fix=f"did you mean {' or '.join(near)}?" if near else "take one of these, or see: graphtide graphs",
        )


def range_query(
    columns: tuple[str, ...], *, start_us: int | None, end_us: int | None, last: int | None
) -> tuple[str, dict[str, int]]:
    """Return the query of a range of snapshots, by primary key, and its parameters but `name`.

    Its columns are step_start_us, revision and `columns`, in step order; newest first where `last` is given.
    """
    conditions = ["graph_id = (SELECT id FROM graphs WHERE name = :name)"]
    parameters = {}
    if start_us is not None:
        conditions.append("step_start_us >= :start")
        parameters["start"] = start_us
    if end_us is not None:
        conditions.append("step_start_us < :end")
        parameters["end"] = end_us
    order = "ORDER BY step_start_us"
    if last is not None:
        order += " DESC LIMIT :last"
        # A negative LIMIT would mean no limit.
        parameters["last"] = max(last, 0)
    selected = ", ".join(("step_start_us", "revision", *columns))
    return f"SELECT {selected} FROM snapshots WHERE {' AND '.join(conditions)} {order}", parameters


def _check_metrics(names: tuple[str, ...]) -> None:
    for name in names:
        if name not in METRIC_INDEX:
            near = difflib.get_close_matches(name, METRIC_NAMES, n=1)
            raise StoreError(
                f"there is no metric {name!r}; there are {', '.join(METRIC_NAMES)}",
                fix=f"did you mean {near[0]}?" if near else None,
            )


def _info(row: tuple[str, int, int, int, int | None, int | None, int]) -> GraphInfo:
    name, step_us, snapshots, events, first_step_us, next_step_us, late = row
    return GraphInfo(
        name=name,
        step_us=step_us,
        snapshots=snapshots,
        events=events,
        first_step_us=first_step_us,
        last_step_us=None if next_step_us is None else next_step_us - step_us,
        late=late,
    )
