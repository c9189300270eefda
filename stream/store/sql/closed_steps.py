"""The part of a writer that writes snapshots and the edges of their steps, and notes both in the outbox."""

from collections.abc import Mapping, Sequence

import numpy as np

from infra.schema import METRIC_INDEX, METRIC_NAMES, METRICS, Kind
from stream.events import FloatArray, IntArray
from stream.store.base import SnapshotTable
from stream.store.edge_blobs import EdgeBlobs
from stream.store.outbox import CHANGE_STEPS
from stream.store.records import EdgeRows, GraphState
from stream.store.sql.database import Column, Database, Part
from stream.store.sql.marks import PROJECTIONS, is_mark, new_store_mark, place_mark, store_id_of
from stream.store.sql.open_steps import damaged, step_runs
from stream.store.writer import Closed

CLOSED_FROM = (
    f"SELECT step_start_us, {', '.join(METRIC_NAMES)} FROM snapshots"
    " WHERE graph_id = ? AND step_start_us >= ? ORDER BY step_start_us"
)
EDGES_OF_STEPS = "SELECT step_start_us, edges FROM step_edges WHERE graph_id = ? AND step_start_us {keys}"
NOTE = "INSERT INTO outbox (projection, graph_id, first_step_us, last_step_us) VALUES (?, ?, ?, ?)"
_ENABLE = "INSERT INTO projections (name) VALUES (?) ON CONFLICT DO NOTHING RETURNING name"
_DISABLE = "DELETE FROM projections WHERE name = ?"
_FORGET = "DELETE FROM outbox WHERE projection = ?"
_IS_SHARE = tuple((metric.name, metric.kind is Kind.SHARE) for metric in METRICS)
EDGES_BEFORE = "DELETE FROM step_edges WHERE graph_id = ? AND step_start_us < ?"


