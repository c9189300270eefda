"""Which events of a batch count in each graph that they belong to, and the edges that they make there."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from stream.events import EventBatch, IntArray, Interner
from stream.graphs import FedGraphs
from stream.intake import Verdict, is_too_late, rows_with_ids
from stream.members import Members
from stream.revision import can_revise
from stream.sources.base import PartitionedBatch
from stream.store.records import PAIR_BITS, EdgeRows, GraphState
from stream.store.writer import StoreWriter
from stream.windows import NEVER_US


class EdgeMaker:
    """Makes the edges of one batch after another, each inside a transaction of its own.

    Args:
        writer: of the store.
        dedup_window_us: within this event time an id counts once; 0: ids do not matter.
    """

    def __init__(self, writer: StoreWriter, dedup_window_us: int) -> None:
        self._writer = writer
        self._dedup_window_us = dedup_window_us
        self._interner: Interner | None = None

    def of(
        self,
        batch: PartitionedBatch,
        fed_graphs: FedGraphs,
        of_graphs: Sequence[Members],
        step_us: IntArray,
        verdict: npt.NDArray[np.int8],
        *,
        backfill: bool,
    ) -> tuple[EdgeRows, list[tuple[GraphState, EdgeRows]]]:
        """Return the edges of the events that count: those of open steps, and those that revise, by graph.

        Args:
            batch: the events.
            fed_graphs: the graphs of their source; they are told what feeds them.
            of_graphs: the rows of the batch that belong to each graph.
            step_us: [n] the start of each event's step.
            verdict: [n] what is known; those of duplicates and of events whose step cannot be revised are set.
            backfill: whether events may belong to steps that are final.

        Raises:
            StoreError: the store failed, or a graph contradicts the call.
        """
        events = batch.events
        if events.interner is not self._interner:
            self._writer.forget_codes()
            self._interner = events.interner
        none = np.zeros(0, dtype=np.int64)
        graph_ids, chosen, revising = [none], [none], [none.astype(np.bool_)]
        graphs: dict[int, GraphState] = {}
        fed = [
            fed_graphs.get(
                members.name,
                first_us=int(step_us[members.rows[0]]),
                first_is_late=bool(verdict[members.rows[0]] == Verdict.LATE),
            )
            for members in of_graphs
        ]
        whole = [(graph, members.rows) for graph, members in zip(fed, of_graphs, strict=True) if members.whole]
        for graph, rows in whole:
            verdict[rows] = self._judge_steps(graph, step_us[rows], verdict[rows], backfill)
        if self._dedup_window_us:
            self._judge_ids(whole, events, verdict)
        for graph, members in zip(fed, of_graphs, strict=True):
            own = verdict[members.rows]
            if not members.whole:
                own = self._judge_steps(graph, step_us[members.rows], own, backfill)
            late = int(is_too_late(own).sum())
            if late:
                graph.late += late
                self._writer.save_graphs([graph])
            rows = members.rows[own == Verdict.COUNTS]
            graphs[graph.id] = graph
            chosen.append(rows)
            graph_ids.append(np.full(len(rows), graph.id, dtype=np.int64))
            next_us = graph.next_step_us
            revising.append(step_us[rows] < (NEVER_US if next_us is None else next_us))
        fed_graphs.feed(zip(fed, of_graphs, chosen[1:], strict=True), batch.parts)
        graph_id, at, revises = np.concatenate(graph_ids), np.concatenate(chosen), np.concatenate(revising)
        if len(graphs) > 1:
            # Node ids follow the log, whatever the graphs' order in the batch.
            order = np.argsort(at, kind="stable")
            graph_id, at, revises = graph_id[order], at[order], revises[order]
        edges = EdgeRows(graph_id, step_us[at], self._pairs(events, at, graph_id), np.ones(len(at), dtype=np.int64))
        if not revises.any():
            return EdgeRows.merge([edges]), []
        closed = EdgeRows.merge([edges.where(revises)])
        return EdgeRows.merge([edges.where(~revises)]), [
            (graph, closed.where(closed.graph_id == key))
            for key, graph in sorted(graphs.items())
            if (closed.graph_id == key).any()
        ]

    def _pairs(self, events: EventBatch, at: IntArray, graph_id: IntArray) -> IntArray:
        """Return the edges [k] of the events in rows `at` [k] as numbers; nodes that are new to a graph get theirs."""
        ends = np.stack((events.src[at], events.dst[at]), axis=1).reshape(-1)
        node = self._writer.node_ids(np.repeat(graph_id, 2), ends, events.interner.names).reshape(-1, 2)
        return (node[:, 0] << PAIR_BITS) | node[:, 1]

    def _judge_steps(
        self, graph: GraphState, step_us: IntArray, verdict: npt.NDArray[np.int8], backfill: bool
    ) -> npt.NDArray[np.int8]:
        """Return the verdicts [n] of a graph's events, those included that only its closed steps can tell.

        Args:
            graph: the graph.
            step_us: [n] the start of each event's step.
            verdict: [n] what is known; it may be changed.
            backfill: whether events may belong to steps that are final.
        """
        next_us = NEVER_US if graph.next_step_us is None else graph.next_step_us
        closed = np.flatnonzero((verdict == Verdict.COUNTS) & (step_us < next_us))
        if len(closed):
            steps = step_us[closed]
            if graph.final_us is not None and not backfill:
                final = steps < graph.final_us
                verdict[closed[final]] = Verdict.FINAL
                closed, steps = closed[~final], steps[~final]
            verdict[closed[~can_revise(self._writer, graph, steps)]] = Verdict.EDGES_GONE
        return verdict

    def _judge_ids(
        self, graphs: Sequence[tuple[GraphState, IntArray]], events: EventBatch, verdict: npt.NDArray[np.int8]
    ) -> None:
        """Set the verdicts of duplicates among the rows of graphs that count so far."""
        rows: list[IntArray] = []
        ids: list[str] = []
        graph_id: list[IntArray] = []
        for graph, of_graph in graphs:
            own, names = rows_with_ids(events, of_graph[verdict[of_graph] == Verdict.COUNTS])
            rows.append(own)
            ids += names
            graph_id.append(np.full(len(own), graph.id, dtype=np.int64))
        if not ids:
            return
        at = np.concatenate(rows)
        seen = self._writer.remember_ids(
            np.concatenate(graph_id), ids, events.ts_us[at], window_us=self._dedup_window_us
        )
        verdict[at[seen]] = Verdict.DUPLICATE
