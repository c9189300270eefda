"""The graphs that a source feeds: whether it may feed them, and as what it knows them."""

import logging
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np

from infra.errors import StoreError
from infra.steps import format_duration, format_time
from stream.events import IntArray
from stream.members import TYPE_MARK, Members
from stream.sources.base import Part
from stream.store.known import BoolArray
from stream.store.rebuild import REBUILT, refuse_rebuilt
from stream.store.records import Feeder, GraphState, SourceState
from stream.store.split import SPLIT, is_noted, note_split
from stream.store.writer import StoreWriter
from stream.windows import NEVER_US, Clock, Hand

logger = logging.getLogger(__name__)


class BeginsBeforeError(StoreError):
    """A source begins before the end of the closed steps of a graph that another one filled."""


class FedGraphs:
    """The graphs that this process feeds from one source, as it last committed them.

    Args:
        writer: the store.
        source: the source.
        step_us: step size of the graphs.
        split: the graphs that other processes of the source may feed, too, and with them those of their types.
        backfill: events may belong to closed steps, and to graphs that other sources feed.

    Attributes:
        backfill: see above.
        was_alone: split graphs were last taken alone, so that nobody else changed them meanwhile.
    """

    def __init__(
        self, writer: StoreWriter, source: SourceState, *, step_us: int, split: Collection[str], backfill: bool
    ) -> None:
        self._writer = writer
        self._split = split
        self._source = source
        self._step_us = step_us
        self.backfill = backfill
        self.was_alone = True
        self._graphs: dict[str, GraphState] = {}
        self._links: set[tuple[str, str]] = set()
        # Graphs of others of which it was told that their events are turned away.
        self._told: set[str] = set()
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

    def is_split(self, graph: str) -> bool:
        """Return whether other processes may feed a graph, too."""
        return graph.partition(TYPE_MARK)[0] in self._split

    def take_split(
        self,
        members: Collection[Members],
        parts: Collection[Part],
        *,
        alone: bool,
        is_due: Callable[[GraphState, Sequence[Hand]], bool],
    ) -> list[Hand]:
        """Take the split graphs for this transaction: they are now as other processes left them, and stay so.

        All that the source feeds are taken, whichever of its partitions they come from: any process that moves a
        partition may close their steps. They are shared with other transactions that only add to open steps, if this is
        one.

        Args:
            members: the split graphs of a batch.
            parts: the partitions of the batch.
            alone: the batch changes more than open steps.
            is_due: tells whether the transaction does so for a graph, as it is now, with all partitions where they are.

        Returns:
            How far all partitions of the source are, whoever reads them.

        Raises:
            StoreError: a graph has another step size.
        """
        fed = [name for name in self._writer.noted_graphs(self._source, SPLIT) if self.is_split(name)]
        names = sorted({*fed, *(each.name for each in members)})
        alone = alone or any(
            (each.name, part.partition) not in self._links
            for each in members
            for part in parts
            if _has_rows(each.rows, part)
        )
        if not alone and names == fed:
            graphs = self._writer.share(names, self._step_us, alone=False)
            hands = self.all_hands()
            alone = any(is_due(graph, hands) for graph in graphs)
            if alone:
                self._writer.unshare()
        else:
            alone = True
        self.was_alone = alone
        if alone:
            graphs = self._writer.share(names, self._step_us, alone=True)
            hands = self.all_hands()
        for graph in graphs:
            self.check_step(graph)
            if graph.name in fed or graph.name in self._graphs:
                self._graphs[graph.name] = graph
        return hands

    def all_hands(self) -> list[Hand]:
        """Return how far all partitions of the source are, whoever reads them."""
        stored = self._writer.hands(self._source)
        return [*self.own_hands(), *self._elsewhere({*self._source.announced, *stored}, stored)]

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
        # Split graphs are read in each transaction.
        self._graphs = {
            graph.name: graph
            for graph in self._writer.graphs_of(self._source, tuple(self._source.partitions))
            if not self.is_split(graph.name)
        }
        for graph in self._graphs.values():
            self.check_step(graph)
            self._welcome(graph, self._writer.feeders(graph))

    def has(self, name: str) -> bool:
        """Return whether this process feeds a graph already."""
        return name in self._graphs

    def find(self, name: str) -> GraphState | None:
        """Return a graph as it is now, whoever feeds it; None if no event has begun one of that name."""
        graph = self._graphs.get(name) or self._writer.graph(name)
        return graph if graph is not None and self._has_begun(graph) else None

    def barred(self, graph: GraphState, step_us: IntArray, late: BoolArray) -> int:
        """Return how many of the first rows of a graph that it has not fed so far this source may not feed to it.

        Where another source fills the graph, these are all; where one has filled it, those before the first event that
        goes on behind its steps. With that one it becomes a graph of this source.

        Args:
            graph: the graph.
            step_us: [n] the step of each of its rows.
            late: [n] whether they are late.
        """
        if self.backfill:
            return 0
        feeders = self._writer.feeders(graph)
        others = self._others(feeders)
        known = self._is_fed(feeders)
        if not others or (known and all(feeder.ended for feeder in others)):
            return 0
        closed = any(not feeder.ended or feeder.source.startswith(REBUILT) for feeder in others)
        if closed or graph.step_us != self._step_us:
            barred = len(step_us)
        else:
            next_us = NEVER_US if graph.next_step_us is None else graph.next_step_us
            goes_on = np.flatnonzero((step_us >= next_us) & ~late)
            barred = int(goes_on[0]) if len(goes_on) else len(step_us)
        if barred and graph.name not in self._told:
            self._told.add(graph.name)
            logger.warning(
                "graph %r is filled from %s: events for it from %s are turned away",
                graph.name,
                short(others[-1].source),
                short(self._source.name),
            )
        return barred

    def _others(self, feeders: Collection[Feeder]) -> list[Feeder]:
        return [feeder for feeder in feeders if feeder.source not in (self._source.name, SPLIT)]

    def _is_fed(self, feeders: Collection[Feeder]) -> bool:
        """Tell whether any process feeds a graph from this source."""
        return any(feeder.source == self._source.name for feeder in feeders)

    def get(self, name: str, *, first_us: int, first_is_late: bool) -> GraphState:
        """Return a graph; at first contact make sure that this source may feed it.

        One that there is not is added, for its late events are counted; nobody sees it before `feed` has begun it.

        Args:
            name: of the graph.
            first_us: the step of the graph's first row in the batch.
            first_is_late: whether that event is late.

        Raises:
            StoreError: it may not.
        """
        return self._graphs.get(name) or self._contact(name, first_us, is_late=first_is_late)

    def feed(self, fed: Iterable[tuple[GraphState, Members, IntArray]], parts: Collection[Part]) -> None:
        """Note that this source feeds graphs; one that there was not begins with its first event that counts.

        Args:
            fed: the graphs of a batch, their rows, and those of the rows that count.
            parts: the partitions of the batch.

        Raises:
            StoreError: the source may not feed one of them.
        """
        # In the order in which they begin, whatever the cut into batches.
        for graph, members, counting in sorted(fed, key=_begins_at):
            if not len(counting) and not self._has_begun(graph):
                continue
            self._graphs[members.name] = graph
            for part in parts:
                link = (members.name, part.partition)
                if link not in self._links and _has_rows(members.rows, part):
                    self._welcome(graph, self._writer.feeders(graph))
                    self._writer.link(self._source, part.partition, graph)
                    self._links.add(link)

    def take_over(self, sources: Iterable[SourceState], partitions: Collection[str]) -> None:
        """Feed the graphs that other sources feed, from some partitions, so that their steps close with this source's.

        Graphs are left out that are still filled, or that another process reads.

        Args:
            sources: those others, which were read to their ends.
            partitions: of this source.

        Raises:
            StoreError: a graph has another step size.
        """
        found = {graph.id: graph for source in sources for graph in self._writer.graphs_of(source)}
        for _, seen in sorted(found.items()):
            feeders = [] if self.has(seen.name) else self._writer.feeders(seen)
            if not feeders or any(not each.ended or each.elsewhere for each in self._others(feeders)):
                continue
            # As it is now that nobody else changes it.
            graph = self._writer.graph(seen.name) or seen
            self.check_step(graph)
            self._graphs[graph.name] = graph
            self._welcome(graph, feeders)
            for partition in partitions:
                self._writer.link(self._source, partition, graph)
                self._links.add((graph.name, partition))

    def _has_begun(self, graph: GraphState) -> bool:
        """Tell whether an event of a graph has counted."""
        return self.has(graph.name) or graph.first_step_us is not None or bool(self._writer.feeders(graph))

    def _contact(self, name: str, first_us: int, *, is_late: bool) -> GraphState:
        graph = self._writer.graph(name)
        if graph is None or not self._has_begun(graph):
            return self._writer.add_graph(name, self._step_us)
        self.check_step(graph)
        feeders = self._writer.feeders(graph)
        if self.backfill:
            return graph
        others = self._others(feeders)
        for feeder in others:
            if not feeder.ended:
                raise StoreError(
                    f"graph {graph.name!r} is still being filled from {short(feeder.source)},"
                    " which was not read to its end",
                    fix="go on with that source first, give these events another --graph, or, if they are older ones"
                    " that are missing there, add them with --backfill",
                )
        begins = bool(others) and not self._is_fed(feeders)
        if begins and graph.next_step_us is not None and first_us < graph.next_step_us and not is_late:
            raise BeginsBeforeError(
                f"graph {graph.name!r} is closed up to {format_time(graph.next_step_us)}, and this source begins"
                f" before that, in the step of {format_time(first_us)}; it was filled from {short(others[-1].source)}",
                fix="give another --graph, ingest all files of the graph together, as a folder, into a new store, or,"
                " if none of its events is in the graph yet (a file that grew holds those of before), add them with"
                " --backfill",
            )
        return graph

    def _welcome(self, graph: GraphState, feeders: Collection[Feeder]) -> None:
        """Make sure that the graph takes events of this process, and note whether another source closes it."""
        refuse_rebuilt(graph.name, feeders)
        is_split, is_noted_so = self.is_split(graph.name), is_noted(feeders)
        if is_noted_so and not is_split:
            raise StoreError(
                f"graph {graph.name!r} is split: several processes may feed it, and this one was started without that",
                fix=f"use --split {graph.name}, or name it in [ingest] split_graphs, for each process that feeds it",
            )
        for feeder in feeders:
            if feeder.elsewhere and not (is_noted_so and feeder.source == self._source.name):
                raise _two_processes(graph, feeder, is_split=is_split)
        if is_split and not is_noted_so:
            note_split(self._writer, graph)
        if self.backfill and any(not f.ended and f.source not in (self._source.name, SPLIT) for f in feeders):
            self._guests.add(graph.name)
        if is_split:
            return  # it waits for all partitions
        missing = {f.partition for f in feeders if f.source == self._source.name} - self._source.partitions.keys()
        self._unread[graph.name] = self._elsewhere(missing, self._writer.hands(self._source)) if missing else []

    def _elsewhere(self, partitions: Collection[str], stored: Mapping[str, Hand]) -> list[Hand]:
        """Return how far those of the source's partitions are that this process does not read.

        One that the source no longer has is not waited for.
        """
        away = [(name, stored.get(name, Hand(Clock(), idle=False))) for name in sorted(partitions)]
        return [
            Hand(clock, idle or name not in self._source.announced)
            for name, (clock, idle) in away
            if name not in self._source.partitions
        ]

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


