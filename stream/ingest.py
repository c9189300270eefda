"""From a source to the store, exactly once: every batch is one transaction that holds its effects and its position."""

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from infra.errors import StoreError
from infra.steps import HOUR_US, format_duration, format_time, step_start_us
from stream.closing import Limits, Span, close_steps
from stream.events import EventBatch, IntArray, Interner, Reject
from stream.sources.base import Source, SourceBatch
from stream.store import open_writer
from stream.store.known import BoolArray
from stream.store.records import PAIR_BITS, EdgeRows, GraphState, PartitionState, SourceState
from stream.store.sqlite_writer import SqliteWriter
from stream.windows import Clock, closing_time_us, judge_late, step_starts_us


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestOptions:
    """How events become snapshots.

    Attributes:
        step_us: step size.
        out_of_orderness_us: how far behind the largest event time of its partition an event may come.
        split_by_type: also keep a graph `graph:type` for each event type.
        limits: what the store accepts of one graph.
        keep_rejects: how many rejected records and late events of a source are kept as a sample.
    """

    step_us: int = HOUR_US
    out_of_orderness_us: int = 0
    split_by_type: bool = False
    limits: Limits = field(default_factory=Limits)
    keep_rejects: int = 1000


@dataclass(frozen=True, slots=True)
class IngestProgress:
    """What this run has done up to its last commit; `event_time_us` is the largest event time so far."""

    events: int
    rejected: int
    late: int
    snapshots: int
    event_time_us: int | None
    seconds: float

    @property
    def events_per_s(self) -> float:
        """Events per second since the run began."""
        return self.events / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class GraphSummary:
    """One graph that the source feeds, as the store has it now; `events` counts those of closed steps."""

    name: str
    step_us: int
    events: int
    nodes: int
    edges: int
    snapshots: int
    first_step_us: int | None
    last_step_us: int | None
    late: int


@dataclass(frozen=True, slots=True)
class IngestResult:
    """What the store has of a source now, over all runs.

    Attributes:
        source: the source's name.
        graphs: the graphs that it feeds, by name.
        events: its valid events, late ones included.
        late: its events that came behind the watermark and were dropped.
        rejected: its records that are no valid events.
        rejects: a sample of the rejected and the late.
        seconds: how long this run took.
        ended: the source was read to its end; False for a followed source or an interrupted run.
        unchanged: it had been ingested before to its end, so this run did nothing.
    """

    source: str
    graphs: tuple[GraphSummary, ...]
    events: int
    late: int
    rejected: int
    rejects: tuple[Reject, ...]
    seconds: float
    ended: bool
    unchanged: bool


def ingest(
    source: Source,
    store_url: str,
    options: IngestOptions,
    on_progress: Callable[[IngestProgress], None] | None = None,
) -> IngestResult:
    """Read `source` to its end into the store; a run that was interrupted before goes on where it stopped.

    Raises:
        InputError: the source cannot be read, or its times make no sense.
        StoreError: the store cannot be written, or contradicts the call.
    """
    with open_writer(store_url) as writer:
        run = Ingest(source, writer, options, on_progress)
        run.run()
        return run.result()


