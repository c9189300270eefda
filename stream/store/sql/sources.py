"""The part of a writer that knows sources, their partitions and the graphs that they feed."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import astuple
from operator import attrgetter

from infra.errors import StoreError
from stream.sources.base import ReadBefore
from stream.store.records import Feeder, GraphState, PartitionState, SourceState
from stream.store.sql.database import Database, Part, Row
from stream.windows import Clock, Hand

_STATE = "position, watermark_us, max_ts_us, events, late, duplicates, rejected, idle"
_GRAPH = (
    "id, name, step_us, first_step_us, next_step_us, edges_from_us, final_us,"
    " snapshots, events, total_nodes, total_edges, late"
)
_SAVED = [column for column in _GRAPH.split(", ") if column not in ("id", "name", "step_us")]
_saved = attrgetter(*_SAVED)


class Sources(Part):
    """Sources, partitions and graphs."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        # The partitions that this process reads, as (source id, name).
        self._claimed: set[tuple[int, str]] = set()

    def source(self, name: str) -> SourceState | None:
        """Return a source without partitions, None if there is none of that name."""
        rows = self.database.fetch("SELECT id, name, split_by_type, ended FROM sources WHERE name = ?", (name,))
        if not rows:
            return None
        source_id, _, split_by_type, ended = rows[0]
        return SourceState(source_id, name, split_by_type=bool(split_by_type), ended=bool(ended))

    def read_before(self, prefix: str) -> list[ReadBefore]:
        """Return the sources of one partition whose names begin so and that were read, at least in part."""
        rows = self.database.fetch(READ_BEFORE, (len(prefix), prefix))
        return [
            ReadBefore(name, bool(ended), json.loads(position), elsewhere=not ended and self._is_elsewhere(owner))
            for name, ended, position, owner in rows
        ]

    def lock_beginnings(self) -> None:
        """Let other processes that call this wait until the end of this transaction: see what they began before."""
        self.database.lock_beginnings()

    def add_source(self, name: str, *, split_by_type: bool) -> SourceState:
        """Add a source that was never read; if another process was first, return what it added."""
        rows = self.database.fetch(
            "INSERT INTO sources (name, split_by_type, ended) VALUES (?, ?, 0) ON CONFLICT (name) DO NOTHING"
            " RETURNING id",
            (name, int(split_by_type)),
        )
        if rows:
            return SourceState(rows[0][0], name, split_by_type)
        found = self.source(name)
        if found is None:
            raise StoreError(f"the source {name} was deleted from {self.database.name} while it was read")
        return found

    def end_source(self, source: SourceState) -> None:
        """Note that a bounded source was read to its end."""
        self.database.fetch("UPDATE sources SET ended = 1 WHERE id = ?", (source.id,))
        source.ended = True

    def _claim(self, source: SourceState, partitions: Sequence[str]) -> dict[str, PartitionState]:
        """Take over partitions, inside a transaction."""
        execute = self.database.fetch
        states = {}
        # In one order everywhere, so that two processes do not wait for each other.
        for name in sorted(partitions):
            rows = execute(
                "INSERT INTO partitions (source_id, name, owner, watermark_us, max_ts_us, events, late, duplicates,"
                " rejected, idle) VALUES (?, ?, ?, ?, ?, 0, 0, 0, 0, 0) ON CONFLICT (source_id, name)"
                # Whether nothing comes, only the process that listens can tell.
                f" DO UPDATE SET owner = excluded.owner, idle = 0 RETURNING {_STATE}",
                (source.id, name, self.database.number, *astuple(Clock())),
            )
            states[name] = _partition(rows[0])
        return states

    def _hold(self, names: Sequence[str]) -> set[tuple[int, str]]:
        """Take over partitions that nobody has, inside a transaction; return them as (source id, name)."""
        held = set()
        for name in sorted(names):
            for source_id, partition, owner in self.database.fetch(ONLY, (name,)):
                if self._is_elsewhere(owner):
                    raise StoreError(
                        "another process goes on with what was read of this log before",
                        place=self.database.name,
                        fix="wait until it is done, then run the same command again: what is new then is added",
                    )
                self.database.fetch(TAKE, (self.database.number, source_id, partition))
                held.add((source_id, partition))
        return held

    def _release(self, source: SourceState, partitions: Sequence[str]) -> None:
        """Give partitions up, inside a transaction; those that another process has taken stay its own."""
        for name in sorted(partitions):
            self.database.fetch(
                "UPDATE partitions SET owner = NULL WHERE source_id = ? AND name = ? AND owner = ?",
                (source.id, name, self.database.number),
            )

    def _check_claims(self) -> None:
        """Make sure that no other process has taken over a claimed partition, nor does so in this transaction."""
        if not self._claimed:
            return
        rows = self.database.fetch(OWNED, (self.database.number,))
        lost = self._claimed - {(source_id, name) for source_id, name in rows}
        if lost:
            names = ", ".join(repr(name) for _, name in sorted(lost)[:5])
            raise StoreError(
                f"another process has taken over partition {names}; this one writes nothing any more",
                place=self.database.name,
                fix="nothing is lost: the other process goes on from the last commit; start this one again to share",
            )

    def save_partitions(self, source: SourceState, partitions: Mapping[str, PartitionState]) -> None:
        """Write the states of claimed partitions."""
        states = list(partitions.values())
        self.database.upsert(
            "partitions",
            {
                "source_id": [source.id] * len(states),
                "name": list(partitions),
                "owner": [self.database.number] * len(states),
                "position": [None if s.position is None else json.dumps(s.position) for s in states],
                "watermark_us": [s.clock.watermark_us for s in states],
                "max_ts_us": [s.clock.max_ts_us for s in states],
                "events": [s.events for s in states],
                "late": [s.late for s in states],
                "duplicates": [s.duplicates for s in states],
                "rejected": [s.rejected for s in states],
                "idle": [int(s.idle) for s in states],
            },
            key=("source_id", "name"),
        )

    def totals(self, source: SourceState) -> PartitionState:
        """Return the counters of a source added up over all its partitions, whoever reads them.

        Its clock has the earliest watermark and the latest event time; it is idle where all partitions are.
        """
        states = [
            _partition(row)
            for row in self.database.fetch(f"SELECT {_STATE} FROM partitions WHERE source_id = ?", (source.id,))
        ]
        if not states:
            return PartitionState()
        return PartitionState(
            clock=Clock(min(s.clock.watermark_us for s in states), max(s.clock.max_ts_us for s in states)),
            events=sum(s.events for s in states),
            late=sum(s.late for s in states),
            duplicates=sum(s.duplicates for s in states),
            rejected=sum(s.rejected for s in states),
            idle=all(s.idle for s in states),
        )

    def hands(self, source: SourceState) -> dict[str, Hand]:
        """Return how far every partition of a source was read, whoever reads it, as the store has it.

        A partition is idle where the process that reads it said so and lives: nobody else can tell that nothing comes.
        """
        database = self.database
        return {
            name: Hand(
                Clock(watermark_us, max_ts_us),
                idle=bool(idle) and owner is not None and (owner == database.number or database.alive(owner)),
            )
            for name, watermark_us, max_ts_us, idle, owner in database.fetch(HANDS, (source.id,))
        }

    def graph(self, name: str) -> GraphState | None:
        """Return a graph, None if there is none of that name."""
        rows = self.database.fetch(f"SELECT {_GRAPH} FROM graphs WHERE name = ?", (name,))
        return GraphState(*rows[0]) if rows else None

    def graphs_of(self, source: SourceState, partitions: Collection[str] | None = None) -> list[GraphState]:
        """Return the graphs that (these partitions of) a source feeds, by name."""
        rows = self.database.fetch("SELECT graph_id, partition_name FROM feeders WHERE source_id = ?", (source.id,))
        ids = {graph_id for graph_id, partition in rows if partitions is None or partition in partitions}
        found = (self.database.fetch(f"SELECT {_GRAPH} FROM graphs WHERE id = ?", (graph_id,)) for graph_id in ids)
        return sorted((GraphState(*rows[0]) for rows in found if rows), key=lambda graph: graph.name)

    def feeders(self, graph: GraphState) -> list[Feeder]:
        """Return the partitions that have events of a graph, in the order in which they came.

        Inside a transaction, other processes that ask the same wait for its end, and see what it linked.
        """
        self.database.lock_graph(graph.id)
        rows = self.database.fetch(FEEDERS, (graph.id,))
        return [
            Feeder(source, bool(ended), partition, elsewhere=self._is_elsewhere(owner))
            for source, ended, partition, owner in rows
        ]

    def _is_elsewhere(self, owner: int | None) -> bool:
        database = self.database
        if owner is None or database.exclusive or owner == database.number:
            return False
        return database.alive(owner)

    def add_graph(self, name: str, step_us: int) -> GraphState:
        """Add an empty graph; one that nothing feeds yet is returned as it is, but with this step size.

        Raises:
            StoreError: another process has begun it since it was asked for.
        """
        rows = self.database.fetch(ADD_GRAPH, (name, step_us))
        if rows:
            return GraphState(rows[0][0], name, step_us)
        there = self.graph(name)
        graph = there and self._take_unfed(there.id, step_us)
        if graph is None:
            raise StoreError(
                f"graph {name!r} has events in partitions that two processes read",
                place=self.database.name,
                fix="key the records by graph, so that each graph has one partition, read all partitions in one"
                f" process, or let the processes share the graph: --split {name}",
            )
        return graph

    def _take_unfed(self, graph_id: int, step_us: int) -> GraphState | None:
        """Set the step size of a graph that nothing feeds and return it, locked; None where something does."""
        self.database.lock_graph(graph_id)
        rows = self.database.fetch(TAKE_UNFED, (step_us, graph_id))
        return GraphState(*rows[0]) if rows else None

    def noted_graphs(self, source: SourceState, mark: str) -> list[str]:
        """Return the names of the graphs that a source feeds and that are also linked to the source named `mark`."""
        return sorted({name for (name,) in self.database.fetch(NOTED, (mark, source.id))})

    def save_graphs(self, graphs: Iterable[GraphState]) -> None:
        """Write everything of graphs but id, name and step size."""
        for graph in graphs:
            self.database.fetch(SAVE_GRAPH, (*_saved(graph), graph.id))

    def link(self, source: SourceState, partition: str, graph: GraphState) -> None:
        """Note that a partition has events of a graph; nothing changes if that was noted before.

        Raises:
            StoreError: the graph has snapshots but no nodes, so that no event can be added to it.
        """
        if graph.total_nodes and not self.database.fetch("SELECT 1 FROM nodes WHERE graph_id = ? LIMIT 1", (graph.id,)):
            raise StoreError(
                f"graph {graph.name!r} was rebuilt from snapshots alone: which of its nodes are new cannot be told",
                place=self.database.name,
                fix="give these events another --graph, or ingest all of its events into a new store",
            )
        self.database.fetch(
            "INSERT INTO feeders (graph_id, source_id, partition_name) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            (graph.id, source.id, partition),
        )


