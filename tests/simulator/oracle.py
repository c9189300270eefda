"""What a run must come to, judged and computed from the logs alone."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from infra.schema import METRIC_NAMES, METRICS, Kind
from stream.events import IntArray
from stream.intake import LATE_STAGE
from stream.snapshots import step_metrics
from stream.store.influx.points import facts_line, snapshot_lines
from stream.store.sql.database import ReadDatabase
from stream.store.sql.reader import SqlSnapshots
from stream.store.sqlite import SqliteReadDatabase
from tests.simulator.faults import Plan
from tests.simulator.history import Deed, History, Meaning, end_us
from tests.simulator.sink import Sink, fields_of

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

    events: Sequence[Deed]
    late: Counter[str]
    totals: tuple[int, int, int, int]
    letters: dict[tuple[int, int], str]


def judge(plan: Plan, histories: Sequence[History]) -> Expected:
    """Return what must come out of logs."""
    timely: list[Deed] = []
    late: Counter[str] = Counter()
    letters: dict[tuple[int, int], str] = {}
    valid = rejected = 0
    step_us, is_event = plan.step_us, Meaning.EVENT
    open_us = plan.allowed_lateness_us + plan.out_of_orderness_us
    for number, history in enumerate(histories):
        largest_us = -(2**62)
        for meaning, event, offset in zip(history.meanings, history.events, history.offset.tolist(), strict=True):
            if event is None or meaning is not is_event:
                if meaning is not Meaning.TOMBSTONE:
                    rejected += 1
                    letters[number, offset] = LATE_STAGE if meaning is Meaning.FUTURE else ""
                continue
            valid += 1
            ts_us = event.ts_us
            # The end of its step; steps of up to a day begin at whole numbers of them since the epoch.
            if ts_us - ts_us % step_us + step_us + open_us <= largest_us:
                late[event.graph] += 1
                if plan.split_by_type and event.type:
                    late[f"{event.graph}:{event.type}"] += 1
                letters[number, offset] = LATE_STAGE
            else:
                timely.append(event)
            largest_us = max(largest_us, ts_us)
    events = list(_once(timely, plan.dedup_window_us))
    n_late = sum(count for graph, count in late.items() if ":" not in graph)
    return Expected(events, late, (valid, n_late, len(timely) - len(events), rejected), letters)


def _once(events: Sequence[Deed], window_us: int) -> Iterator[Deed]:
    """Yield the events whose id does not repeat one within the window."""
    repeated = {name for name, times in Counter(map(attrgetter("id"), events)).items() if times > 1} - {None}
    seen: dict[tuple[str, str], list[int]] = {}
    for event in events:
        if event.id in repeated:
            times = seen.setdefault((event.graph, event.id), [])
            if any(abs(event.ts_us - other_us) <= window_us for other_us in times):
                continue
            times.append(event.ts_us)
        yield event


def snapshots_of(plan: Plan, events: Sequence[Deed]) -> dict[tuple[str, int], Row]:
    """Return the metrics by graph and step, straight from all events that count; no store and no batch is involved."""
    step_us = plan.step_us
    # The last events of the logs close what ends before them, less the bound of disorder.
    end = (end_us(plan) - plan.out_of_orderness_us) // step_us
    rows = [event for event in events if event.ts_us < end * step_us]
    if plan.split_by_type:
        rows += [event._replace(graph=f"{event.graph}:{event.type}") for event in rows if event.type]
    rows.sort(key=attrgetter("ts_us"))
    graph_names, src, dst, ts_us, _, _ = zip(*rows, strict=True)
    graphs, graph = _coded(graph_names)
    ends = np.ascontiguousarray(_coded((*src, *dst))[1].reshape(2, -1).T)
    step = np.array(ts_us, dtype=np.int64) // step_us
    first = step[np.unique(graph, return_index=True)[1]]
    offset = np.cumsum(end - first) - (end - first)
    n_steps = int((end - first).sum())
    at = step + (offset - first)[graph]
    metrics = step_metrics(at, ends[:, 0], ends[:, 1], np.ones(len(at), dtype=np.int64), n_steps)
    of_step = np.repeat(np.arange(len(graphs)), end - first)
    of_graph, of_end = graph << 32, np.repeat(at, 2)
    for what, keys, seen_at in (
        ("nodes", np.repeat(of_graph, 2) | ends.reshape(-1), of_end),
        ("edges", (of_graph | ends[:, 0]) << 16 | ends[:, 1], at),
    ):
        new = np.bincount(seen_at[np.unique(keys, return_index=True)[1]], minlength=n_steps)
        total = np.cumsum(new)
        metrics |= {f"new_{what}": new, f"total_{what}": total - (total - new)[offset][of_step]}
    columns = [
        (metrics[metric.name] if metric.kind is Kind.SHARE else metrics[metric.name].astype(np.int64)).tolist()
        for metric in METRICS
    ]
    starts_us = ((np.arange(n_steps) + (first - offset)[of_step]) * step_us).tolist()
    names = [graphs[number] for number in of_step.tolist()]
    return dict(zip(zip(names, starts_us, strict=True), zip(*columns, strict=True), strict=True))


def _coded(names: Sequence[str]) -> tuple[list[str], IntArray]:
    """Return the distinct names, and the number of each name [n] among them."""
    number = {name: at for at, name in enumerate(dict.fromkeys(names))}
    return list(number), np.fromiter(map(number.__getitem__, names), dtype=np.int64, count=len(names))


def check(expected: Expected, metrics: dict[tuple[str, int], Row], store: Path, sink: Sink) -> None:
    """Compare a store and a sink with what must be there.

    Raises:
        WrongResultError: they differ.
    """
    database = SqliteReadDatabase(store)
    with SqlSnapshots(database) as reader:
        _check_totals(database, expected)
        _check_letters(database, expected)
        _check_metrics(metrics_of(database), metrics)
        _check_sink(reader, sink)


def metrics_of(database: ReadDatabase) -> dict[tuple[str, int], Row]:
    """Return the metrics of a store by graph and step."""
    return {(row[0], row[1]): row[2:] for row in database.fetch(_METRICS)}


def _check_totals(reader: ReadDatabase, expected: Expected) -> None:
    columns = ("events", "late", "duplicates", "rejected")
    told = reader.fetch(f"SELECT {', '.join(f'sum({name})' for name in columns)} FROM partitions")[0]
    for name, have, want in zip(columns, told, expected.totals, strict=True):
        if have != want:
            raise WrongResultError(f"the partitions tell of {have} {name}, the logs have {want}")
    for name, late in reader.fetch("SELECT name, late FROM graphs ORDER BY name"):
        if late != expected.late[name]:
            raise WrongResultError(f"graph {name} tells of {late} late events, the logs have {expected.late[name]}")


def _check_letters(reader: ReadDatabase, expected: Expected) -> None:
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
    if have == want and all(list(map(type, row)) == list(map(type, want[key])) for key, row in have.items()):
        return
    for graph, step_us in sorted(have.keys() | want.keys()):
        one, other = have.get((graph, step_us)), want.get((graph, step_us))
        if one is None or other is None:
            raise WrongResultError(f"graph {graph}, step {step_us}: {'no' if one is None else 'a needless'} snapshot")
        for name, now, then in zip(METRIC_NAMES, one, other, strict=True):
            if now != then or type(now) is not type(then):
                raise WrongResultError(f"graph {graph}, step {step_us}: {name} is {now!r}, not {then!r}")


def _check_sink(reader: SqlSnapshots, sink: Sink) -> None:
    want: dict[tuple[str, int], str] = {}
    for info in reader.graphs():
        for line in chain((facts_line(info),), snapshot_lines(reader.snapshots(info.name))):
            series, fields, time_us = line.split(" ")
            want[series, int(time_us)] = fields
    if sink.points == want:
        return
    for key in sorted(want.keys() | sink.points.keys()):
        have, there = (None if text is None else fields_of(text) for text in (sink.points.get(key), want.get(key)))
        if have != there:
            raise WrongResultError(f"the sink has {have} at {key}, the store {there}")
