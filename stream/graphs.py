"""The graphs that a source feeds: which events belong to which, and whether it may feed them."""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from infra.errors import StoreError
from infra.steps import format_duration, format_time
from stream.events import EventBatch, IntArray
from stream.sources.base import Part
from stream.store.known import BoolArray
from stream.store.rebuild import refuse_rebuilt
from stream.store.records import Feeder, GraphState, SourceState
from stream.store.writer import StoreWriter
from stream.windows import Clock, Hand


@dataclass(frozen=True, slots=True)
class Members:
    """The rows of a batch that belong to one graph, ascending; `whole` unless it is a part of another by type."""

    name: str
    rows: IntArray
    whole: bool


def memberships(events: EventBatch, eligible: BoolArray, *, split_by_type: bool) -> list[Members]:
    """Return the graphs of the `eligible` [n] rows of a batch and these rows, in order of first appearance."""
    names = events.interner.names
    found: list[Members] = []
    rows = np.flatnonzero(eligible)
    for graph_code, of_eligible in _groups(events.graph[rows]):
        of_graph = rows[of_eligible]
        found.append(Members(names[graph_code], of_graph, whole=True))
        if split_by_type:
            found.extend(
                Members(f"{names[graph_code]}:{names[type_code]}", of_graph[of_type], whole=False)
                for type_code, of_type in _groups(events.type[of_graph])
                if names[type_code]
            )
    # Stable: a graph stands before the part of it that begins with the same event.
    return sorted(found, key=lambda members: int(members.rows[0]))


