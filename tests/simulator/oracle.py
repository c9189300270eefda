"""What a run must come to: judged record by record from the logs, and ingested anew without any disturbance."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.schema import METRIC_NAMES
from infra.steps import step_start_us
from stream.events import Event, EventBatch, Interner
from stream.ingest import Ingest, IngestOptions
from stream.intake import LATE_STAGE
from stream.sources.base import Claims, Part, PartitionedBatch
from stream.store import open_reader
from stream.store.influx.points import facts_line, snapshot_lines
from stream.store.sql.writer import SqlWriter
from stream.store.sqlite import SqliteDatabase, SqliteReadDatabase
from tests.simulator.faults import Plan
from tests.simulator.history import History, Meaning
from tests.simulator.sink import Sink

Row = tuple[Any, ...]
_METRICS = (
    f"SELECT name, step_start_us, {', '.join('s.' + metric for metric in METRIC_NAMES)}"
    " FROM snapshots s JOIN graphs ON graphs.id = graph_id"
)


class WrongResultError(AssertionError):
    """A run came to something else than the logs say; the text names the first difference."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What must come out.

    Attributes:
        events: those that count, in any order.
        late: graph to how many of its events come too late.
        totals: events, late, duplicates and rejected over all partitions.
        letters: (partition, offset) to the stage at which the record must be found among the dead letters.
    """

    events: Sequence[Event]
    late: Counter[str]
    totals: tuple[int, int, int, int]
    letters: dict[tuple[int, int], str]


def judge(plan: Plan, histories: Sequence[History]) -> Expected:
    """Return what must come out of logs."""
    timely: list[Event] = []
    late: Counter[str] = Counter()
    letters: dict[tuple[int, int], str] = {}
    valid = rejected = 0
    for number, history in enumerate(histories):
        largest_us = -(2**62)
        for sent, offset in zip(history.sent, history.offset.tolist(), strict=True):
            event = sent.event
            if event is None or sent.meaning is not Meaning.EVENT:
                if sent.meaning is not Meaning.TOMBSTONE:
                    rejected += 1
                    letters[number, offset] = LATE_STAGE if sent.meaning is Meaning.FUTURE else ""
                continue
            valid += 1
            last_us = step_start_us(event.ts_us, plan.step_us) + plan.step_us + plan.allowed_lateness_us
            if last_us <= largest_us - plan.out_of_orderness_us:
                late[event.graph] += 1
                if plan.split_by_type and event.type:
                    late[f"{event.graph}:{event.type}"] += 1
                letters[number, offset] = LATE_STAGE
            else:
                timely.append(event)
            largest_us = max(largest_us, event.ts_us)
    events = list(_once(timely, plan.dedup_window_us))
    n_late = sum(count for graph, count in late.items() if ":" not in graph)
    return Expected(events, late, (valid, n_late, len(timely) - len(events), rejected), letters)


def _once(events: Sequence[Event], window_us: int) -> Iterator[Event]:
    """Yield the events whose id does not repeat one within the window."""
    seen: dict[tuple[str, str], list[int]] = {}
    for event in events:
        if event.id is not None:
            times = seen.setdefault((event.graph, event.id), [])
            if any(abs(event.ts_us - other_us) <= window_us for other_us in times):
                continue
            times.append(event.ts_us)
        yield event


class _OneBatch:
    """All events at once, sorted; a `PartitionedSource`."""

    name = "undisturbed"

    def __init__(self, events: Sequence[Event]) -> None:
        self._events = events

    def batches(self, claims: Claims) -> Iterator[PartitionedBatch]:
        claims.claim(("0",))
        batch = EventBatch.from_events(self._events, Interner())
        yield PartitionedBatch(batch, (Part("0", 0, len(batch), {"offset": len(batch)}),))


def undisturbed(plan: Plan, events: Sequence[Event], store: Path) -> dict[tuple[str, int], Row]:
    """Ingest events into an empty store, sorted and in one batch; return the metrics by graph and step."""
    options = IngestOptions(
        step_us=plan.step_us,
        out_of_orderness_us=plan.out_of_orderness_us,
        dedup_window_us=0,
        split_by_type=plan.split_by_type,
    )
    with SqlWriter(SqliteDatabase(store)) as writer:
        Ingest(_OneBatch(sorted(events, key=lambda event: event.ts_us)), writer, options).run()
    return _metrics(store)


def check(expected: Expected, metrics: dict[tuple[str, int], Row], store: Path, sink: Sink) -> None:
    """Compare a store and a sink with what must be there.

    Raises:
        WrongResultError: they differ.
    """
    reader = SqliteReadDatabase(store)
    try:
        _check_totals(reader, expected)
        _check_letters(reader, expected)
    finally:
        reader.close()
    _check_metrics(_metrics(store), metrics)
    _check_sink(store, sink)


def _metrics(store: Path) -> dict[tuple[str, int], Row]:
    reader = SqliteReadDatabase(store)
    try:
        return {(row[0], row[1]): row[2:] for row in reader.fetch(_METRICS)}
    finally:
        reader.close()


def _check_totals(reader: SqliteReadDatabase, expected: Expected) -> None:
    columns = ("events", "late", "duplicates", "rejected")
    told = reader.fetch(f"SELECT {', '.join(f'sum({name})' for name in columns)} FROM partitions")[0]
    for name, have, want in zip(columns, told, expected.totals, strict=True):
        if have != want:
            raise WrongResultError(f"the partitions tell of {have} {name}, the logs have {want}")
    for name, late in reader.fetch("SELECT name, late FROM graphs ORDER BY name"):
        if late != expected.late[name]:
            raise WrongResultError(f"graph {name} tells of {late} late events, the logs have {expected.late[name]}")


def _check_letters(reader: SqliteReadDatabase, expected: Expected) -> None:
    rows = reader.fetch("SELECT partition_number, record_offset, stage, reason FROM dead_letters ORDER BY 1, 2")
    times = Counter((partition, offset) for partition, offset, _, _ in rows)
    for where, count in times.items():
        if where not in expected.letters:
            raise WrongResultError(f"partition and offset {where} are among the dead letters, and are a good event")
        if count != 1:
            raise WrongResultError(f"partition and offset {where} are {count} times among the dead letters")
    for where in expected.letters:
        if where not in times:
            raise WrongResultError(f"partition and offset {where} are not among the dead letters")
    for partition, offset, stage, reason in rows:
        want = expected.letters[partition, offset]
        if not reason or (want and stage != want) or (not want and stage == LATE_STAGE):
            raise WrongResultError(f"partition {partition}, offset {offset} was refused at {stage!r}: {reason!r}")


def _check_metrics(have: dict[tuple[str, int], Row], want: dict[tuple[str, int], Row]) -> None:
    for graph, step_us in sorted(have.keys() | want.keys()):
        one, other = have.get((graph, step_us)), want.get((graph, step_us))
        if one is None or other is None:
            raise WrongResultError(f"graph {graph}, step {step_us}: {'no' if one is None else 'a needless'} snapshot")
        for name, now, then in zip(METRIC_NAMES, one, other, strict=True):
            if now != then or type(now) is not type(then):
                raise WrongResultError(f"graph {graph}, step {step_us}: {name} is {now!r}, undisturbed it is {then!r}")


def _check_sink(store: Path, sink: Sink) -> None:
    lines = []
    with open_reader(f"sqlite:///{store}") as reader:
        for info in reader.graphs():
            lines.append(facts_line(info))
            lines += snapshot_lines(reader.snapshots(info.name))
    want = {}
    for line in lines:
        series, fields, time_us = line.split(" ")
        want[series, int(time_us)] = dict(part.split("=", 1) for part in fields.split(","))
    for key in sorted(want.keys() | sink.points.keys()):
        if sink.points.get(key) != want.get(key):
            raise WrongResultError(f"the sink has {sink.points.get(key)} at {key}, the store {want.get(key)}")
