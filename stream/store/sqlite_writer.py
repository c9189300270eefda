"""Writing a SQLite store: one process, one connection, one transaction for all that a batch of events changes."""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import numpy as np

from infra.errors import StoreError
from infra.schema import METRIC_NAMES, METRICS, Kind
from stream.events import FloatArray, IntArray, Reject
from stream.store.known import BoolArray, KeyMap, KeySet
from stream.store.lock import WriterLock
from stream.store.records import MAX_NODE_ID, PAIR_BITS, EdgeRows, GraphState, PartitionState, SourceState
from stream.store.sqlite_file import connect_writer, path_of_url, translated
from stream.windows import Clock

# Bounds of memory: 16 bytes a node name, 8 bytes a node or an edge.
_KNOWN_NAMES = 1_000_000
_KNOWN_NODES = 1_000_000
_KNOWN_EDGES = 4_000_000

_GRAPH_FIELDS = "id, name, step_us, first_step_us, next_step_us, snapshots, events, total_nodes, total_edges, late"
_ADD_SNAPSHOT = (
    f"INSERT INTO snapshots (graph_id, step_start_us, revision, {', '.join(METRIC_NAMES)})"
    f" VALUES (?, ?, 0, {', '.join('?' * len(METRIC_NAMES))})"
)


class SqliteWriter:
    """The one read-write connection of a store.

    Every change happens inside `transaction`; what it changed is there as a whole after it, or not at all.

    Raises:
        StoreError: the store cannot be made or written, or another process writes it.
    """

    def __init__(self, url: str) -> None:
        self._path: Path = path_of_url(url)
        self._lock = WriterLock(self._path)
        self._is_new = not self._path.exists()
        try:
            self._connection = connect_writer(self._path)
        except BaseException:
            self._lock.release()
            raise
        self._epoch: int | None = None
        self._next_node_id: int | None = None
        self._ids_of_names = KeyMap(_KNOWN_NAMES)
        self._closed_nodes = KeySet(_KNOWN_NODES)
        self._closed_edges = KeySet(_KNOWN_EDGES)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what is changed inside, durably, or roll all of it back on an error.

        Raises:
            StoreError: SQLite failed, or another writer has taken over.
        """
        with translated(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                epoch = self._fence()
                yield
                self._connection.execute("COMMIT")
                self._epoch = epoch
            except BaseException:
                self._forget()
                # SQLite has rolled back by itself after some errors, such as a full disk.
                if self._connection.in_transaction:
                    with suppress(sqlite3.Error):
                        self._connection.execute("ROLLBACK")
                raise

    def source(self, name: str) -> SourceState | None:
        """Return how far a source was read, None if it never was."""
        with translated(self._path):
            row = self._connection.execute(
                "SELECT id, name, split_by_type, position, ended, rejected FROM sources WHERE name = ?", (name,)
            ).fetchone()
            if row is None:
                return None
            partitions = {
                partition: PartitionState(Clock(watermark_us, max_ts_us), events, late)
                for partition, watermark_us, max_ts_us, events, late in self._connection.execute(
                    "SELECT name, watermark_us, max_ts_us, events, late FROM partitions WHERE source_id = ?", (row[0],)
                )
            }
        source_id, _, split_by_type, position, ended, rejected = row
        return SourceState(
            source_id,
            name,
            split_by_type=bool(split_by_type),
            position=None if position is None else json.loads(position),
            ended=bool(ended),
            rejected=rejected,
            partitions=partitions,
        )

    def add_source(self, name: str, *, split_by_type: bool) -> SourceState:
        """Add a source that was never read."""
        cursor = self._connection.execute(
            "INSERT INTO sources (name, split_by_type, ended, rejected) VALUES (?, ?, 0, 0)", (name, split_by_type)
        )
        return SourceState(int(cursor.lastrowid or 0), name, split_by_type)

    def save_source(self, source: SourceState) -> None:
        """Write the position, flags and partitions of a source."""
        self._connection.execute(
            "UPDATE sources SET position = ?, ended = ?, rejected = ? WHERE id = ?",
            (json.dumps(source.position), source.ended, source.rejected, source.id),
        )
        self._connection.executemany(
            "INSERT OR REPLACE INTO partitions (source_id, name, watermark_us, max_ts_us, events, late)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            [
                (source.id, name, state.clock.watermark_us, state.clock.max_ts_us, state.events, state.late)
                for name, state in source.partitions.items()
            ],
        )

    def graph(self, name: str) -> GraphState | None:
        """Return a graph, None if there is none of that name."""
        with translated(self._path):
            row = self._connection.execute(f"SELECT {_GRAPH_FIELDS} FROM graphs WHERE name = ?", (name,)).fetchone()
        return None if row is None else GraphState(*row)

    def graphs_of(self, source: SourceState) -> list[GraphState]:
        """Return the graphs that a source feeds, by name."""
        with translated(self._path):
            rows = self._connection.execute(
                f"SELECT {_GRAPH_FIELDS} FROM graphs JOIN source_graphs ON graph_id = id"
                " WHERE source_id = ? ORDER BY name",
                (source.id,),
            ).fetchall()
        return [GraphState(*row) for row in rows]

    def sources_of(self, graph: GraphState) -> list[tuple[str, bool]]:
        """Return the names of the sources that feed a graph, and whether each was read to its end."""
        rows = self._connection.execute(
            "SELECT name, ended FROM sources JOIN source_graphs ON source_id = id WHERE graph_id = ? ORDER BY id",
            (graph.id,),
        )
        return [(name, bool(ended)) for name, ended in rows]

    def add_graph(self, name: str, step_us: int) -> GraphState:
        """Add an empty graph."""
        cursor = self._connection.execute(
            "INSERT INTO graphs (name, step_us, snapshots, events, total_nodes, total_edges, late)"
            " VALUES (?, ?, 0, 0, 0, 0, 0)",
            (name, step_us),
        )
        return GraphState(int(cursor.lastrowid or 0), name, step_us)

    def save_graphs(self, graphs: Iterable[GraphState]) -> None:
        """Write the counters and the next step of graphs."""
        self._connection.executemany(
            "UPDATE graphs SET first_step_us = ?, next_step_us = ?, snapshots = ?, events = ?, total_nodes = ?,"
            " total_edges = ?, late = ? WHERE id = ?",
            [
                (g.first_step_us, g.next_step_us, g.snapshots, g.events, g.total_nodes, g.total_edges, g.late, g.id)
                for g in graphs
            ],
        )

    def link(self, source: SourceState, graph: GraphState) -> None:
        """Note that a source feeds a graph."""
        self._connection.execute("INSERT INTO source_graphs VALUES (?, ?)", (source.id, graph.id))

    def node_ids(self, graph_id: IntArray, code: IntArray, names: Sequence[str]) -> IntArray:
        """Return the node ids of names in graphs; a name that a graph has not seen gets the next id.

        Ids follow the order of the arrays, so that they do not depend on how a log is cut into batches.

        Args:
            graph_id: [n].
            code: [n] indices into `names`; until `forget_codes` the same code means the same name.
            names: the names of all codes.
        """
        key = (graph_id << PAIR_BITS) | code
        distinct, first, inverse = np.unique(key, return_index=True, return_inverse=True)
        ids, known = self._ids_of_names.get(distinct)
        missing = np.flatnonzero(~known)
        for index in missing[np.argsort(first[missing])].tolist():
            at = first[index]
            ids[index] = self._node_id(int(graph_id[at]), names[code[at]])
        self._ids_of_names.add(distinct[missing], ids[missing])
        by_row: IntArray = ids[inverse.reshape(-1)]
        return by_row

    def forget_codes(self) -> None:
        """Forget what codes mean: a source started a new interner."""
        self._ids_of_names.clear()

    def new_nodes(self, ids: IntArray) -> BoolArray:
        """Return which of the distinct node `ids` [n] no closed step has seen."""
        return self._unseen(ids, self._closed_nodes, "SELECT id FROM nodes WHERE first_step_us NOT NULL AND id IN ")

    def new_edges(self, pairs: IntArray) -> BoolArray:
        """Return which of the distinct node `pairs` [n] no closed step has seen."""
        return self._unseen(pairs, self._closed_edges, "SELECT pair FROM edges WHERE pair IN ")

    def add_first_steps(
        self, node_id: IntArray, node_step_us: IntArray, pair: IntArray, pair_step_us: IntArray
    ) -> None:
        """Write the step where each new node and each new edge was first seen."""
        self._connection.executemany(
            "UPDATE nodes SET first_step_us = ? WHERE id = ?", zip(node_step_us.tolist(), node_id.tolist(), strict=True)
        )
        self._connection.executemany(
            "INSERT INTO edges (pair, first_step_us) VALUES (?, ?)",
            zip(pair.tolist(), pair_step_us.tolist(), strict=True),
        )
        self._closed_nodes.add(node_id)
        self._closed_edges.add(pair)

    def add_snapshots(self, graph_id: IntArray, step_start_us: IntArray, metrics: dict[str, FloatArray]) -> None:
        """Write snapshots as revision 0; `metrics` holds an array [n] for each metric of the schema."""
        columns = [
            metrics[metric.name].tolist()
            if metric.kind is Kind.SHARE
            else metrics[metric.name].astype(np.int64).tolist()
            for metric in METRICS
        ]
        self._connection.executemany(
            _ADD_SNAPSHOT, zip(graph_id.tolist(), step_start_us.tolist(), *columns, strict=True)
        )

    def add_open(self, rows: EdgeRows) -> None:
        """Add events to open steps."""
        self._connection.executemany(
            "INSERT INTO open_edges (graph_id, step_start_us, pair, events) VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET events = events + excluded.events",
            zip(
                rows.graph_id.tolist(),
                rows.step_start_us.tolist(),
                rows.pair.tolist(),
                rows.events.tolist(),
                strict=True,
            ),
        )

    def take_open(self, graph: GraphState, before_us: int) -> EdgeRows:
        """Remove and return the events of a graph's open steps that start before `before_us`."""
        condition, parameters = "WHERE graph_id = ? AND step_start_us < ?", (graph.id, before_us)
        rows = self._connection.execute(
            f"SELECT step_start_us, pair, events FROM open_edges {condition}", parameters
        ).fetchall()
        if rows:
            self._connection.execute(f"DELETE FROM open_edges {condition}", parameters)
        columns = np.array(rows, dtype=np.int64).reshape(-1, 3)
        graph_id = np.full(len(rows), graph.id, dtype=np.int64)
        return EdgeRows(graph_id, columns[:, 0], columns[:, 1], columns[:, 2])

    def add_rejects(self, source: SourceState, rejects: Sequence[Reject], *, keep: int) -> None:
        """Add to the sample of a source's rejects, up to `keep` in all."""
        if not rejects:
            return
        held = self._connection.execute("SELECT count(*) FROM rejects WHERE source_id = ?", (source.id,)).fetchone()[0]
        self._connection.executemany(
            "INSERT INTO rejects VALUES (?, ?, ?, ?, ?)",
            [
                (source.id, number, reject.place, reject.record, reject.reason)
                for number, reject in enumerate(rejects[: max(keep - held, 0)], start=held)
            ],
        )

    def rejects_of(self, source: SourceState) -> list[Reject]:
        """Return the sample of a source's rejects."""
        with translated(self._path):
            rows = self._connection.execute(
                "SELECT place, record, reason FROM rejects WHERE source_id = ? ORDER BY number", (source.id,)
            ).fetchall()
        return [Reject(*row) for row in rows]

    def close(self) -> None:
        """Close the store and let another process write it; a new store that nothing was written to goes away."""
        self._connection.close()
        if self._is_new and self._epoch is None:
            self._path.unlink(missing_ok=True)
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _fence(self) -> int:
        """Claim the store at the first transaction; make sure at later ones that nobody has claimed it since."""
        epoch = int(self._connection.execute("SELECT epoch FROM writer").fetchone()[0])
        if self._epoch is None:
            epoch += 1
            self._connection.execute("UPDATE writer SET epoch = ?", (epoch,))
        elif epoch != self._epoch:
            raise StoreError(
                f"another process has taken over writing the store {self._path}",
                fix="let one ingest process write a store; on a network filesystem locks do not hold",
            )
        return epoch

    def _forget(self) -> None:
        """Drop everything that an undone transaction may have left in memory."""
        self._next_node_id = None
        self._ids_of_names.clear()
        self._closed_nodes.clear()
        self._closed_edges.clear()

    def _node_id(self, graph_id: int, name: str) -> int:
        execute = self._connection.execute
        row = execute("SELECT id FROM nodes WHERE graph_id = ? AND name = ?", (graph_id, name)).fetchone()
        if row is not None:
            return int(row[0])
        if self._next_node_id is None:
            self._next_node_id = int(execute("SELECT ifnull(max(id), 0) + 1 FROM nodes").fetchone()[0])
        new_id = self._next_node_id
        if new_id > MAX_NODE_ID:
            raise StoreError(f"the store {self._path} is full: it holds {MAX_NODE_ID} nodes", fix="use another store")
        execute("INSERT INTO nodes (id, graph_id, name) VALUES (?, ?, ?)", (new_id, graph_id, name))
        self._next_node_id = new_id + 1
        return new_id

    def _unseen(self, keys: IntArray, known: KeySet, select: str) -> BoolArray:
        unseen = ~known.contains(keys)
        asked = keys[unseen]
        if len(asked):
            rows = self._connection.execute(f"{select} (SELECT value FROM json_each(?))", (json.dumps(asked.tolist()),))
            found = np.fromiter((row[0] for row in rows), dtype=np.int64)
            known.add(found)
            unseen[unseen] = ~np.isin(asked, found)
        return unseen
