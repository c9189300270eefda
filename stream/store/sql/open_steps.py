"""The part of a writer that keeps the events of open steps: appended by each commit, read and deleted by closing.

The rows are also kept in memory, within bounds, so that closing reads the database only after a restart.
"""

from dataclasses import dataclass, field

import numpy as np

from infra.errors import StoreError
from stream.events import IntArray
from stream.store.edge_blobs import EdgeBlobs
from stream.store.records import EdgeRows, GraphState
from stream.store.sql.database import Database, Part, Row

# 32 bytes a row.
HELD_ROWS = 1_000_000

OPEN_BEFORE = "SELECT step_start_us, edges FROM open_chunks WHERE graph_id = ? AND step_start_us < ?"
DELETE_BEFORE = "DELETE FROM open_chunks WHERE graph_id = ? AND step_start_us < ?"
OPEN_ROWS = "SELECT sum(n) FROM open_chunks WHERE graph_id = ?"
_ALWAYS_US = 2**63 - 1


@dataclass(slots=True)
class _Held:
    """All open rows of a graph, and the earliest step among them."""

    parts: list[EdgeRows] = field(default_factory=list)
    earliest_us: int = _ALWAYS_US
    rows: int = 0

    def add(self, rows: EdgeRows) -> None:
        if len(rows):
            self.parts.append(rows)
            self.rows += len(rows)
            self.earliest_us = min(self.earliest_us, int(rows.step_start_us.min()))


class OpenSteps(Part):
    """Events of steps that are not closed."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._open_blobs = EdgeBlobs(level=0)  # they are soon deleted
        # By graph id; a graph that is not here has to be looked up, unless all is here.
        self._held: dict[int, _Held] = {}
        self._holds_all_open: bool | None = None
        # Graphs whose rows other processes add and take, too: memory has none of them.
        self._shared: set[int] = set()

    def _forget(self) -> None:
        super()._forget()
        self._held = {}
        self._holds_all_open = None

    def add_open(self, rows: EdgeRows) -> None:
        """Add events to open steps."""
        if not len(rows):
            return
        rows = _in_order(rows)
        starts = step_runs(rows)
        self._whole(int(rows.graph_id[0]))  # before anything is there that memory has not
        self.database.insert(
            "open_chunks",
            {
                "graph_id": rows.graph_id[starts],
                "step_start_us": rows.step_start_us[starts],
                "n": np.diff(starts, append=len(rows)),
                "edges": self._open_blobs.encode(rows.pair, rows.events, starts),
            },
        )
        graphs, begins = np.unique(rows.graph_id, return_index=True)
        for graph_id, begin, end in zip(
            graphs.tolist(), begins.tolist(), [*begins[1:].tolist(), len(rows)], strict=True
        ):
            held = self._held.get(graph_id)
            if held is None and self._holds_all_open:
                held = self._held[graph_id] = _Held()
            if held is not None:
                held.add(_part(rows, begin, end))
        if sum(held.rows for held in self._held.values()) > HELD_ROWS:
            self._held = {}
            self._holds_all_open = False

    def take_open(self, graph: GraphState, before_us: int) -> EdgeRows:
        """Remove and return the events of a graph's open steps that start before `before_us`, in any order."""
        held = self._whole(graph.id)
        if held is None:
            taken = self._read(graph.id, self.database.fetch(OPEN_BEFORE, (graph.id, before_us)))
        elif held.earliest_us >= before_us:
            return EdgeRows.none()
        else:
            rows = _concatenate(held.parts)
            taken = rows.where(rows.step_start_us < before_us)
            self._held[graph.id] = _Held()
            self._held[graph.id].add(rows.where(rows.step_start_us >= before_us))
        if len(taken):
            self.database.fetch(DELETE_BEFORE, (graph.id, before_us))
        return taken

    def _share_open(self, graph_id: int) -> None:
        """Keep nothing in memory of a graph that other processes feed, too."""
        self._shared.add(graph_id)
        self._held.pop(graph_id, None)

    def _whole(self, graph_id: int) -> _Held | None:
        """Return all open rows of a graph, loaded if they are not too many; None where they are, or are not ours."""
        if graph_id in self._shared:
            return None
        if self._holds_all_open is None:
            self._holds_all_open = self.database.exclusive and not self.database.fetch(
                "SELECT 1 FROM open_chunks LIMIT 1"
            )
        if graph_id in self._held:
            return self._held[graph_id]
        held = _Held()
        if not self._holds_all_open:
            n_rows = int(self.database.fetch(OPEN_ROWS, (graph_id,))[0][0] or 0)
            if n_rows + sum(other.rows for other in self._held.values()) > HELD_ROWS:
                return None
            if n_rows:
                held.add(self._read(graph_id, self.database.fetch(OPEN_BEFORE, (graph_id, _ALWAYS_US))))
        self._held[graph_id] = held
        return held

    def _read(self, graph_id: int, chunks: list[Row]) -> EdgeRows:
        try:
            pair, events, counts = self._open_blobs.decode([edges for _, edges in chunks])
        except ValueError as error:
            raise damaged(self.database.name, error) from error
        steps_us = np.array([step_us for step_us, _ in chunks], dtype=np.int64)
        return EdgeRows(np.full(len(pair), graph_id, dtype=np.int64), np.repeat(steps_us, counts), pair, events)


def step_runs(rows: EdgeRows) -> IntArray:
    """Return the index of the first row of each (graph, step) of rows in order."""
    first = np.ones(len(rows), dtype=np.bool_)
    first[1:] = (rows.step_start_us[1:] != rows.step_start_us[:-1]) | (rows.graph_id[1:] != rows.graph_id[:-1])
    return np.flatnonzero(first)


def damaged(name: str, error: ValueError) -> StoreError:
    """Return the StoreError of a blob that cannot be decoded."""
    return StoreError(
        f"the store {name} is damaged: {error}", fix="restore it from a backup, or move it away and ingest again"
    )


def _in_order(rows: EdgeRows) -> EdgeRows:
    """Return rows in order of graph, step and pair, each once."""
    graph, step, pair = (column[1:] - column[:-1] for column in (rows.graph_id, rows.step_start_us, rows.pair))
    ordered = (graph > 0) | (graph == 0) & ((step > 0) | (step == 0) & (pair > 0))
    return rows if ordered.all() else EdgeRows.merge([rows])


def _concatenate(parts: list[EdgeRows]) -> EdgeRows:
    if len(parts) == 1:
        return parts[0]
    return EdgeRows(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("graph_id", "step_start_us", "pair", "events")
        )
    )


def _part(rows: EdgeRows, begin: int, end: int) -> EdgeRows:
    return EdgeRows(
        rows.graph_id[begin:end], rows.step_start_us[begin:end], rows.pair[begin:end], rows.events[begin:end]
    )