def check_split(source: SourceState, *, split_by_type: bool) -> None:
    """Make sure that a source is read as it was before.

    Raises:
        StoreError: it was read with a graph for each type, and now is without, or the other way round.
    """
    if source.split_by_type == split_by_type:
        return
    done, fix = ("with", "add") if source.split_by_type else ("without", "leave out")
    raise StoreError(
        f"{short(source.name)} was ingested {done} --split-by-type before",
        fix=f"{fix} --split-by-type, or give another --graph or --store",
    )


def _two_processes(graph: GraphState, feeder: Feeder, *, is_split: bool) -> StoreError:
    """Return the error of a graph whose events come to another process, too."""
    where = f"{short(feeder.source)}, partition {feeder.partition or '0'}"
    if is_split:
        return StoreError(
            f"graph {graph.name!r} is to be split, and another process reads {where} for itself alone",
            fix=f"stop it and start it with --split {graph.name}; for a backfill, stop it meanwhile",
        )
    return StoreError(
        f"events of graph {graph.name!r} come to two processes: another one reads {where}",
        fix="let producers use the graph as the key, so that all of its events are in one partition, let one process"
        f" read all partitions, or let all processes share the graph: --split {graph.name}; for a backfill, stop the"
        " other process meanwhile",
    )


def short(source_name: str) -> str:
    """Return a source's name with digests cut to what a person can compare."""
    return re.sub(r"[0-9a-f]{64}", lambda digest: digest[0][:12], source_name)


def _begins_at(fed: tuple[GraphState, Members, IntArray]) -> int:
    _, members, counting = fed
    return int((counting if len(counting) else members.rows)[0])


def _has_rows(rows: IntArray, part: Part) -> bool:
    at = int(np.searchsorted(rows, part.begin))
    return at < len(rows) and int(rows[at]) < part.end
