"""The part of a transaction that concerns all of a source's graphs: whose turn it is, and which steps close.

Several processes may feed a split graph. Transactions that only add to its open steps go on side by side, for what they
add merges in any order. Those that close or revise steps, count what is late or ask for ids of events take turns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from infra.steps import step_start_us
from stream.advance import Finality, close_due, newly_final
from stream.events import EventBatch, IntArray
from stream.graphs import FedGraphs
from stream.intake import Verdict, rows_with_ids, turn_away
from stream.members import Members
from stream.sources.base import PartitionedBatch
from stream.store.records import EdgeRows, GraphState
from stream.store.writer import StoreWriter
from stream.windows import NEVER_US, Hand, closing_time_us, final_time_us

if TYPE_CHECKING:
    from stream.ingest import IngestOptions


@dataclass(frozen=True, slots=True)
class _Reached:
    """How far partitions are: steps close up to `closing_us`, and are final before `final_us`."""

    closing_us: int
    final_us: int

    def is_due(self, graph: GraphState, earliest_us: int | None = None) -> bool:
        """Return whether steps of a graph close, become final, or are revised by events, the earliest as given."""
        if graph.next_step_us is None:
            return self.closing_us > NEVER_US
        return (
            step_start_us(self.closing_us, graph.step_us) > graph.next_step_us
            or (earliest_us is not None and earliest_us < graph.next_step_us)
            or newly_final(graph, self.final_us) is not None
        )


class Turns:
    """Takes split graphs for a transaction, alone or together with others, and closes what is due in it.

    Args:
        writer: the store.
        options: of the run.
    """

    def __init__(self, writer: StoreWriter, options: "IngestOptions") -> None:
        self._writer = writer
        self._options = options
        self._finality = Finality(writer, keep_edges_us=options.keep_edges_us, dedup_window_us=options.dedup_window_us)
        # How far all partitions are, as they were when split graphs were taken.
        self._everyone: list[Hand] = []

    def take(
        self, graphs: FedGraphs, batch: PartitionedBatch, members: Sequence[Members], verdict: npt.NDArray[np.int8]
    ) -> None:
        """Take the split graphs for a batch, whose partitions have moved; nothing is changed in the transaction yet.

        Args:
            graphs: the graphs of the source.
            batch: the batch.
            members: its graphs.
            verdict: [n] on its events by time alone.

        Raises:
            StoreError: a graph has another step size.
        """
        options = self._options
        if not options.split_graphs:
            return
        split = [each for each in members if graphs.is_split(each.name)]
        earliest_us = {each.name: int(batch.events.ts_us[each.rows].min()) for each in split}
        self._everyone = graphs.take_split(
            split,
            batch.parts,
            alone=batch.end
            or options.backfill
            or bool(batch.after)
            or self._asks_for_turn(split, batch.events, verdict),
            is_due=lambda graph, hands: self._reached(hands).is_due(graph, earliest_us.get(graph.name)),
        )

    def _asks_for_turn(self, members: Sequence[Members], events: EventBatch, verdict: npt.NDArray[np.int8]) -> bool:
        """Return whether events of split graphs need them alone, whatever has become of the graphs."""
        by_id = self._options.dedup_window_us > 0
        return any(
            bool((verdict[each.rows] == Verdict.LATE).any())
            or (by_id and each.whole and len(rows_with_ids(events, each.rows)[0]) > 0)
            for each in members
        )

    def advance(self, graphs: FedGraphs, batch: PartitionedBatch, fresh: EdgeRows) -> tuple[int, int]:
        """Close what is due, keep the other events open, and note what is final.

        A graph of this process alone waits for its own partitions; a split one for all, whoever reads them.

        Args:
            graphs: the graphs of the source.
            batch: the batch.
            fresh: its events of open steps.

        Returns:
            The time up to which steps close, and how many closed.
        """
        own, closable = graphs.own_hands(), graphs.closable()
        closing_us, all_closing_us = self._closing_us(own, end=batch.end)
        split = {graph.id for graph in closable if graphs.is_split(graph.name)}
        if not graphs.was_alone:
            closable = [graph for graph in closable if graph.id not in split]
        closing = [(graph, all_closing_us if graph.id in split else closing_us) for graph in closable]
        snapshots = close_due(self._writer, closing, fresh, self._options.limits, live=self._options.live)
        if batch.complete:
            self._finality.note(closing)
        else:
            final_us, all_final_us = self._final_us(own), self._final_us(self._everyone)
            finals = [(graph, all_final_us if graph.id in split else final_us) for graph in closable]
            self._finality.note(
                [
                    (graph, self._final_us([*own, *unread]) if (unread := graphs.unread(graph)) else time_us)
                    for graph, time_us in finals
                ]
            )
        return all_closing_us if split else closing_us, snapshots

    def admit(
        self,
        graphs: FedGraphs,
        batch: PartitionedBatch,
        members: list[Members],
        step_us: IntArray,
        verdict: npt.NDArray[np.int8],
    ) -> list[Members]:
        """Set the verdicts of events that their graph cannot take; return the graphs of the batch without them.

        A log that is read once is refused as a whole instead.

        Args:
            graphs: the graphs of the source, taken for the batch.
            batch: the batch.
            members: its graphs.
            step_us: [n] the step of each event.
            verdict: [n] by time alone.
        """
        live, letters = self._options.live, batch.letter is not None and batch.names_graphs
        if not live and not letters:
            return members
        own_us, all_us = self._closing_us(graphs.own_hands(), end=batch.end)
        return turn_away(
            members,
            graphs,
            step_us,
            verdict,
            closing_us=(lambda name: all_us if graphs.is_split(name) else own_us) if live else None,
            rules=self._options.time_rules,
            letters=letters,
        )

    def _closing_us(self, own: Sequence[Hand], *, end: bool) -> tuple[int, int]:
        """Return up to when steps close of graphs of this process alone, and of split ones."""
        step_us, close_last = self._options.step_us, self._options.close_last
        return (
            closing_time_us(own, step_us, end=end, close_last=close_last),
            closing_time_us(self._everyone, step_us, end=end, close_last=close_last),
        )

    def is_overdue(self, graphs: FedGraphs) -> bool:
        """Return whether steps are due of which no transaction knew: two moved their partitions side by side."""
        if graphs.was_alone:
            return False
        reached = self._reached(graphs.all_hands())
        return any(reached.is_due(graph) for graph in graphs.closable() if graphs.is_split(graph.name))

    def _reached(self, hands: Sequence[Hand]) -> _Reached:
        return _Reached(closing_time_us(hands, self._options.step_us, end=False), self._final_us(hands))

    def _final_us(self, hands: Sequence[Hand]) -> int:
        return final_time_us(
            hands, allowed_lateness_us=self._options.allowed_lateness_us, idle_hold_us=self._options.idle_hold_us
        )
