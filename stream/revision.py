"""Revisions: events that count in steps which are closed already.

A revised step is computed again from all of its edges. What it changes elsewhere are only `new_*` and `total_*`: a node
or an edge is now first seen there, and not, or not only later, where it was first seen before.
"""

import numpy as np

from infra.schema import METRIC_INDEX, METRIC_NAMES
from stream.closing import too_many_empty
from stream.events import FloatArray, IntArray
from stream.snapshots import step_metrics
from stream.store.known import BoolArray
from stream.store.records import DST_MASK, PAIR_BITS, EdgeRows, GraphState
from stream.store.writer import Closed, StoreWriter
from stream.windows import NEVER_US

_EVENTS = METRIC_INDEX["events"]


def can_revise(writer: StoreWriter, graph: GraphState, step_start_us: IntArray) -> BoolArray:
    """Return which closed steps [n] of a graph can be revised: their edges are kept, or they have none."""
    kept = np.ones(len(step_start_us), dtype=np.bool_)
    if graph.edges_from_us is None:
        return kept
    old = step_start_us < graph.edges_from_us
    if old.any():
        steps = step_start_us[old]
        closed = writer.closed(graph, int(steps.min()))
        empty = closed.step_start_us[closed.values[:, _EVENTS] == 0]
        first_us = graph.first_step_us
        assert first_us is not None
        # An earlier batch may have brought the first events of an old step, and with them all of its edges.
        filled = writer.step_edges(graph, np.unique(steps)).step_start_us
        kept[old] = np.isin(steps, empty) | np.isin(steps, filled) | (steps < first_us)
    return kept


def revise(writer: StoreWriter, graph: GraphState, rows: EdgeRows, max_empty_steps: int) -> int:
    """Add events to closed steps of a graph; return how many snapshots were written anew.

    Args:
        writer: the store, inside a transaction.
        graph: a graph with a closed step; its counters and first step follow.
        rows: the events, merged; each step is before the graph's next step and `can_revise`.
        max_empty_steps: how many empty steps may come before the graph's first one.

    Raises:
        InputError: there are more of them.
    """
    assert graph.first_step_us is not None
    begin_us = int(rows.step_start_us.min())
    steps = np.unique(rows.step_start_us)
    _refuse_gap(graph, steps, max_empty_steps)
    table = _Table.of(writer, graph, begin_us)
    at = table.index(steps)
    before = table.values[at].copy()

    edges = EdgeRows.merge([writer.step_edges(graph, steps), rows])
    src, dst = edges.pair >> PAIR_BITS, edges.pair & DST_MASK
    number = np.searchsorted(steps, edges.step_start_us)
    for name, column in step_metrics(number, src, dst, edges.events, len(steps)).items():
        table.values[at, METRIC_INDEX[name]] = column

    added_src, added_dst = rows.pair >> PAIR_BITS, rows.pair & DST_MASK
    node, node_us = _earliest(np.concatenate((added_src, added_dst)), np.tile(rows.step_start_us, 2))
    pair, pair_us = _earliest(rows.pair, rows.step_start_us)
    node_was_us, pair_was_us = writer.first_steps(nodes=node, pairs=pair)
    node_moves, pair_moves = _moves(node_us, node_was_us), _moves(pair_us, pair_was_us)
    graph.total_nodes += table.move("nodes", node_us[node_moves], node_was_us[node_moves])
    graph.total_edges += table.move("edges", pair_us[pair_moves], pair_was_us[pair_moves])
    writer.set_first_steps(node[node_moves], node_us[node_moves], pair[pair_moves], pair_us[pair_moves])

    graph.events += int(table.values[at, _EVENTS].sum() - before[:, _EVENTS].sum())
    graph.snapshots += table.added
    graph.first_step_us = min(graph.first_step_us, begin_us)
    changed = table.changed()
    writer.revise(graph, Closed(table.step_start_us[changed], table.values[changed]), edges)
    return int(changed.sum())


def _refuse_gap(graph: GraphState, steps: IntArray, max_empty_steps: int) -> None:
    """Make sure that few of the steps are empty that come before a graph's first step, from the first of `steps` on."""
    first_us = graph.first_step_us
    assert first_us is not None
    added = np.append(steps[steps < first_us], first_us)
    silent = np.diff(added) // graph.step_us - 1
    n_empty = int(silent.sum())
    if n_empty > max_empty_steps:
        widest = int(np.argmax(silent))
        jump_us = int(added[widest]) + graph.step_us, int(added[widest + 1])
        raise too_many_empty(graph, n_empty, jump_us, max_empty_steps)


class _Table:
    """The closed steps of a graph from the first revised one on; those before the graph's first step are added."""

    def __init__(self, step_us: int, step_start_us: IntArray, values: FloatArray, added: int) -> None:
        self._step_us = step_us
        self.step_start_us = step_start_us
        self.values = values
        self.added = added
        self._before = values.copy()

    @classmethod
    def of(cls, writer: StoreWriter, graph: GraphState, begin_us: int) -> "_Table":
        assert graph.first_step_us is not None
        closed = writer.closed(graph, begin_us)
        missing = np.arange(begin_us, graph.first_step_us, graph.step_us, dtype=np.int64)
        return cls(
            graph.step_us,
            np.concatenate((missing, closed.step_start_us)),
            np.concatenate((np.zeros((len(missing), len(METRIC_NAMES))), closed.values)),
            len(missing),
        )

    def index(self, step_start_us: IntArray) -> IntArray:
        """Return the rows of steps."""
        at: IntArray = (step_start_us - self.step_start_us[0]) // self._step_us
        return at

    def move(self, what: str, to_us: IntArray, from_us: IntArray) -> int:
        """Let nodes or edges be first seen at `to_us`, not at `from_us` (`NEVER_US`: nowhere); return how many came."""
        size = len(self.values)
        arrived = np.bincount(self.index(to_us), minlength=size).astype(np.float64)
        known = from_us != NEVER_US
        left = np.bincount(self.index(from_us[known]), minlength=size).astype(np.float64)
        self.values[:, METRIC_INDEX[f"new_{what}"]] += arrived - left
        self.values[:, METRIC_INDEX[f"total_{what}"]] += np.cumsum(arrived - left)
        return int((~known).sum())

    def changed(self) -> BoolArray:
        """Return which rows differ from what the store has, the added ones included."""
        changed: BoolArray = (self.values != self._before).any(axis=1)
        changed[: self.added] = True
        return changed


def _earliest(keys: IntArray, step_start_us: IntArray) -> tuple[IntArray, IntArray]:
    """Return the distinct keys, and the first step of each."""
    order = np.lexsort((step_start_us, keys))
    distinct, first = np.unique(keys[order], return_index=True)
    return distinct, step_start_us[order][first]


def _moves(now_us: IntArray, was_us: IntArray) -> BoolArray:
    """Return which first steps change: it was never seen, or only later."""
    moves: BoolArray = (was_us == NEVER_US) | (now_us < was_us)
    return moves
