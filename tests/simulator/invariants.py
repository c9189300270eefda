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
        self._snapshots: dict[tuple[int, int], _Row] = {}

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
        for name, owner, position, *counts in database.peek(_PARTITIONS):
            before = self._partitions.get(name)
            self._partitions[name] = (owner, position, *counts)
            offset = 0 if position is None else int(json.loads(position)["offset"])
            number = int(name.rpartition("/")[2])
            if before is not None:
                if before[1:] != (position, *counts) and not database.exclusive and before[0] != database.number:
                    raise BrokenInvariantError(
                        f"writer {database.number} moved partition {name}, which writer {before[0]} had claimed"
                    )
                if offset < self.offsets.get(number, 0):
                    raise BrokenInvariantError(
                        f"the offset of partition {name} went back from {self.offsets[number]} to {offset}"
                    )
                if any(now < then for now, then in zip(counts, before[2:], strict=True)):
                    raise BrokenInvariantError(f"counters of partition {name} fell: {before[2:]} to {tuple(counts)}")
            self.offsets[number] = offset

    def _check_graphs(self, database: SimulatedDatabase) -> None:
        for graph_id, *row in database.peek(_GRAPHS):
            before = self._graphs.get(graph_id)
            if before is not None and any(
                then is not None and (now is None or now < then) for now, then in zip(row, before, strict=True)
            ):
                raise BrokenInvariantError(f"graph {graph_id} went back: {before} to {tuple(row)}")
            self._graphs[graph_id] = tuple(row)

    def _check_snapshots(self, database: SimulatedDatabase) -> int:
        held, revised = self._snapshots, 0
        sums: dict[int, list[int]] = {graph_id: [0, 0] for graph_id in self._graphs}
        rows = database.peek(_SNAPSHOTS)
        for graph_id, step_us, *row in rows:
            before = held.get((graph_id, step_us))
            of_graph = sums[graph_id]
            of_graph[0] += 1
            of_graph[1] += row[1]
            if before == row:
                continue
            if before is not None:
                revised += 1
                if row[0] <= before[0]:
                    raise BrokenInvariantError(
                        f"graph {graph_id}, step {step_us}: {before} became {row} without a higher revision"
                    )
            held[graph_id, step_us] = row
        if len(rows) != len(held):
            raise BrokenInvariantError(f"{len(held) - len(rows)} snapshots are gone")
        for graph_id, (snapshots, events) in sums.items():
            told = self._graphs[graph_id][2:4]
            if told != (snapshots, events):
                raise BrokenInvariantError(
                    f"graph {graph_id} tells of {told} snapshots and events, and has {(snapshots, events)}"
                )
        return revised