class FedGraphs:
    """The graphs that this process feeds from one source, as it last committed them.

    Args:
        writer: the store.
        source: the source.
        step_us: step size of the graphs.
        backfill: events may belong to closed steps, and to graphs that other sources feed.
    """

    def __init__(self, writer: StoreWriter, source: SourceState, *, step_us: int, backfill: bool) -> None:
        self._writer = writer
        self._source = source
        self._step_us = step_us
        self._backfill = backfill
        self._graphs: dict[str, GraphState] = {}
        self._links: set[tuple[str, str]] = set()
        # Graphs whose steps another source closes.
        self._guests: set[str] = set()
        # Graph to the partitions of the source that feed it and are not read here, as they were when it was looked up.
        self._unread: dict[str, list[Hand]] = {}

    def __iter__(self) -> Iterator[GraphState]:
        """Yield the graphs in the order of their ids."""
        return iter(sorted(self._graphs.values(), key=lambda graph: graph.id))

    def closable(self) -> list[GraphState]:
        """Return the graphs whose steps this source closes."""
        return [graph for graph in self if graph.name not in self._guests]

    def own_hands(self) -> list[Hand]:
        """Return how far the partitions are that this process reads."""
        return [Hand(state.clock, state.idle) for state in self._source.partitions.values()]

    def unread(self, graph: GraphState) -> list[Hand]:
        """Return how far the partitions are that feed a graph, too, and that this process does not read."""
        return self._unread.get(graph.name, [])

    def reload(self) -> None:
        """Read the graphs of the claimed partitions anew.

        Raises:
            StoreError: a graph has another step size, or comes from a partition that another process reads, too.
        """
        self._links.clear()
        self._guests.clear()
        self._unread.clear()
        self._graphs = {
            graph.name: graph for graph in self._writer.graphs_of(self._source, tuple(self._source.partitions))
        }
        for graph in self._graphs.values():
            self.check_step(graph)
            self._welcome(graph, self._writer.feeders(graph))

    def get(self, members: Members, parts: Collection[Part], *, first_us: int, first_is_late: bool) -> GraphState:
        """Return the graph of `members`; at first contact make sure that this source may feed it.

        Args:
            members: the graph's rows in the batch.
            parts: the partitions of the batch.
            first_us: the step of the graph's first row.
            first_is_late: whether that event is late.

        Raises:
            StoreError: it may not.
        """
        graph = self._graphs.get(members.name)
        if graph is None:
            graph = self._contact(members.name, first_us, is_late=first_is_late)
            self._graphs[members.name] = graph
        for part in parts:
            link = (members.name, part.partition)
            if link not in self._links and _has_rows(members.rows, part):
                self._welcome(graph, self._writer.feeders(graph))
                self._writer.link(self._source, part.partition, graph)
                self._links.add(link)
        return graph

    def _contact(self, name: str, first_us: int, *, is_late: bool) -> GraphState:
        graph = self._writer.graph(name)
        if graph is None:
            return self._writer.add_graph(name, self._step_us)
        self.check_step(graph)
        feeders = self._writer.feeders(graph)
        if self._backfill:
            return graph
        others = [feeder for feeder in feeders if feeder.source != self._source.name]
        for feeder in others:
            if not feeder.ended:
                raise StoreError(
                    f"graph {graph.name!r} is still being filled from {short(feeder.source)},"
                    " which was not read to its end",
                    fix="go on with that source first, give these events another --graph, or, if they are older ones"
                    " that are missing there, add them with --backfill",
                )
        if others and graph.next_step_us is not None and first_us < graph.next_step_us and not is_late:
            raise StoreError(
                f"graph {graph.name!r} is closed up to {format_time(graph.next_step_us)}, and this source begins"
                f" before that, in the step of {format_time(first_us)}; it was filled from {short(others[-1].source)}",
                fix="give another --graph, ingest all files of the graph together, as a folder, into a new store, or,"
                " if its events are missing in the graph, add them with --backfill",
            )
        return graph

    def _welcome(self, graph: GraphState, feeders: Collection[Feeder]) -> None:
        """Make sure that the graph takes events of this process, and note whether another source closes it."""
        refuse_rebuilt(graph.name, feeders)
        for feeder in feeders:
            if feeder.elsewhere:
                raise StoreError(
                    f"events of graph {graph.name!r} come to two processes: another one reads"
                    f" {short(feeder.source)}, partition {feeder.partition or '0'}",
                    fix="let producers use the graph as the key, so that all of its events are in one partition, or let"
                    " one process read all partitions; for a backfill, stop the other process meanwhile",
                )
        if self._backfill and any(not f.ended and f.source != self._source.name for f in feeders):
            self._guests.add(graph.name)
        self._unread[graph.name] = self._not_read_here(
            feeder.partition for feeder in feeders if feeder.source == self._source.name
        )

    def _not_read_here(self, partitions: Iterable[str]) -> list[Hand]:
        """Return how far those of the source's partitions are that this process does not read.

        One that the source no longer has is not waited for.
        """
        missing = [name for name in partitions if name not in self._source.partitions]
        stored = self._writer.hands(self._source) if missing else {}
        hands = [(name, stored.get(name, Hand(Clock(), idle=False))) for name in missing]
        return [Hand(clock, idle or name not in self._source.announced) for name, (clock, idle) in hands]

    def check_step(self, graph: GraphState) -> None:
        """Make sure that a graph has the step size of this run.

        Raises:
            StoreError: it has another.
        """
        if graph.step_us != self._step_us:
            raise StoreError(
                f"graph {graph.name!r} is kept in steps of {format_duration(graph.step_us)},"
                f" not of {format_duration(self._step_us)}",
                fix=f"use --step {format_duration(graph.step_us)}, or another --graph or --store for the other step"
                " size",
            )


def short(source_name: str) -> str:
    """Return a source's name with digests cut to what a person can compare."""
    return re.sub(r"[0-9a-f]{64}", lambda digest: digest[0][:12], source_name)


def _has_rows(rows: IntArray, part: Part) -> bool:
    at = int(np.searchsorted(rows, part.begin))
    return at < len(rows) and int(rows[at]) < part.end


def _groups(codes: IntArray) -> list[tuple[int, IntArray]]:
    """Return each distinct code and the indices where it stands, ascending."""
    if not len(codes):
        return []
    if int(codes.min()) == int(codes.max()):
        return [(int(codes[0]), np.arange(len(codes)))]
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order])) + 1
    return [(int(codes[group[0]]), group) for group in np.split(order, starts)]
