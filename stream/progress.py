"""What a run of ingestion tells while it goes on, and at its end."""

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream.events import Reject
from stream.intake import tally
from stream.sources.base import PartitionedBatch
from stream.store.records import GraphState
from stream.windows import NEVER_US


@dataclass(frozen=True, slots=True)
class IngestProgress:
    """What this run has done up to its last commit.

    Attributes:
        events, rejected, late, duplicates: see `IngestResult`, of this run alone.
        snapshots, revisions: steps closed, and snapshots written anew.
        event_time_us: the largest event time so far; None before the first event.
        watermark_us: the time up to which steps have closed; None while nothing closed.
        commit_s: how long the last commit took, with all that it computed.
        seconds: how long the run has taken.
    """

    events: int = 0
    rejected: int = 0
    late: int = 0
    duplicates: int = 0
    snapshots: int = 0
    revisions: int = 0
    event_time_us: int | None = None
    watermark_us: int | None = None
    commit_s: float = 0.0
    seconds: float = 0.0

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
        events: its valid events, late ones and duplicates included.
        late: its events that came too late and were not counted.
        duplicates: its events whose id had been counted before.
        rejected: its records that are no valid events, and events that its graphs cannot take by their time or at all.
        rejects: a sample of the rejected and the late.
        revisions: snapshots that this run wrote anew.
        seconds: how long this run took.
        last_us: the time of its last event; None where it has none.
        ended: the source was read to its end; False for a followed source or an interrupted run.
        unchanged: it had been ingested before to its end, so this run did nothing.
    """

    source: str
    graphs: tuple[GraphSummary, ...]
    events: int
    late: int
    duplicates: int
    rejected: int
    rejects: tuple[Reject, ...]
    revisions: int
    seconds: float
    last_us: int | None
    ended: bool
    unchanged: bool


class Meter:
    """Counts what a run does; `progress` is what it did up to its last commit."""

    def __init__(self) -> None:
        self.progress = IngestProgress()
        self._began_s = time.monotonic()

    def begin(self) -> None:
        """Start the clock."""
        self._began_s = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long the run has taken."""
        return time.monotonic() - self._began_s

    def after(
        self,
        batch: PartitionedBatch,
        verdict: npt.NDArray[np.int8],
        *,
        snapshots: int,
        revisions: int,
        event_time_us: int,
        watermark_us: int,
    ) -> IngestProgress:
        """Return the progress that a batch makes once it is committed."""
        before = self.progress
        counted = tally(verdict)
        return IngestProgress(
            events=before.events + counted.events,
            rejected=before.rejected + sum(part.rejected for part in batch.parts) + counted.rejected,
            late=before.late + counted.late,
            duplicates=before.duplicates + counted.duplicates,
            snapshots=before.snapshots + snapshots,
            revisions=before.revisions + revisions,
            event_time_us=None if event_time_us == NEVER_US else event_time_us,
            watermark_us=None if watermark_us == NEVER_US else watermark_us,
        )


def summary(graph: GraphState) -> GraphSummary:
    """Return what a user wants to know of a graph."""
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
