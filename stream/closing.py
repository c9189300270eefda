"""Closing steps: from the distinct edges of steps to snapshots, the metrics that need the graph's past included."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from infra.errors import InputError, StoreError
from infra.steps import format_duration, format_time
from stream.events import IntArray
from stream.snapshots import step_metrics
from stream.store.known import BoolArray
from stream.store.records import DST_MASK, PAIR_BITS, EdgeRows, GraphState
from stream.store.writer import StoreWriter

# Bounds of working memory: snapshots and edges that are computed and written at once.
_CHUNK_STEPS = 8192
_CHUNK_EDGES = 131_072
# First sights from which on it pays to start a thread that writes them.
_THREAD_KEYS = 4000


@dataclass(frozen=True, slots=True)
class Limits:
    """What a store accepts of one graph.

    Attributes:
        max_nodes, max_edges: distinct nodes and edges since the beginning.
        max_empty_steps: empty steps that one commit may close; more mean a stray event time or too small a step.
    """

    max_nodes: int = 10_000_000
    max_edges: int = 100_000_000
    max_empty_steps: int = 5_000_000


@dataclass(frozen=True, slots=True)
class Span:
    """Steps of one graph that close together: those that start in `begin_us <= start < end_us`; at least one."""

    graph: GraphState
    begin_us: int
    end_us: int

    @property
    def n_steps(self) -> int:
        """How many steps."""
        return (self.end_us - self.begin_us) // self.graph.step_us


def close_steps(writer: StoreWriter, spans: Sequence[Span], rows: EdgeRows, limits: Limits) -> int:
    """Write the snapshots of `spans` and advance their graphs; return how many were written.

    Args:
        writer: the store, inside a transaction.
        spans: in order of graph ids, each beginning where its graph's closed steps end.
        rows: all events of these steps, in order of graph, step and pair.
        limits: what the store accepts.

    Raises:
        InputError: there are too many empty steps.
        StoreError: a graph has too many nodes or edges.
    """
    layout = _Layout.of(spans)
    at = layout.index(rows)
    _refuse_gaps(spans, layout, at, limits.max_empty_steps)

    src, dst = rows.pair >> PAIR_BITS, rows.pair & DST_MASK
    ends = np.stack((src, dst), axis=1).reshape(-1)
    node, node_at = _first_seen(ends, np.repeat(at, 2), writer.new_nodes)
    edge, edge_at = _first_seen(rows.pair, at, writer.new_edges)
    first_steps = (node, layout.step_start_us(node_at), edge, layout.step_start_us(edge_at))
    # Cumulative counts are differences of ranks among the sorted indices of first sights.
    node_at, edge_at = np.sort(node_at), np.sort(edge_at)
    nodes_before = np.array([span.graph.total_nodes for span in spans]) - np.searchsorted(node_at, layout.offset)
    edges_before = np.array([span.graph.total_edges for span in spans]) - np.searchsorted(edge_at, layout.offset)

    alone = len(node) + len(edge) < _THREAD_KEYS
    with _beside(lambda: writer.set_first_steps(*first_steps), alone=alone) as written:
        for begin, end in _chunks(at, layout.n_steps):
            index = np.arange(begin, end)
            low, high = np.searchsorted(at, (begin, end))
            metrics = step_metrics(
                at[low:high] - begin, src[low:high], dst[low:high], rows.events[low:high], end - begin
            )
            of_span = layout.span_of(index)
            for new, total, seen_at, before in (
                ("new_nodes", "total_nodes", node_at, nodes_before),
                ("new_edges", "total_edges", edge_at, edges_before),
            ):
                seen = np.searchsorted(seen_at, index, side="right")
                metrics[new] = (seen - np.searchsorted(seen_at, index)).astype(np.float64)
                metrics[total] = (seen + before[of_span]).astype(np.float64)
            written()
            edges = rows.where(slice(low, high))
            writer.add_snapshots(layout.graph_id[of_span], layout.step_start_us(index), metrics, edges)

    _advance(spans, layout, at, rows, node_at, edge_at)
    for span in spans:
        _refuse_growth(span.graph, limits)
    writer.save_graphs([span.graph for span in spans])
    return layout.n_steps


@contextmanager
def _beside(work: Callable[[], None], *, alone: bool) -> Iterator[Callable[[], None]]:
    """Run `work` in a thread of its own, or `alone` at once; yield what waits for its end and raises what it raised.

    Databases write while the metrics are computed. Nothing else may use the writer before the wait is over.
    """
    if alone:
        work()
        yield lambda: None
        return
    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(work)
        yield done.result
        done.result()


@dataclass(frozen=True, slots=True)
class _Layout:
    """The steps of all spans, numbered through: `offset` [S] is the number of each span's first step."""

    graph_id: IntArray
    begin_us: IntArray
    step_us: IntArray
    offset: IntArray
    n_steps: int

    @classmethod
    def of(cls, spans: Sequence[Span]) -> "_Layout":
        steps = np.array([span.n_steps for span in spans], dtype=np.int64)
        return cls(
            graph_id=np.array([span.graph.id for span in spans], dtype=np.int64),
            begin_us=np.array([span.begin_us for span in spans], dtype=np.int64),
            step_us=np.array([span.graph.step_us for span in spans], dtype=np.int64),
            offset=np.cumsum(steps) - steps,
            n_steps=int(steps.sum()),
        )

    def index(self, rows: EdgeRows) -> IntArray:
        """Return the number of the step of each row."""
        span = np.searchsorted(self.graph_id, rows.graph_id)
        return self.offset[span] + (rows.step_start_us - self.begin_us[span]) // self.step_us[span]

    def span_of(self, index: IntArray) -> IntArray:
        """Return which span each step number belongs to."""
        return np.searchsorted(self.offset, index, side="right") - 1

    def step_start_us(self, index: IntArray) -> IntArray:
        """Return the start of each step number."""
        span = self.span_of(index)
        return self.begin_us[span] + (index - self.offset[span]) * self.step_us[span]


