"""Small logs, a source that serves them, and the store's contents in a form that can be compared."""

import random
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from infra.schema import METRIC_NAMES
from infra.steps import HOUR_US, step_start_us
from stream.events import Event, EventBatch, Interner, Reject
from stream.ingest import IngestOptions, IngestResult, ingest
from stream.sources.base import Position, SourceBatch


@dataclass
class ListSource:
    """Events from memory. `batches_of` holds (partition, events) pairs; a bounded source ends with the last."""

    batches_of: Sequence[tuple[str, Sequence[Event]]]
    name: str = "list:test"
    bounded: bool = True
    rejects: dict[int, list[Reject]] = field(default_factory=dict)
    fail_after: int | None = None
    read: int = 0

    def batches(self, resume_after: Position | None) -> Iterator[SourceBatch]:
        interner = Interner()
        first = 0 if resume_after is None else int(resume_after["batch"]) + 1
        for number in range(first, len(self.batches_of)):
            if self.fail_after is not None and number >= self.fail_after:
                raise KeyboardInterrupt
            partition, events = self.batches_of[number]
            rejects = self.rejects.get(number, [])
            self.read += len(events)
            yield SourceBatch(
                EventBatch.from_events(events, interner),
                position={"batch": number},
                rejects=rejects,
                rejected=len(rejects),
                partition=partition,
                end=self.bounded and number == len(self.batches_of) - 1,
            )


def cut(events: Sequence[Event], *sizes: int) -> list[tuple[str, Sequence[Event]]]:
    """Cut a log into batches of `sizes`, the last size again and again, all of partition ""."""
    batches: list[tuple[str, Sequence[Event]]] = []
    begin = 0
    while begin < len(events) or not batches:
        size = sizes[min(len(batches), len(sizes) - 1)]
        batches.append(("", events[begin : begin + size]))
        begin += size
    return batches


def at(hour: float, src: str, dst: str, graph: str = "g", type_: str = "") -> Event:
    return Event(src, dst, int(hour * HOUR_US), graph=graph, type=type_)


def make_log(seed: int, n_events: int, *, n_nodes: int = 12, mean_gap_h: float = 0.4) -> list[Event]:
    """Return a log in time order, with bursts, silent hours, repeated edges, self-loops and two graphs."""
    draw = random.Random(seed)
    hour, events = 1000.0, []
    for _ in range(n_events):
        hour += draw.choice((0.0, draw.expovariate(1 / mean_gap_h), draw.expovariate(1 / (6 * mean_gap_h))))
        src, dst = (f"n{int(n_nodes * draw.random() ** 2)}" for _ in range(2))
        events.append(at(hour, src, dst, graph=draw.choice(("g", "g", "h")), type_=draw.choice(("reply", "like", ""))))
    return events


def run(
    store: Path, batches: Sequence[tuple[str, Sequence[Event]]], *, name: str = "list:test", **options: object
) -> IngestResult:
    return ingest(ListSource(batches, name=name), f"sqlite:///{store}", IngestOptions(**options))  # type: ignore[arg-type]


def query(store: Path, sql: str, *parameters: object) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(f"file:{store}?mode=ro", uri=True)
    try:
        return connection.execute(sql, parameters).fetchall()
    finally:
        connection.close()


def snapshot_rows(store: Path) -> list[tuple[object, ...]]:
    """Return all snapshots with their graph's name; floats compare exactly."""
    metrics = ", ".join(f"s.{name}" for name in METRIC_NAMES)
    return query(
        store,
        f"SELECT name, step_start_us, revision, {metrics} FROM snapshots s JOIN graphs ON graph_id = id"
        " ORDER BY name, step_start_us",
    )


def dump(store: Path) -> dict[str, list[tuple[object, ...]]]:
    """Return every row of every table but the writer's epoch, which counts processes."""
    tables = [str(row[0]) for row in query(store, "SELECT name FROM sqlite_schema WHERE type = 'table'")]
    return {table: query(store, f"SELECT * FROM {table}") for table in tables if table != "writer"}


def counts_by_hand(events: Sequence[Event], step_us: int = HOUR_US) -> dict[str, dict[int, dict[str, int]]]:
    """Return, per graph and step, the metrics that plain sets can count; `events` are the ones that count."""
    end_us = step_start_us(max(event.ts_us for event in events), step_us) + step_us
    table: dict[str, dict[int, dict[str, int]]] = {}
    for graph in {event.graph for event in events}:
        own = [event for event in events if event.graph == graph]
        nodes: set[str] = set()
        edges: set[tuple[str, str]] = set()
        rows = table[graph] = {}
        start_us = step_start_us(min(event.ts_us for event in own), step_us)
        for step in range(start_us, end_us, step_us):
            here = [event for event in own if step <= event.ts_us < step + step_us]
            active = {event.src for event in here} | {event.dst for event in here}
            unique = {(event.src, event.dst) for event in here}
            rows[step] = {
                "events": len(here),
                "active_nodes": len(active),
                "new_nodes": len(active - nodes),
                "unique_edges": len(unique),
                "new_edges": len(unique - edges),
                "self_loops": sum(event.src == event.dst for event in here),
            }
            nodes |= active
            edges |= unique
            rows[step] |= {"total_nodes": len(nodes), "total_edges": len(edges)}
    return table


def counts_in_store(store: Path) -> dict[str, dict[int, dict[str, int]]]:
    """Return the same metrics from a store."""
    names = ("events", "active_nodes", "new_nodes", "unique_edges", "new_edges", "self_loops")
    names = (*names, "total_nodes", "total_edges")
    table: dict[str, dict[int, dict[str, int]]] = {}
    for graph, step, *values in query(
        store,
        f"SELECT name, step_start_us, {', '.join('s.' + n for n in names)}"
        " FROM snapshots s JOIN graphs ON graph_id = id",
    ):
        table.setdefault(str(graph), {})[int(str(step))] = dict(zip(names, (int(str(v)) for v in values), strict=True))
    return table