class ClosedSteps(Part):
    """Snapshots, edges of closed steps, and the outbox."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._blobs = EdgeBlobs()
        # Enabled projections, where no other process can enable one.
        self._projections: list[str] | None = None

    def _forget(self) -> None:
        super()._forget()
        self._projections = None

    def add_snapshots(
        self, graph_id: IntArray, step_start_us: IntArray, metrics: Mapping[str, FloatArray], edges: EdgeRows
    ) -> None:
        """Write snapshots as revision 0, and the distinct edges of their steps.

        Args:
            graph_id, step_start_us: [n] of each snapshot.
            metrics: an array [n] for each metric of the schema.
            edges: in order of graph, step and pair; steps without events have none.
        """
        if not len(graph_id):
            return
        columns: dict[str, Column] = {
            "graph_id": graph_id,
            "step_start_us": step_start_us,
            "revision": np.zeros(len(graph_id), dtype=np.int64),
        }
        self.database.insert("snapshots", columns | _metric_columns(metrics))
        self.database.insert("step_edges", self._edge_columns(edges))
        self._note(graph_id, step_start_us)

    def import_snapshots(self, graph: GraphState, table: SnapshotTable) -> None:
        """Write snapshots that another store has, with their revisions; they follow what the graph has."""
        if not len(table):
            return
        columns: dict[str, Column] = {
            "graph_id": np.full(len(table), graph.id, dtype=np.int64),
            "step_start_us": table.step_start_us,
            "revision": table.revision,
        }
        values = {name: table.values[:, at] for at, name in enumerate(table.metrics)}
        self.database.insert("snapshots", columns | _metric_columns(values))
        self._note(np.full(len(table), graph.id, dtype=np.int64), table.step_start_us)

    def closed(self, graph: GraphState, start_us: int) -> Closed:
        """Return the closed steps of a graph from `start_us` on."""
        steps, values = [np.zeros(0, dtype=np.int64)], [np.zeros((0, len(METRIC_NAMES)))]
        for rows in self.database.pages(CLOSED_FROM, (graph.id, start_us)):
            steps.append(np.array([row[0] for row in rows], dtype=np.int64))
            values.append(np.array([row[1:] for row in rows], dtype=np.float64))
        return Closed(np.concatenate(steps), np.concatenate(values))

    def step_edges(self, graph: GraphState, step_start_us: IntArray) -> EdgeRows:
        """Return the edges of closed steps, in order of step and pair; those that are no longer kept are not there."""
        rows = sorted(self.database.fetch_in(EDGES_OF_STEPS, (graph.id,), step_start_us))
        try:
            pair, events, counts = self._blobs.decode([edges for _, edges in rows])
        except ValueError as error:
            raise damaged(self.database.name, error) from error
        step_us = np.repeat(np.array([step_us for step_us, _ in rows], dtype=np.int64), counts)
        return EdgeRows(np.full(len(pair), graph.id, dtype=np.int64), step_us, pair, events)

    def revise(self, graph: GraphState, steps: Closed, edges: EdgeRows) -> None:
        """Write closed steps anew, each with the next revision, and replace the edges of the steps that `edges` names.

        A step that the graph did not have is written as revision 0.
        """
        n_steps = len(steps.step_start_us)
        if not n_steps:
            return
        graph_id = np.full(n_steps, graph.id, dtype=np.int64)
        columns: dict[str, Column] = {
            "graph_id": graph_id,
            "step_start_us": steps.step_start_us,
            "revision": np.zeros(n_steps, dtype=np.int64),
        }
        values = {name: np.ascontiguousarray(steps.values[:, column]) for name, column in METRIC_INDEX.items()}
        key = ("graph_id", "step_start_us")
        self.database.upsert(
            "snapshots", columns | _metric_columns(values), key, instead={"revision": "snapshots.revision + 1"}
        )
        self.database.upsert("step_edges", self._edge_columns(edges), key)
        self._note(graph_id, steps.step_start_us)

    def expire(self, graph: GraphState, *, edges_before_us: int) -> None:
        """Drop the edges of closed steps before a time, and remember in `graph` and the store that they are gone."""
        if graph.edges_from_us is not None and graph.edges_from_us >= edges_before_us:
            return
        self.database.fetch(EDGES_BEFORE, (graph.id, edges_before_us))
        self.database.fetch("UPDATE graphs SET edges_from_us = ? WHERE id = ?", (edges_before_us, graph.id))
        graph.edges_from_us = edges_before_us

    def enable_projection(self, name: str, place: str = "") -> None:
        """Note changes for a projection from now on, and all snapshots that are there already; see `Projections`."""
        execute = self.database.fetch
        # Otherwise what another process is just committing would be neither noted by it nor found here.
        self.database.lock_snapshots()
        if place and self._settle_place(name, place):
            execute(_DISABLE, (name,))
            execute(_FORGET, (name,))
        if not execute(_ENABLE, (name,)):
            return
        self._projections = None
        for graph_id, step_us, first_us, next_us in execute(
            "SELECT id, step_us, first_step_us, next_step_us FROM graphs WHERE first_step_us IS NOT NULL ORDER BY id"
        ):
            last_us = next_us - step_us
            for begin_us in range(first_us, next_us, CHANGE_STEPS * step_us):
                execute(NOTE, (name, graph_id, begin_us, min(begin_us + (CHANGE_STEPS - 1) * step_us, last_us)))

    def disable_projection(self, name: str) -> None:
        """Note no more changes for a projection, and forget those that wait."""
        self.database.lock_snapshots()
        self.database.fetch(_DISABLE, (name,))
        self.database.fetch(_FORGET, (name,))
        self._projections = None

    def projected(self, name: str, numbers: Sequence[int]) -> None:
        """Note that the projection has durably written these changes."""
        for number in numbers:
            self.database.fetch("DELETE FROM outbox WHERE id = ? AND projection = ?", (number, name))

    def _settle_place(self, name: str, place: str) -> bool:
        """Remember where a projection writes to, and who this store is; return whether it wrote to another place."""
        names = self._projection_names()
        now = place_mark(name, place)
        # A store of an older version says nothing of the place: it stays what it is.
        others = [each for each in names if each.startswith(place_mark(name)) and each != now]
        for each in others:
            self.database.fetch(_DISABLE, (each,))
        for each in (now, *(() if store_id_of(names) else (new_store_mark(),))):
            self.database.fetch(_ENABLE, (each,))
        return bool(others)

    def _projection_names(self) -> list[str]:
        return [name for (name,) in self.database.fetch(PROJECTIONS)]

    def _note(self, graph_id: IntArray, step_start_us: IntArray) -> None:
        """Note the snapshots [n] that were just written for every enabled projection."""
        # Asked after they were written: who enables a projection waits for that, or is waited for.
        if self._projections is None or not self.database.exclusive:
            self._projections = [name for name in self._projection_names() if not is_mark(name)]
        if not self._projections:
            return
        for graph in np.unique(graph_id).tolist():
            steps_us = np.sort(step_start_us[graph_id == graph])
            # Closed steps have no gap, so that a range names them; at most CHANGE_STEPS in each.
            for begin in range(0, len(steps_us), CHANGE_STEPS):
                part = steps_us[begin : begin + CHANGE_STEPS]
                for projection in self._projections:
                    self.database.fetch(NOTE, (projection, graph, int(part[0]), int(part[-1])))

    def _edge_columns(self, edges: EdgeRows) -> dict[str, Column]:
        starts = step_runs(edges)
        return {
            "graph_id": edges.graph_id[starts],
            "step_start_us": edges.step_start_us[starts],
            "edges": self._blobs.encode(edges.pair, edges.events, starts),
        }


def _metric_columns(metrics: Mapping[str, FloatArray]) -> dict[str, Column]:
    return {
        name: metrics[name] if is_share else np.asarray(metrics[name]).astype(np.int64) for name, is_share in _IS_SHARE
    }