ADD_GRAPH = (
    "INSERT INTO graphs (name, step_us, snapshots, events, total_nodes, total_edges, late)"
    " VALUES (?, ?, 0, 0, 0, 0, 0) ON CONFLICT (name) DO NOTHING RETURNING id"
)
# Whether a graph has begun: nothing feeds one that only late events have named, and readers do not see it.
BEGUN = "(first_step_us IS NOT NULL OR EXISTS (SELECT 1 FROM feeders WHERE feeders.graph_id = graphs.id))"
TAKE_UNFED = f"UPDATE graphs SET step_us = ? WHERE id = ? AND NOT {BEGUN} RETURNING {_GRAPH}"
SAVE_GRAPH = f"UPDATE graphs SET {', '.join(f'{column} = ?' for column in _SAVED)} WHERE id = ?"
READ_BEFORE = (
    "SELECT sources.name, ended, position, owner FROM sources JOIN partitions ON source_id = sources.id"
    " WHERE substr(sources.name, 1, ?) = ? AND partitions.name = '' AND position IS NOT NULL ORDER BY sources.id"
)
ONLY = (
    "SELECT source_id, partitions.name, owner FROM partitions JOIN sources ON sources.id = source_id"
    " WHERE sources.name = ? AND partitions.name = '' FOR UPDATE OF partitions"
)
TAKE = "UPDATE partitions SET owner = ? WHERE source_id = ? AND name = ?"
HANDS = "SELECT name, watermark_us, max_ts_us, idle, owner FROM partitions WHERE source_id = ?"
OWNED = "SELECT source_id, name FROM partitions WHERE owner = ? ORDER BY source_id, name FOR UPDATE"
NOTED = (
    "SELECT graphs.name FROM sources JOIN feeders AS mark ON mark.source_id = sources.id"
    " JOIN feeders AS fed ON fed.graph_id = mark.graph_id JOIN graphs ON graphs.id = mark.graph_id"
    " WHERE sources.name = ? AND fed.source_id = ?"
)
FEEDERS = (
    "SELECT sources.name, ended, partition_name, owner FROM feeders JOIN sources ON sources.id = feeders.source_id"
    " LEFT JOIN partitions ON partitions.source_id = feeders.source_id AND partitions.name = partition_name"
    " WHERE graph_id = ? ORDER BY feeders.id"
)


def _partition(row: Row) -> PartitionState:
    position, watermark_us, max_ts_us, events, late, duplicates, rejected, idle = row
    return PartitionState(
        clock=Clock(watermark_us, max_ts_us),
        position=None if position is None else json.loads(position),
        events=events,
        late=late,
        duplicates=duplicates,
        rejected=rejected,
        idle=bool(idle),
    )
