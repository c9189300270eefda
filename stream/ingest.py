"""From a source to the store, exactly once: every batch is one transaction that holds its effects and its positions."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from infra.steps import DAY_US, HOUR_US, SECOND_US
from stream.closing import Limits
from stream.companion import Companion
from stream.edges import EdgeMaker
from stream.events import EventBatch
from stream.graphs import FedGraphs, check_split, short
from stream.intake import TimeRules, Verdict, count_verdicts, judge, turned_away
from stream.members import memberships
from stream.progress import IngestProgress, IngestResult, Meter, summary
from stream.revision import revise
from stream.sources.base import PartitionedBatch, PartitionedSource, Position, ReadBefore, Source
from stream.sources.single import SinglePartition
from stream.store import open_writer
from stream.store.records import PartitionState, SourceState
from stream.store.writer import StoreWriter
from stream.turns import Turns
from stream.windows import NEVER_US, step_starts_us


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestOptions:
    """How events become snapshots.

    Attributes:
        step_us: step size.
        out_of_orderness_us: how far behind the largest event time of its partition an event may come.
        allowed_lateness_us: how long after its step's end an event still revises its snapshot.
        max_ahead_us: how far ahead of the clock an event time may be; None: as far as it likes.
        idle_hold_us: how far behind the others an idle partition holds steps back from being final.
        dedup_window_us: within this event time an id counts once; 0: ids do not matter.
        keep_edges_us: how long, in event time, the edges of closed steps are kept; None: for ever.
        backfill: the events are missing in steps that are closed already, which they revise.
        close_last: where a source ends, the step that holds its last event closes, too; else it stays open for more.
        split_by_type: also keep a graph `graph:type` for each event type.
        split_graphs: graphs that several processes of the source may feed at the same time.
        limits: what the store accepts of one graph.
        keep_rejects: how many rejected records and late events of a source are kept as a sample.
        now_us: the clock, in microseconds since the epoch.
    """

    step_us: int = HOUR_US
    out_of_orderness_us: int = 0
    allowed_lateness_us: int = 0
    max_ahead_us: int | None = None
    idle_hold_us: int = 7 * DAY_US
    dedup_window_us: int = HOUR_US
    keep_edges_us: int | None = None
    backfill: bool = False
    close_last: bool = True
    split_by_type: bool = False
    split_graphs: frozenset[str] = frozenset()
    limits: Limits = field(default_factory=Limits)
    keep_rejects: int = 1000
    now_us: Callable[[], int] = lambda: int(time.time() * SECOND_US)

    @property
    def live(self) -> bool:
        """Whether events come as they happen, and a stray time must not hold up the others."""
        return self.max_ahead_us is not None

    @property
    def time_rules(self) -> TimeRules:
        """What events are judged by."""
        return TimeRules(
            step_us=self.step_us,
            out_of_orderness_us=self.out_of_orderness_us,
            allowed_lateness_us=self.allowed_lateness_us,
            max_ahead_us=self.max_ahead_us,
            max_empty_steps=self.limits.max_empty_steps,
            idle_hold_us=self.idle_hold_us,
            now_us=self.now_us,
        )


def ingest(
    source: Source,
    store_url: str,
    options: IngestOptions,
    on_progress: Callable[[IngestProgress], None] | None = None,
) -> IngestResult:
    """Read a source of one partition to its end into the store; an interrupted run goes on where it stopped.

    Raises:
        InputError: the source cannot be read, or its times make no sense.
        StoreError: the store cannot be written, or contradicts the call.
    """
    with open_writer(store_url) as writer:
        run = Ingest(SinglePartition(source), writer, options, on_progress)
        run.run()
        return run.result()


class Ingest:
    """One run of a source into a store; `result` may be asked at any time, also after an interrupted `run`.

    It is the `Claims` of its source.
    """

    def __init__(
        self,
        source: PartitionedSource,
        writer: StoreWriter,
        options: IngestOptions,
        on_progress: Callable[[IngestProgress], None] | None = None,
        companions: Sequence[Companion] = (),
    ) -> None:
        self._source = source
        self._companions = companions
        self._writer = writer
        self._options = options
        self._rules = options.time_rules
        self._after: tuple[str, ...] = ()
        self._check_first: Callable[[], None] | None = None
        self._on_progress = on_progress
        self._unchanged = False
        # Steps may have become due because other partitions are waited for now, without any event.
        self._waits_for_others = False
        self._edges = EdgeMaker(writer, options.dedup_window_us)
        self._meter = Meter()
        self._turns = Turns(writer, options)
        # An exclusive writer adds the source with the first commit: a source without a valid record leaves no trace.
        self._state = writer.source(self._source.name) or SourceState(0, self._source.name, options.split_by_type)
        self._graphs = self._fed_graphs()

    def run(self) -> None:
        """Read the source until it ends, one transaction a batch.

        Raises:
            InputError: the source cannot be read, or its times make no sense.
            StoreError: the store cannot be written, or contradicts the call.
        """
        self._meter.begin()
        check_split(self._state, split_by_type=self._options.split_by_type)
        if self._state.ended:
            self._unchanged = True
            for graph in self._writer.graphs_of(self._state):
                self._graphs.check_step(graph)
            return
        for batch in self._source.batches(self):
            self._go_on_after(batch.after)
            changes = self._changes(batch)
            if not changes and not any(companion.has_news() for companion in self._companions):
                continue
            began_s = time.monotonic()
            with self._writer.transaction():
                progress = self._apply(batch) if changes else self._meter.progress
                for companion in self._companions:
                    companion.commit(self._writer)
            for companion in self._companions:
                companion.committed()
            if changes and self._turns.is_overdue(self._graphs):
                self._meter.progress = progress
                with self._writer.transaction():
                    progress = self._apply(PartitionedBatch(EventBatch.from_events([], batch.events.interner), ()))
            self._meter.progress = replace(progress, commit_s=time.monotonic() - began_s, seconds=self._meter.seconds)
            if self._on_progress is not None and changes:
                self._on_progress(self._meter.progress)

    def result(self) -> IngestResult:
        """Return what the store has of the source, and how long `run` took up to now."""
        state = self._writer.source(self._source.name)
        if state is None:  # interrupted before the first commit
            totals, graphs, rejects = PartitionState(), [], []
        else:
            totals, graphs = self._writer.totals(state), self._writer.graphs_of(state)
            rejects = self._writer.rejects_of(state)
        return IngestResult(
            source=self._source.name,
            graphs=tuple(summary(graph) for graph in graphs),
            events=totals.events,
            late=totals.late,
            duplicates=totals.duplicates,
            rejected=totals.rejected,
            rejects=tuple(rejects),
            revisions=self._meter.progress.revisions,
            seconds=self._meter.seconds,
            last_us=None if totals.clock.max_ts_us <= NEVER_US else totals.clock.max_ts_us,
            ended=state is not None and state.ended,
            unchanged=self._unchanged,
        )

    def announce(self, partitions: Sequence[str]) -> None:
        """See `stream.sources.base.Claims`."""
        self._state.announced = frozenset(partitions)

    def claim(self, partitions: Sequence[str]) -> dict[str, Position | None]:
        """See `stream.sources.base.Claims`."""
        if self._state.id == 0:
            if self._writer.exclusive:
                self._state.partitions |= {name: PartitionState() for name in partitions}
                return dict.fromkeys(partitions)
            with self._writer.transaction():
                self._add_source()
        self._state.partitions |= self._writer.claim(self._state, partitions)
        self._graphs.reload()
        self._waits_for_others = True
        return {name: self._state.partitions[name].position for name in partitions}

    def read_before(self, prefix: str) -> list[ReadBefore]:
        """See `stream.sources.base.Claims`."""
        return self._writer.read_before(prefix)

    def hold(self, names: Sequence[str]) -> None:
        """See `stream.sources.base.Claims`."""
        self._writer.hold(names)

    def check_first(self, check: Callable[[], None]) -> None:
        """See `stream.sources.base.Claims`."""
        self._check_first = check

    def release(self, partitions: Sequence[str]) -> None:
        """See `stream.sources.base.Claims`."""
        for name in partitions:
            self._state.partitions.pop(name, None)
        if self._state.id:
            self._writer.release(self._state, partitions)
            self._graphs.reload()
            self._waits_for_others = True

    @property
    def _backfill(self) -> bool:
        """Whether events may belong to closed steps: as asked for, or as those behind files that were read before."""
        return self._options.backfill or bool(self._after)

    def _fed_graphs(self) -> FedGraphs:
        options = self._options
        return FedGraphs(
            self._writer,
            self._state,
            step_us=options.step_us,
            split=options.split_graphs,
            backfill=self._backfill,
        )

    def _add_source(self) -> None:
        before = self._state
        self._state = self._writer.add_source(self._source.name, split_by_type=self._options.split_by_type)
        self._state.partitions, self._state.announced = before.partitions, before.announced
        check_split(self._state, split_by_type=self._options.split_by_type)
        self._graphs = self._fed_graphs()

    def _go_on_after(self, names: tuple[str, ...]) -> None:
        """Let the events of a source that goes on with those of these names revise their steps, which are closed."""
        if names == self._after:
            return
        self._after = names
        for before in self._sources_before():
            check_split(before, split_by_type=self._options.split_by_type)
        self._graphs.backfill = True
        if self._state.id:
            self._graphs.reload()

    def _sources_before(self) -> list[SourceState]:
        return [source for source in map(self._writer.source, self._after) if source is not None]

    def _take_over(self, batch: PartitionedBatch) -> None:
        """Feed the graphs of the sources before, too: the end of this one is the end of all that was read of the log.

        Their last event counts as one of this source, and so on for what goes on with this one.
        """
        before = self._sources_before()
        self._graphs.take_over(before, [part.partition for part in batch.parts])
        last_us = max((self._writer.totals(source).clock.max_ts_us for source in before), default=NEVER_US)
        for part in batch.parts:
            state = self._state.partitions[part.partition]
            state.clock = replace(state.clock, max_ts_us=max(state.clock.max_ts_us, last_us))

    def _changes(self, batch: PartitionedBatch) -> bool:
        return (
            len(batch.events) > 0
            or bool(batch.rejects)
            or batch.end
            or self._waits_for_others
            or any(
                part.rejected
                or part.position != self._state.partitions[part.partition].position
                or part.idle != self._state.partitions[part.partition].idle
                for part in batch.parts
            )
        )

    def _apply(self, batch: PartitionedBatch) -> IngestProgress:
        """Change the store by one batch, inside a transaction; return the progress that this makes."""
        if self._check_first is not None:
            # Before any graph is locked: those who wait here must hold none that another one needs.
            self._writer.lock_beginnings()
            self._check_first()
            self._check_first = None
        if self._state.id == 0:
            self._add_source()
        writer, options, partitions = self._writer, self._options, self._state.partitions
        self._waits_for_others = False
        if batch.after and batch.end:
            self._take_over(batch)
        verdict = judge(batch, partitions, self._rules)
        members = memberships(batch.events, verdict != Verdict.FUTURE, split_by_type=options.split_by_type)
        for part in batch.parts:
            partitions[part.partition].position = part.position
            partitions[part.partition].idle = part.idle
        self._turns.take(self._graphs, batch, members, verdict)
        step_us = step_starts_us(batch.events.ts_us, options.step_us)
        members = self._turns.admit(self._graphs, batch, members, step_us, verdict)
        fresh, closed = self._edges.of(batch, self._graphs, members, step_us, verdict, backfill=self._backfill)
        count_verdicts(batch, verdict, partitions)
        rejects = turned_away(batch, verdict, self._rules, source=short(self._source.name), keep=options.keep_rejects)
        writer.add_rejects(self._state, [*batch.rejects, *rejects], keep=options.keep_rejects)
        revisions = sum(revise(writer, graph, rows, options.limits.max_empty_steps) for graph, rows in closed)
        writer.save_graphs([graph for graph, _ in closed])
        closing_us, snapshots = self._turns.advance(self._graphs, batch, fresh)
        writer.save_partitions(self._state, {part.partition: partitions[part.partition] for part in batch.parts})
        if batch.complete:
            writer.end_source(self._state)
            self._state.ended = True
        return self._meter.after(
            batch,
            verdict,
            snapshots=snapshots,
            revisions=revisions,
            watermark_us=closing_us,
            event_time_us=max((state.clock.max_ts_us for state in partitions.values()), default=NEVER_US),
        )