class Ingest:
    """One run of a source into a store; `result` may be asked at any time, also after an interrupted `run`."""

    def __init__(
        self,
        source: Source,
        writer: SqliteWriter,
        options: IngestOptions,
        on_progress: Callable[[IngestProgress], None] | None = None,
    ) -> None:
        self._source = source
        self._writer = writer
        self._options = options
        self._on_progress = on_progress
        self._state: SourceState | None = writer.source(source.name)
        self._unchanged = False
        # Graphs that this source feeds, by name.
        self._graphs: dict[str, GraphState] = {}
        self._interner: Interner | None = None
        self._began_s = time.monotonic()
        self._events = self._rejected = self._late = self._snapshots = 0

    def run(self) -> None:
        """Read the source until it ends, one transaction a batch.

        Raises:
            InputError: the source cannot be read, or its times make no sense.
            StoreError: the store cannot be written, or contradicts the call.
        """
        self._began_s = time.monotonic()
        if self._state is not None:
            self._graphs = {graph.name: graph for graph in self._writer.graphs_of(self._state)}
            for graph in self._graphs.values():
                _check_step(graph, self._options.step_us)
            _check_split(self._state, split_by_type=self._options.split_by_type)
            if self._state.ended:
                self._unchanged = True
                return
        for batch in self._source.batches(None if self._state is None else self._state.position):
            if len(batch.events) or batch.rejected or batch.end or self._moved(batch):
                with self._writer.transaction():
                    self._apply(batch)
                self._report()

    def result(self) -> IngestResult:
        """Return what the store has of the source, and how long `run` took up to now."""
        state = self._writer.source(self._source.name)
        if state is None:  # interrupted before the first commit
            state = SourceState(0, self._source.name, self._options.split_by_type)
        return IngestResult(
            source=state.name,
            graphs=tuple(_summary(graph) for graph in self._writer.graphs_of(state)),
            events=sum(partition.events for partition in state.partitions.values()),
            late=sum(partition.late for partition in state.partitions.values()),
            rejected=state.rejected,
            rejects=tuple(self._writer.rejects_of(state)),
            seconds=time.monotonic() - self._began_s,
            ended=state.ended,
            unchanged=self._unchanged,
        )

    def _moved(self, batch: SourceBatch) -> bool:
        return self._state is None or self._state.position != batch.position

    def _apply(self, batch: SourceBatch) -> None:
        """Change the store by one batch, inside a transaction."""
        events, options = batch.events, self._options
        if self._state is None:
            self._state = self._writer.add_source(self._source.name, split_by_type=options.split_by_type)
        state = self._state
        if batch.partition not in state.partitions:
            # A partition that joins later starts at the source's watermark: steps behind it may be closed.
            watermark_us = min((p.clock.watermark_us for p in state.partitions.values()), default=Clock().watermark_us)
            state.partitions[batch.partition] = PartitionState(Clock(watermark_us=watermark_us))
        partition = state.partitions[batch.partition]
        late, partition.clock = judge_late(events.ts_us, options.step_us, partition.clock, options.out_of_orderness_us)
        step_us = step_starts_us(events.ts_us, options.step_us)
        rows, dropped = self._edge_rows(events, step_us, late)
        partition.events += len(events)
        partition.late += int(dropped.sum())
        state.rejected += batch.rejected
        state.position = batch.position
        state.ended = batch.end
        self._writer.add_rejects(
            state,
            [*batch.rejects, *_late_sample(events, dropped, self._place(batch.partition), options.keep_rejects)],
            keep=options.keep_rejects,
        )
        closing_us = closing_time_us((p.clock for p in state.partitions.values()), options.step_us, end=batch.end)
        self._snapshots += self._close(rows, closing_us)
        self._writer.save_source(state)
        self._events += len(events)
        self._late += int(dropped.sum())
        self._rejected += batch.rejected

    def _place(self, partition: str) -> str:
        name = _short(self._source.name)
        return f"{name}, partition {partition}" if partition else name

    def _edge_rows(self, events: EventBatch, step_us: IntArray, late: BoolArray) -> tuple[EdgeRows, BoolArray]:
        """Return the edges of the events that count, per graph, and which events are dropped as late."""
        if events.interner is not self._interner:
            self._writer.forget_codes()
            self._interner = events.interner
        names = events.interner.names
        dropped = late.copy()
        graph_ids, chosen = [], []
        for graph_name, members in self._memberships(events):
            graph = self._graph(graph_name, int(step_us[members[0]]), is_late=bool(late[members[0]]))
            gone = late[members]
            if graph.next_step_us is not None:
                gone = gone | (step_us[members] < graph.next_step_us)
            dropped[members] |= gone
            if gone.any():
                graph.late += int(gone.sum())
                self._writer.save_graphs([graph])
            chosen.append(members[~gone])
            graph_ids.append(np.full(len(chosen[-1]), graph.id, dtype=np.int64))
        none = np.zeros(0, dtype=np.int64)
        graph_id, at = np.concatenate([none, *graph_ids]), np.concatenate([none, *chosen])
        # Node ids follow the log, whatever the graphs' order in the batch.
        order = np.argsort(at, kind="stable")
        graph_id, at = graph_id[order], at[order]
        ends = np.stack((events.src[at], events.dst[at]), axis=1).reshape(-1)
        node = self._writer.node_ids(np.repeat(graph_id, 2), ends, names).reshape(-1, 2)
        pair = (node[:, 0] << PAIR_BITS) | node[:, 1]
        counts = np.ones(len(at), dtype=np.int64)
        return EdgeRows.merge([EdgeRows(graph_id, step_us[at], pair, counts)]), dropped

    def _memberships(self, events: EventBatch) -> list[tuple[str, IntArray]]:
        """Return each graph's name and the indices of its events, in order of first appearance."""
        names = events.interner.names
        found: list[tuple[str, IntArray]] = []
        for graph_code, of_graph in _groups(events.graph):
            found.append((names[graph_code], of_graph))
            if self._options.split_by_type:
                found.extend(
                    (f"{names[graph_code]}:{names[type_code]}", of_graph[of_type])
                    for type_code, of_type in _groups(events.type[of_graph])
                    if names[type_code]
                )
        # Stable: a graph stands before the part of it that begins with the same event.
        return sorted(found, key=lambda graph: int(graph[1][0]))

    def _graph(self, name: str, first_us: int, *, is_late: bool) -> GraphState:
        """Return a graph that this source feeds; at first contact make sure that it may.

        Args:
            name: the graph's name.
            first_us: the step of the first event that this batch has of it.
            is_late: whether that event is late.
        """
        if name in self._graphs:
            return self._graphs[name]
        assert self._state is not None
        graph = self._writer.graph(name)
        if graph is None:
            graph = self._writer.add_graph(name, self._options.step_us)
        else:
            self._check_contact(graph, first_us, is_late=is_late)
        self._writer.link(self._state, graph)
        self._graphs[name] = graph
        return graph

    def _check_contact(self, graph: GraphState, first_us: int, *, is_late: bool) -> None:
        _check_step(graph, self._options.step_us)
        feeders = self._writer.sources_of(graph)
        for source_name, ended in feeders:
            if not ended:
                raise StoreError(
                    f"graph {graph.name!r} is still being filled from {_short(source_name)},"
                    " which was not read to its end",
                    fix="go on with that source first, or give these events another --graph: a graph is fed by one"
                    " source at a time, so that nothing is counted twice",
                )
        if graph.next_step_us is not None and first_us < graph.next_step_us and not is_late:
            raise StoreError(
                f"graph {graph.name!r} is closed up to {format_time(graph.next_step_us)}, and this source begins"
                f" before that, in the step of {format_time(first_us)}; it was filled from {_short(feeders[-1][0])}",
                fix="give another --graph, or ingest all files of the graph together, as a folder, into a new store",
            )

    def _close(self, rows: EdgeRows, closing_us: int) -> int:
        """Close the steps that end by `closing_us`, keep the other events of `rows` open; return how many closed."""
        # A step ends by closing_us exactly where it starts before the step that holds closing_us.
        end_us = step_start_us(closing_us, self._options.step_us)
        closable = rows.step_start_us < end_us
        self._writer.add_open(rows.where(~closable))
        rows = rows.where(closable)
        spans, parts = [], [rows]
        for graph in sorted(self._graphs.values(), key=lambda graph: graph.id):
            if graph.next_step_us is not None and graph.next_step_us >= end_us:
                continue
            parts.append(self._writer.take_open(graph, end_us))
            begin_us = graph.next_step_us
            if begin_us is None:
                begin_us = _earliest(graph, (rows, parts[-1]))
            if begin_us is not None:
                spans.append(Span(graph, begin_us, end_us))
        if not spans:
            return 0
        return close_steps(self._writer, spans, EdgeRows.merge(parts), self._options.limits)

    def _report(self) -> None:
        if self._on_progress is None or self._state is None:
            return
        reached_us = max(partition.clock.max_ts_us for partition in self._state.partitions.values())
        self._on_progress(
            IngestProgress(
                events=self._events,
                rejected=self._rejected,
                late=self._late,
                snapshots=self._snapshots,
                event_time_us=None if reached_us == Clock().max_ts_us else reached_us,
                seconds=time.monotonic() - self._began_s,
            )
        )


