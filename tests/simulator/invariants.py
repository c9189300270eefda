"""What must hold after every commit, whatever happens: read from the store itself."""

import json
from typing import Any

from tests.simulator.disk import SimulatedDatabase

_PARTITIONS = "SELECT name, owner, position, events, late, duplicates, rejected, watermark_us FROM partitions"
_GRAPHS = "SELECT id, next_step_us, final_us, snapshots, events, total_nodes, total_edges, late FROM graphs"
_SNAPSHOTS = "SELECT graph_id, step_start_us, revision, events, total_nodes, total_edges FROM snapshots"
_Row = tuple[Any, ...]


class BrokenInvariantError(AssertionError):
    """A commit did what must never happen; the text says what."""


class Invariants:
    """Compares the store after each commit with what it was before.

    Attributes:
        commits: how many there were.
        offsets: partition number to the offset that the store goes on at.
        waiting: changes that the outbox lists.
    """

    def __init__(self) -> None:
        self.commits = 0
        self.offsets: dict[int, int] = {}
        self.waiting = 0
        self._epoch = 0
        self._partitions: dict[str, _Row] = {}
        self._graphs: dict[int, _Row] = {}
        self._snapshots: list[_Row] = []
        # Graph to how many snapshots it has, and their events.
        self._sums: dict[int, list[int]] = {}

    def check(self, database: SimulatedDatabase) -> str:
        """Compare; return in words what the commit did.

        Raises:
            BrokenInvariantError: an invariant does not hold.
        """
        self.commits += 1
        before = dict(self.offsets)
        self._check_writer(database)
        self._check_partitions(database)
        self._check_graphs(database)
        revised = self._check_snapshots(database)
        self.waiting = int(database.peek("SELECT count(*) FROM outbox")[0][0])
        moved = {n: at for n, at in sorted(self.offsets.items()) if before.get(n) != at}
        return f"offsets {moved}, {len(self._snapshots)} snapshots, {revised} revised, outbox {self.waiting}"

    def _check_writer(self, database: SimulatedDatabase) -> None:
        if not database.exclusive:
            return
        epoch = int(database.peek("SELECT epoch FROM writer")[0][0])
        if epoch < self._epoch or database.number != epoch:
            raise BrokenInvariantError(
                f"a process that was given up committed: its epoch is {database.number}, the store's is {epoch}"
            )
        self._epoch = epoch

    def _check_partitions(self, database: SimulatedDatabase) -> None:
        for row in database.peek(_PARTITIONS):
            name, _, position, *counts = row
            before = self._partitions.get(name)
            if row == before:
                continue
            self._partitions[name] = row
            offset = 0 if position is None else int(json.loads(position)["offset"])
            number = int(name.rpartition("/")[2])
            if before is not None:
                if before[2:] != row[2:] and not database.exclusive and before[1] != database.number:
                    raise BrokenInvariantError(
                        f"writer {database.number} moved partition {name}, which writer {before[1]} had claimed"
                    )
                if offset < self.offsets.get(number, 0):
                    raise BrokenInvariantError(
                        f"the offset of partition {name} went back from {self.offsets[number]} to {offset}"
                    )
                if any(count < then for count, then in zip(counts, before[3:], strict=True)):
                    raise BrokenInvariantError(f"counters of partition {name} fell: {before[3:]} to {row[3:]}")
            self.offsets[number] = offset

    def _check_graphs(self, database: SimulatedDatabase) -> None:
        for row in database.peek(_GRAPHS):
            before = self._graphs.get(row[0])
            if before == row:
                continue
            if before is not None and any(
                then is not None and (now is None or now < then) for now, then in zip(row, before, strict=True)
            ):
                raise BrokenInvariantError(f"graph {row[0]} went back: {before} to {row}")
            self._graphs[row[0]] = row

    def _check_snapshots(self, database: SimulatedDatabase) -> int:
        rows = database.peek(_SNAPSHOTS)
        revised = self._note_snapshots(rows) if rows != self._snapshots else 0
        for graph_id in self._graphs.keys() | self._sums.keys():
            told, have = self._graphs.get(graph_id, ())[3:5], tuple(self._sums.get(graph_id, (0, 0)))
            if told != have:
                raise BrokenInvariantError(f"graph {graph_id} tells of {told} snapshots and events, and has {have}")
        return revised

    def _note_snapshots(self, rows: list[_Row]) -> int:
        """Compare snapshots that changed; return how many were revised."""
        revised = 0
        before_all, now_all = set(self._snapshots), set(rows)
        gone = {row[:2]: row for row in before_all - now_all}
        for row in now_all - before_all:
            graph_id, step_us, revision, events = row[:4]
            of_graph = self._sums.setdefault(graph_id, [0, 0])
            before = gone.pop(row[:2], None)
            if before is None:
                of_graph[0] += 1
                of_graph[1] += events
                continue
            of_graph[1] += events - before[3]
            revised += 1
            if revision <= before[2]:
                raise BrokenInvariantError(
                    f"graph {graph_id}, step {step_us}: {before} became {row} without a higher revision"
                )
        if gone:
            raise BrokenInvariantError(f"{len(gone)} snapshots are gone")
        self._snapshots = rows
        return revised
