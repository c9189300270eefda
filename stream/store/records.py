"""What ingestion and the writing side of a store hand to each other."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from stream.events import IntArray
from stream.sources.base import Position
from stream.store.known import BoolArray
from stream.windows import Clock

# An edge is one number: the node id of src in the upper bits, that of dst in the lower.
PAIR_BITS = 32
DST_MASK = 2**PAIR_BITS - 1
MAX_NODE_ID = 2**31 - 1
_FEW_STEPS = 32
# From here on it pays to look at the steps first.
_MANY_ROWS = 1000


@dataclass(slots=True)
class GraphState:
    """One graph as the writer sees it: the row of `graphs`.

    Attributes:
        first_step_us: the first closed step; None while none is closed.
        next_step_us: the first step that is not closed.
        edges_from_us: the edges of closed steps before this are no longer kept; None while all are.
        final_us: no event can revise a step before this any more, but by a backfill.
        snapshots, events: of closed steps.
        total_nodes, total_edges: distinct ones in closed steps.
        late: events that were not counted because they came too late.
    """

    id: int
    name: str
    step_us: int
    first_step_us: int | None = None
    next_step_us: int | None = None
    edges_from_us: int | None = None
    final_us: int | None = None
    snapshots: int = 0
    events: int = 0
    total_nodes: int = 0
    total_edges: int = 0
    late: int = 0


@dataclass(slots=True)
class PartitionState:
    """How far one partition of a source was read.

    Attributes:
        clock: its event time.
        position: where to go on; None while nothing was read.
        events: its valid events, late ones and duplicates included.
        late, duplicates, rejected: events that came too late, that had been counted before, records that are no event.
        idle: steps do not wait for it.
    """

    clock: Clock = field(default_factory=Clock)
    position: Position | None = None
    events: int = 0
    late: int = 0
    duplicates: int = 0
    rejected: int = 0
    idle: bool = False


@dataclass(slots=True)
class SourceState:
    """A source, and the partitions of it that this process has claimed.

    Attributes:
        split_by_type: it also feeds a graph for each event type.
        ended: a bounded source was read to its end.
        announced: all partitions that there are, whoever reads them, as far as the source said.
    """

    id: int
    name: str
    split_by_type: bool
    ended: bool = False
    partitions: dict[str, PartitionState] = field(default_factory=dict)
    announced: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Feeder:
    """A partition of a source that has events of a graph.

    Attributes:
        elsewhere: another process has claimed the partition and has not released it.
    """

    source: str
    ended: bool
    partition: str
    elsewhere: bool


@dataclass(frozen=True, slots=True)
class EdgeRows:
    """Distinct edges of steps, as columns of shape [n]: events[i] events of node pair[i] in the step at step_us[i]."""

    graph_id: IntArray
    step_start_us: IntArray
    pair: IntArray
    events: IntArray

    def __len__(self) -> int:
        return len(self.pair)

    @classmethod
    def none(cls) -> "EdgeRows":
        """Return no rows."""
        none = np.zeros(0, dtype=np.int64)
        return cls(none, none, none, none)

    def where(self, mask: BoolArray | slice) -> "EdgeRows":
        """Return the rows that a mask [n] or a slice selects."""
        return EdgeRows(self.graph_id[mask], self.step_start_us[mask], self.pair[mask], self.events[mask])

    @classmethod
    def merge(cls, parts: Sequence["EdgeRows"]) -> "EdgeRows":
        """Return the rows of all parts in order of graph, step and pair, equal ones added up."""
        graph_id, step, pair, events = (
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("graph_id", "step_start_us", "pair", "events")
        )
        order = _order(graph_id, step, pair)
        graph_id, step, pair, events = graph_id[order], step[order], pair[order], events[order]
        first = np.ones(len(pair), dtype=np.bool_)
        first[1:] = (pair[1:] != pair[:-1]) | (step[1:] != step[:-1]) | (graph_id[1:] != graph_id[:-1])
        starts = np.flatnonzero(first)
        summed = np.add.reduceat(events, starts) if len(starts) else events
        return cls(graph_id[starts], step[starts], pair[starts], summed)


def _order(graph_id: IntArray, step: IntArray, pair: IntArray) -> IntArray:
    """Return the order by graph, step and pair; that of equal rows is any."""
    if len(pair) > _MANY_ROWS and (graph_id == graph_id[0]).all():
        steps = np.unique(step)
        if len(steps) <= _FEW_STEPS:
            # One sort by a single key for each step takes a third of the time of one by all keys.
            rows = [np.flatnonzero(step == one) for one in steps.tolist()]
            return np.concatenate([own[np.argsort(pair[own])] for own in rows])
    return np.lexsort((pair, step, graph_id))