def _check_step(graph: GraphState, step_us: int) -> None:
    if graph.step_us != step_us:
        raise StoreError(
            f"graph {graph.name!r} is kept in steps of {format_duration(graph.step_us)},"
            f" not of {format_duration(step_us)}",
            fix=f"use --step {format_duration(graph.step_us)}, or another --graph or --store for the other step size",
        )


def _check_split(source: SourceState, *, split_by_type: bool) -> None:
    if source.split_by_type == split_by_type:
        return
    done, fix = ("with", "add") if source.split_by_type else ("without", "leave out")
    raise StoreError(
        f"{_short(source.name)} was ingested {done} --split-by-type before",
        fix=f"{fix} --split-by-type, or give another --graph or --store",
    )


def _short(source_name: str) -> str:
    """Return a source's name with digests cut to what a person can compare."""
    return re.sub(r"[0-9a-f]{64}", lambda digest: digest[0][:12], source_name)


def _groups(codes: IntArray) -> list[tuple[int, IntArray]]:
    """Return each distinct code and the indices where it stands, ascending."""
    if not len(codes):
        return []
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order])) + 1
    return [(int(codes[group[0]]), group) for group in np.split(order, starts)]


def _earliest(graph: GraphState, parts: Iterable[EdgeRows]) -> int | None:
    steps = np.concatenate([part.step_start_us[part.graph_id == graph.id] for part in parts])
    return int(steps.min()) if len(steps) else None


def _late_sample(events: EventBatch, dropped: BoolArray, place: str, limit: int) -> list[Reject]:
    names = events.interner.names
    return [
        Reject(
            place=place,
            record=f"{names[events.graph[at]]} {names[events.src[at]]} {names[events.dst[at]]}"
            f" {format_time(int(events.ts_us[at]))}"[:300],
            reason="late: its step had closed before it came",
        )
        for at in np.flatnonzero(dropped)[:limit].tolist()
    ]


def _summary(graph: GraphState) -> GraphSummary:
    return GraphSummary(
        name=graph.name,
        step_us=graph.step_us,
        events=graph.events,
        nodes=graph.total_nodes,
        edges=graph.total_edges,
        snapshots=graph.snapshots,
        first_step_us=graph.first_step_us,
        last_step_us=None if graph.next_step_us is None else graph.next_step_us - graph.step_us,
        late=graph.late,
    )