def _first_seen(keys: IntArray, at: IntArray, unseen: Callable[[IntArray], BoolArray]) -> tuple[IntArray, IntArray]:
    """Return the distinct keys that are new to the store, and the number of the step where each comes first.

    Args:
        keys: [n].
        at: [n] the number of the step of each, ascending.
        unseen: tells which of distinct keys no closed step has seen.
    """
    distinct, first = np.unique(keys, return_index=True)
    new = unseen(distinct)
    return distinct[new], at[first[new]]


def _chunks(at: IntArray, n_steps: int) -> Iterator[tuple[int, int]]:
    """Cut step numbers into ranges of at most `_CHUNK_STEPS` steps and, but for a single step, `_CHUNK_EDGES` rows."""
    begin = 0
    while begin < n_steps:
        end = min(begin + _CHUNK_STEPS, n_steps)
        row = int(np.searchsorted(at, begin)) + _CHUNK_EDGES
        if row < len(at):
            end = max(begin + 1, min(end, int(at[row])))
        yield begin, end
        begin = end


def _advance(
    spans: Sequence[Span], layout: _Layout, at: IntArray, rows: EdgeRows, node_at: IntArray, edge_at: IntArray
) -> None:
    ends = np.append(layout.offset[1:], layout.n_steps)
    events = np.concatenate(([0], np.cumsum(rows.events)))

    def within(sorted_at: IntArray) -> tuple[IntArray, IntArray]:
        return np.searchsorted(sorted_at, layout.offset), np.searchsorted(sorted_at, ends)

    low, high = within(at)
    node_low, node_high = within(node_at)
    edge_low, edge_high = within(edge_at)
    for number, span in enumerate(spans):
        graph = span.graph
        graph.events += int(events[high[number]] - events[low[number]])
        graph.total_nodes += int(node_high[number] - node_low[number])
        graph.total_edges += int(edge_high[number] - edge_low[number])
        graph.snapshots += span.n_steps
        graph.first_step_us = span.begin_us if graph.first_step_us is None else graph.first_step_us
        graph.next_step_us = span.end_us


def too_early(step_start_us: IntArray, end_us: int, step_us: int, max_empty_steps: int) -> int | None:
    """Return from where on steps leave at most `max_empty_steps` empty up to `end_us`; None where all of them do.

    Args:
        step_start_us: [n] steps with events, in any order; those from `end_us` on do not matter.
        end_us: the end of the stretch; also returned where none of the steps fits.
        step_us: step size.
        max_empty_steps: the bound.
    """
    steps = np.unique(step_start_us[step_start_us < end_us])
    empty = (end_us - steps) // step_us - np.arange(len(steps), 0, -1)
    n_early = int(np.count_nonzero(empty > max_empty_steps))  # it falls from step to step
    if n_early == 0:
        return None
    return int(steps[n_early]) if n_early < len(steps) else end_us


def too_many_empty(graph: GraphState, n_empty: int, jump_us: tuple[int, int], max_empty_steps: int) -> InputError:
    """Return the error of steps of which too many are empty.

    Args:
        graph: the graph.
        n_empty: how many are empty.
        jump_us: the widest gap, from the first step without events up to the next one with some.
        max_empty_steps: the bound.
    """
    silent_us, next_us = jump_us
    return InputError(
        f"graph {graph.name!r}: steps of {format_duration(graph.step_us)} would make"
        f" {n_empty:,} empty snapshots at once,"
        f" {(next_us - silent_us) // graph.step_us:,} of them where event time jumps"
        f" from {format_time(silent_us)} to {format_time(next_us)}",
        fix="mend or remove a stray event time, take a larger --step,"
        f" or raise [ingest] max_empty_steps ({max_empty_steps:,})",
    )


def _refuse_gaps(spans: Sequence[Span], layout: _Layout, at: IntArray, max_empty_steps: int) -> None:
    active = np.unique(at)
    for number, span in enumerate(spans):
        if span.n_steps <= max_empty_steps:
            continue
        begin = int(layout.offset[number])
        own = active[(active >= begin) & (active < begin + span.n_steps)]
        if span.n_steps - len(own) <= max_empty_steps:
            continue
        borders = np.concatenate(([begin - 1], own, [begin + span.n_steps]))
        widest = int(np.argmax(np.diff(borders)))
        # The gap begins after the step before it and ends where the next event, or the source's time, stands.
        silent_us, next_us = (
            span.begin_us + (int(border) - begin) * span.graph.step_us
            for border in (borders[widest] + 1, borders[widest + 1])
        )
        raise too_many_empty(span.graph, span.n_steps - len(own), (silent_us, next_us), max_empty_steps)


def _refuse_growth(graph: GraphState, limits: Limits) -> None:
    for what, count, limit in (
        ("nodes", graph.total_nodes, limits.max_nodes),
        ("edges", graph.total_edges, limits.max_edges),
    ):
        if count > limit:
            raise StoreError(
                f"graph {graph.name!r} has {count:,} distinct {what}, more than the limit of {limit:,}",
                place=f"[metrics] max_{what}",
                fix=f"raise [metrics] max_{what} (the dictionary is kept on disk) and start again, which goes on from"
                " the last commit, or spread the events over several graphs",
            )
