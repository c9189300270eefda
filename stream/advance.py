"""How far graphs go with a commit: which steps close, which are final, and what nothing can touch any more."""

import logging
from collections.abc import Iterable, Sequence

import numpy as np

from infra.steps import format_time, step_start_us
from stream.closing import Limits, Span, close_steps, too_early
from stream.events import IntArray
from stream.store.records import EdgeRows, GraphState
from stream.store.writer import StoreWriter
from stream.windows import NEVER_US

logger = logging.getLogger(__name__)

# Edges and ids are dropped when a share of what is kept has run out, not with every step.
_EXPIRY_SHARE = 16

# Graphs in order of their ids, each with a time.
Times = Sequence[tuple[GraphState, int]]


def close_due(writer: StoreWriter, closing: Times, rows: EdgeRows, limits: Limits, *, live: bool) -> int:
    """Close the steps that are due, keep the other events of `rows` open; return how many steps closed.

    Args:
        writer: the store, inside a transaction.
        closing: the graphs whose steps are closed here, and the time up to which each one's are.
        rows: new events of open steps.
        limits: what the store accepts of one graph.
        live: events come as they happen. A graph then begins behind those that alone would make too many empty steps:
            they stood open since an earlier commit, before anything told that their time is a stray one.

    Raises:
        InputError: there are too many empty steps.
        StoreError: a graph has too many nodes or edges.
    """
    # A step ends by a time exactly where it starts before the step that holds the time.
    ends = [(graph, step_start_us(closing_us, graph.step_us)) for graph, closing_us in closing]
    ends = [(graph, end_us) for graph, end_us in ends if graph.next_step_us is None or graph.next_step_us < end_us]
    # Any other graph's events stay open.
    graph_ids = np.array([graph.id for graph, _ in ends] + [2**62], dtype=np.int64)
    end_of = np.array([end_us for _, end_us in ends] + [NEVER_US], dtype=np.int64)
    place = np.searchsorted(graph_ids, rows.graph_id)
    closable = (graph_ids[place] == rows.graph_id) & (rows.step_start_us < end_of[place])
    writer.add_open(rows.where(~closable))
    rows = rows.where(closable)
    spans, parts = [], []
    for graph, end_us in ends:
        opened = writer.take_open(graph, end_us)
        begin_us = graph.next_step_us
        if begin_us is None and live:
            rows, opened = _without_strays(writer, graph, end_us, (rows, opened), limits.max_empty_steps)
        parts.append(opened)
        if begin_us is None:
            begin_us = _earliest(graph, (rows, opened))
        if begin_us is not None:
            spans.append(Span(graph, begin_us, end_us))
    return close_steps(writer, spans, EdgeRows.merge([rows, *parts]), limits) if spans else 0


def newly_final(graph: GraphState, final_us: int) -> int | None:
    """Return up to where the steps of a graph are final now, None where they were that far before.

    Args:
        graph: the graph.
        final_us: the time before which no event can come that counts.
    """
    if graph.next_step_us is None or graph.first_step_us is None:
        return None
    reached_us = min(step_start_us(final_us, graph.step_us), graph.next_step_us)
    before_us = max(graph.first_step_us, NEVER_US if graph.final_us is None else graph.final_us)
    return reached_us if reached_us > before_us else None


class Finality:
    """Notes up to where steps are final; drops what was kept of steps and ids that nothing can touch any more.

    Args:
        writer: the store.
        keep_edges_us: how long, in event time, the edges of closed steps are kept; None: for ever.
        dedup_window_us: within this event time an id counts once; 0: there are no ids to forget.
    """

    def __init__(self, writer: StoreWriter, *, keep_edges_us: int | None, dedup_window_us: int) -> None:
        self._writer = writer
        self._keep_edges_us = keep_edges_us
        self._dedup_window_us = dedup_window_us
        # Graph id to the time up to which its ids were forgotten last.
        self._ids_from_us: dict[int, int] = {}

    def note(self, finals: Times) -> None:
        """Take the time before which no event can come that counts, of each graph whose steps are closed here."""
        moved = []
        for graph, final_us in finals:
            reached_us = newly_final(graph, final_us)
            if reached_us is not None:
                graph.final_us = reached_us
                moved.append(graph)
            self._expire(graph)
        self._writer.save_graphs(moved)
        if self._dedup_window_us:
            self._forget_ids(finals)

    def _expire(self, graph: GraphState) -> None:
        if self._keep_edges_us is None or graph.final_us is None or graph.next_step_us is None:
            return
        before_us = min(graph.final_us, graph.next_step_us - self._keep_edges_us)
        kept_from_us = graph.first_step_us if graph.edges_from_us is None else graph.edges_from_us
        assert kept_from_us is not None
        if before_us - kept_from_us >= max(graph.step_us, self._keep_edges_us // _EXPIRY_SHARE):
            self._writer.expire(graph, edges_before_us=before_us)

    def _forget_ids(self, finals: Iterable[tuple[GraphState, int]]) -> None:
        due: dict[int, list[int]] = {}
        for graph, final_us in finals:
            # An event that still counts may be as early as the step that is not final yet.
            before_us = step_start_us(final_us, graph.step_us) - self._dedup_window_us
            if before_us - self._ids_from_us.get(graph.id, NEVER_US) >= self._dedup_window_us // _EXPIRY_SHARE:
                due.setdefault(before_us, []).append(graph.id)
        for before_us, graph_ids in due.items():
            self._writer.forget_ids(np.array(graph_ids, dtype=np.int64), before_us)
            self._ids_from_us |= dict.fromkeys(graph_ids, before_us)


def _earliest(graph: GraphState, parts: Iterable[EdgeRows]) -> int | None:
    steps = _steps(graph, parts)
    return int(steps.min()) if len(steps) else None


def _steps(graph: GraphState, parts: Iterable[EdgeRows]) -> IntArray:
    return np.concatenate([part.step_start_us[part.graph_id == graph.id] for part in parts])


def _without_strays(
    writer: StoreWriter, graph: GraphState, end_us: int, parts: tuple[EdgeRows, EdgeRows], max_empty_steps: int
) -> tuple[EdgeRows, EdgeRows]:
    """Return `parts` without a graph's events that would make too many empty steps; they count as late."""
    begin_us = too_early(_steps(graph, parts), end_us, graph.step_us, max_empty_steps)
    if begin_us is None:
        return parts
    stray = [(part.graph_id == graph.id) & (part.step_start_us < begin_us) for part in parts]
    n_events = sum(int(part.events[away].sum()) for part, away in zip(parts, stray, strict=True))
    logger.warning(
        "graph %r: %d events before %s are not counted: with them more than %d empty steps would close at once",
        graph.name,
        n_events,
        format_time(begin_us),
        max_empty_steps,
    )
    graph.late += n_events
    writer.save_graphs([graph])
    first, second = (part.where(~away) for part, away in zip(parts, stray, strict=True))
    return first, second
