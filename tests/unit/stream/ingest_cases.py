"""Small logs, a source that serves them, and the store's contents in a form that can be compared."""

import random
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from infra.schema import METRIC_NAMES
from infra.steps import HOUR_US, step_start_us
from stream.events import Event, EventBatch, Interner, Reject
from stream.ingest import Ingest, IngestOptions
from stream.progress import IngestProgress, IngestResult
from stream.sources.base import Claims, Part, PartitionedBatch, PartitionedSource
from stream.store import open_writer


@dataclass
class ListSource:
    """Events from memory. `batches_of` holds (partition, events) pairs; a bounded source ends with the last.

    `idle` names the partitions that fall idle with a batch, by its number; they wake with their next event.
    """

    batches_of: Sequence[tuple[str, Sequence[Event]]]
    name: str = "list:test"
    bounded: bool = True
    rejects: dict[int, list[Reject]] = field(default_factory=dict)
    idle: dict[int, Sequence[str]] = field(default_factory=dict)
    fail_after: int | None = None
    read: int = 0

    def batches(self, claims: Claims) -> Iterator[PartitionedBatch]:
        interner = Interner()
        positions = claims.claim(sorted({partition for partition, _ in self.batches_of}))
        # Batches are committed in their order, so the furthest partition tells which ones were.
        first = max(-1 if position is None else int(position["batch"]) for position in positions.values()) + 1
        for number in range(first, len(self.batches_of)):
            if self.fail_after is not None and number >= self.fail_after:
                raise KeyboardInterrupt
            partition, events = self.batches_of[number]
            rejects = self.rejects.get(number, [])
            self.read += len(events)
            last = number == len(self.batches_of) - 1
            parts = [Part(partition, 0, len(events), {"batch": number}, len(rejects))]
            parts += [
                Part(name, len(events), len(events), {"batch": number}, idle=True)
                for name in self.idle.get(number, ())
                if name != partition
            ]
            yield PartitionedBatch(
                EventBatch.from_events(events, interner),
                tuple(parts),
                rejects,
                end=self.bounded and last,
                complete=self.bounded and last,
            )


@contextmanager
def temporary_store() -> Iterator[Path]:
    """Yield a place for a store that is gone afterwards, as property-based tests need one for each example."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "store.db"


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
    return ingest_list(ListSource(batches, name=name), store, **options)


def ingest_list(
    source: PartitionedSource,
    store: Path,
    on_progress: Callable[[IngestProgress], None] | None = None,
    **options: object,
) -> IngestResult:
    with open_writer(f"sqlite:///{store}") as writer:
        job = Ingest(source, writer, IngestOptions(**options), on_progress)  # type: ignore[arg-type]
        job.run()
        return job.result()


class Killed(BaseException):
    """The process dies."""


def dying(after: int | None) -> Callable[[IngestProgress], None]:
    """Return what dies when it is told of progress for this time, counted from 1; None: never."""
    commits = 0

    def on_progress(_: IngestProgress) -> None:
        nonlocal commits
        commits += 1
        if commits == after:
            raise Killed

    return on_progress


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
    """Return every row of every table, sorted, but the numbers of the writers, which count processes."""
    tables = [str(row[0]) for row in query(store, "SELECT name FROM sqlite_schema WHERE type = 'table'")]
    tables = [table for table in tables if table != "writer" and not table.startswith("sqlite_")]
    columns = {
        table: [str(row[1]) for row in query(store, f"PRAGMA table_info({table})") if row[1] != "owner"]
        for table in tables
    }
    return {
        table: sorted(query(store, f"SELECT {', '.join(names)} FROM {table}"), key=repr)
        for table, names in columns.items()
    }


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
