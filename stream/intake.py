"""Which events of a batch count: not those from the future, stray or late ones, those of graphs that others fill, or
those that were counted before."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from infra.steps import format_duration, format_time, step_start_us
from stream.closing import too_early
from stream.events import EventBatch, IntArray, Reject
from stream.graphs import FedGraphs
from stream.members import Members
from stream.sources.base import PartitionedBatch
from stream.store.known import BoolArray
from stream.store.records import PartitionState
from stream.windows import judge_late


class Verdict(IntEnum):
    """What becomes of an event."""

    COUNTS = 0
    FUTURE = 1
    LATE = 2
    FINAL = 3
    EDGES_GONE = 4
    DUPLICATE = 5
    FOREIGN = 6
    STRAY = 7


# By verdict.
_TOO_LATE = np.isin(np.arange(len(Verdict)), (Verdict.LATE, Verdict.FINAL, Verdict.EDGES_GONE))
# Stages of rejects, beside those of the record decoders: when an event met event time.
LATE_STAGE = "EVENT_TIME"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeRules:
    """How event time is judged.

    Attributes:
        step_us: step size.
        out_of_orderness_us: how far behind the largest event time of its partition an event may come.
        allowed_lateness_us: how long after its step's end, in the time of its partition, an event still counts.
        max_ahead_us: how far ahead of the clock an event time may be; None: as far as it likes.
        max_empty_steps: how many empty steps a graph may have behind an event that begins it.
        idle_hold_us: how far behind the others an idle partition holds steps back from being final.
        now_us: the clock.
    """

    step_us: int
    out_of_orderness_us: int = 0
    allowed_lateness_us: int = 0
    max_ahead_us: int | None = None
    max_empty_steps: int = 5_000_000
    idle_hold_us: int = 7 * 86_400_000_000
    now_us: Callable[[], int]


def judge(batch: PartitionedBatch, partitions: dict[str, PartitionState], rules: TimeRules) -> npt.NDArray[np.int8]:
    """Return a `Verdict` for each event [n], by time alone, and move the clocks of the partitions.

    An event from the future does not move its partition's clock: one wrong clock would make all others late.
    """
    verdict = np.zeros(len(batch.events), dtype=np.int8)
    latest_us = None if rules.max_ahead_us is None else rules.now_us() + rules.max_ahead_us
    for part in batch.parts:
        ts_us = batch.events.ts_us[part.begin : part.end]
        if not len(ts_us):
            continue
        of_part = verdict[part.begin : part.end]
        if latest_us is not None and int(ts_us.max()) > latest_us:
            of_part[ts_us > latest_us] = Verdict.FUTURE
        timely = of_part == Verdict.COUNTS
        state = partitions[part.partition]
        late, state.clock = judge_late(
            ts_us[timely], rules.step_us, state.clock, rules.out_of_orderness_us, rules.allowed_lateness_us
        )
        if late.any():
            of_part[np.flatnonzero(timely)[late]] = Verdict.LATE
    return verdict


def turn_away(
    of_graphs: Sequence[Members],
    graphs: FedGraphs,
    step_us: IntArray,
    verdict: npt.NDArray[np.int8],
    *,
    closing_us: Callable[[str], int] | None,
    rules: TimeRules,
    letters: bool,
) -> list[Members]:
    """Set the verdicts of events that their graph cannot take; return the graphs with the events that are left.

    One such event must not hold up all others of a source that goes on for ever. What has a part of a graph that cannot
    take it is turned away from the graph, too.

    Args:
        of_graphs: the graphs of the batch.
        graphs: the graphs of the source.
        step_us: [n] the step of each event.
        verdict: [n] by time alone; a late event stays one.
        closing_us: tells up to when the steps of a new graph close with the batch; None: any time is taken.
        rules: what events are judged by.
        letters: events of graphs that this source may not feed are turned away; otherwise the run will be refused.
    """
    away = np.zeros(len(verdict), dtype=np.bool_)
    lowest_us = int(step_us.min()) if len(step_us) else 0
    for members in of_graphs:
        rows, graph = members.rows, graphs.find(members.name)
        if letters and graph is not None and not graphs.has(members.name):
            barred = rows[: graphs.barred(graph, step_us[rows], verdict[rows] == Verdict.LATE)]
            verdict[barred[verdict[barred] == Verdict.COUNTS]] = Verdict.FOREIGN
            away[barred] = True
        # Of a graph that has open steps only, those tell what is stray as they close.
        if closing_us is None or (graph is not None and graph.first_step_us is None):
            continue
        begin_us = graph.first_step_us if graph is not None else None
        begin_us = step_start_us(closing_us(members.name), rules.step_us) if begin_us is None else begin_us
        if (begin_us - lowest_us) // rules.step_us <= rules.max_empty_steps:
            continue
        rows = rows[verdict[rows] == Verdict.COUNTS]
        from_us = too_early(step_us[rows], begin_us, rules.step_us, rules.max_empty_steps)
        if from_us is not None:
            rows = rows[step_us[rows] < from_us]
            verdict[rows] = Verdict.STRAY
            away[rows] = True
    if not away.any():
        return list(of_graphs)
    left = [Members(each.name, each.rows[~away[each.rows]], each.whole) for each in of_graphs]
    return [each for each in left if len(each.rows)]


class Tally(NamedTuple):
    """How many events became what; `events` are all but the `rejected` ones."""

    events: int
    late: int
    duplicates: int
    rejected: int


def tally(verdict: npt.NDArray[np.int8]) -> Tally:
    """Count verdicts."""
    counts = np.bincount(verdict, minlength=len(Verdict)).tolist()
    rejected = counts[Verdict.FUTURE] + counts[Verdict.FOREIGN] + counts[Verdict.STRAY]
    late = counts[Verdict.LATE] + counts[Verdict.FINAL] + counts[Verdict.EDGES_GONE]
    return Tally(len(verdict) - rejected, late, counts[Verdict.DUPLICATE], rejected)


def count_verdicts(
    batch: PartitionedBatch, verdict: npt.NDArray[np.int8], partitions: dict[str, PartitionState]
) -> None:
    """Add what became of the events to the counters of their partitions."""
    for part in batch.parts:
        state = partitions[part.partition]
        counted = tally(verdict[part.begin : part.end])
        state.rejected += part.rejected + counted.rejected
        state.events += counted.events
        state.late += counted.late
        state.duplicates += counted.duplicates


def is_too_late(verdict: npt.NDArray[np.int8]) -> BoolArray:
    """Return which verdicts count as late."""
    late: BoolArray = _TOO_LATE[verdict]
    return late


def turned_away(
    batch: PartitionedBatch, verdict: npt.NDArray[np.int8], rules: TimeRules, *, source: str, keep: int
) -> list[Reject]:
    """Return the rejects of the events that do not count and are no duplicates.

    Args:
        batch: the events; one without a `letter` gives a sample of at most `keep`.
        verdict: [n].
        rules: what the events were judged by.
        source: how a person calls the source.
        keep: see `batch`.
    """
    rows = np.flatnonzero((verdict != Verdict.COUNTS) & (verdict != Verdict.DUPLICATE)).tolist()
    if not rows:
        return []
    reasons = _reasons(rules)
    if batch.letter is not None:
        return [batch.letter(row, reasons[Verdict(verdict[row])], LATE_STAGE) for row in rows]
    rejects = []
    for row in rows[:keep]:
        partition = next(part.partition for part in batch.parts if row < part.end)
        place = f"{source}, partition {partition}" if partition else source
        rejects.append(Reject(place, _text(batch.events, row), reasons[Verdict(verdict[row])], LATE_STAGE))
    return rejects


def rows_with_ids(events: EventBatch, rows: IntArray) -> tuple[IntArray, Sequence[str]]:
    """Return those of `rows` whose events have an id, and the ids."""
    ids = events.ids
    if ids is None:
        return rows[:0], ()
    with_id = [(row, name) for row in rows.tolist() if (name := ids[row]) is not None]
    return np.array([row for row, _ in with_id], dtype=np.int64), [name for _, name in with_id]


def _reasons(rules: TimeRules) -> dict[Verdict, str]:
    late = "late: its step had closed before it came"
    if rules.allowed_lateness_us:
        late = f"late: its step had closed more than {format_duration(rules.allowed_lateness_us)} before it came"
    ahead = "" if rules.max_ahead_us is None else f" by more than {format_duration(rules.max_ahead_us)}"
    return {
        Verdict.FUTURE: f"future: its time is ahead of the clock{ahead}",
        Verdict.LATE: late,
        Verdict.FINAL: "late: its step is final",
        Verdict.EDGES_GONE: "late: the edges of its step are no longer kept, so that it cannot be revised",
        Verdict.FOREIGN: "foreign: its graph is filled by another source, or was up to a later time",
        Verdict.STRAY: f"stray: more than {rules.max_empty_steps:,} empty steps would follow it in its graph",
    }


def _text(events: EventBatch, row: int) -> str:
    names = events.interner.names
    return (
        f"{names[events.graph[row]]} {names[events.src[row]]} {names[events.dst[row]]}"
        f" {format_time(int(events.ts_us[row]))}"
    )[:300]
