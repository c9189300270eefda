"""Copying a store into another, and comparing two.

Between SQL databases everything is copied, so that ingestion goes on from the copy. From any other reader, such as
InfluxDB, the snapshots are: enough to serve and to forecast, not to add events to those graphs.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from infra.errors import StoreError
from infra.schema import METRIC_NAMES
from infra.steps import format_time
from stream.store.base import GraphInfo, SnapshotReader, SnapshotTable
from stream.store.rebuild import source_of_rebuilt
from stream.store.records import SourceState
from stream.store.sql.database import ReadDatabase
from stream.store.sql.reader import SqlSnapshots
from stream.store.sql.tables import table_columns
from stream.store.sql.writer import SqlWriter

_PAGE_STEPS = 50_000
_PAGE_ROWS = 8192
# Rows that may be large.
_PAGE_BLOBS = 128
_BLOBS = {"edges", "value"}
# Of a process, not of the store.
_NOT_COPIED = {("partitions", "owner")}

# Called with the rows copied so far.
OnProgress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Copied:
    """What was copied; `whole` if ingestion can go on from the copy."""

    graphs: int
    snapshots: int
    whole: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """One graph in two stores.

    Attributes:
        graph: its name.
        snapshots: how many the first store has; 0 where it has no such graph.
        digest: of the first store's snapshots where both are equal, else None.
        difference: the first difference, in one line; None where there is none.
    """

    graph: str
    snapshots: int
    digest: str | None
    difference: str | None


def copy_store(
    source: SnapshotReader, target: SqlWriter, on_progress: OnProgress | None = None, *, origin: str = ""
) -> Copied:
    """Copy a store in one transaction of the target.

    Args:
        source: the store.
        target: a new store.
        on_progress: called with the rows copied so far.
        origin: the address of a source that is a projection, without secrets, to be remembered.

    Raises:
        StoreError: the target has something already that would be mixed with it, or either fails.
    """
    report = on_progress or (lambda _rows: None)
    with target.transaction():
        if isinstance(source, SqlSnapshots):
            with source.database.frozen() as frozen:
                return copy_tables(frozen, target, report)
        infos = source.graphs()
        feeder = source_of_rebuilt(target, origin) if origin else None
        copied = 0
        for info in infos:
            copied += _copy_graph(source, info, target, feeder, lambda rows, before=copied: report(before + rows))  # type: ignore[misc]
    return Copied(len(infos), copied, whole=False)


def compare_stores(first: SnapshotReader, second: SnapshotReader) -> Iterator[Comparison]:
    """Compare the snapshots of every graph that either store has, by name.

    Raises:
        StoreError: a store cannot be read.
    """
    ours = {info.name: info for info in first.graphs()}
    theirs = {info.name: info for info in second.graphs()}
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in theirs:
            yield Comparison(name, ours[name].snapshots, None, "only the first store has this graph")
        elif name not in ours:
            yield Comparison(name, 0, None, "only the second store has this graph")
        else:
            yield _compare(name, first, second)


def copy_tables(source: ReadDatabase, target: SqlWriter, report: OnProgress) -> Copied:
    """Copy every table, inside a transaction of the target; the source sees one moment of its store.

    Raises:
        StoreError: the target has something already, or either fails.
    """
    database = target.database
    check_empty(target)
    copied = 0
    for table, columns in table_columns().items():
        size = _PAGE_BLOBS if _BLOBS & set(columns) else _PAGE_ROWS
        for rows in source.pages(f"SELECT {', '.join(columns)} FROM {table}", (), size):
            values = zip(*rows, strict=True)
            database.insert(
                table,
                {
                    column: [None] * len(rows) if (table, column) in _NOT_COPIED else list(column_values)
                    for column, column_values in zip(columns, values, strict=True)
                },
            )
            copied += len(rows)
            report(copied)
    database.skip_ids()
    infos = SqlSnapshots(source).graphs()
    return Copied(len(infos), sum(info.snapshots for info in infos), whole=True)


def check_empty(target: SqlWriter) -> None:
    """Make sure that a whole store can be copied into a store.

    Raises:
        StoreError: it has something already.
    """
    for table in ("graphs", "sources"):
        if target.database.fetch(f"SELECT 1 FROM {table} LIMIT 1"):
            raise StoreError(
                f"the store {target.database.name} is not empty; a whole store is copied into an empty one",
                fix="name another target, or move that store away",
            )


def _copy_graph(
    source: SnapshotReader, info: GraphInfo, target: SqlWriter, feeder: SourceState | None, report: OnProgress
) -> int:
    if target.graph(info.name) is not None:
        raise StoreError(
            f"the store {target.database.name} has a graph {info.name!r} already",
            fix="name another target, or move that store away",
        )
    graph = target.add_graph(info.name, info.step_us)
    if feeder is not None:
        target.link(feeder, "", graph)
    copied, totals = 0, np.zeros(2)
    for table in _tables(source, info.name):
        target.import_snapshots(graph, table)
        copied += len(table)
        totals = table.values[-1, [METRIC_NAMES.index("total_nodes"), METRIC_NAMES.index("total_edges")]]
        report(copied)
        last_step_us = int(table.step_start_us[-1])
        graph.first_step_us = int(table.step_start_us[0]) if graph.first_step_us is None else graph.first_step_us
        graph.next_step_us = graph.edges_from_us = last_step_us + info.step_us
        graph.events += int(table.values[:, METRIC_NAMES.index("events")].sum())
    graph.snapshots, graph.late, graph.final_us = copied, info.late, info.final_us
    graph.total_nodes, graph.total_edges = (int(total) for total in totals)
    target.save_graphs([graph])
    return copied


def _tables(reader: SnapshotReader, name: str) -> Iterator[SnapshotTable]:
    """Yield a graph's snapshots in tables of bounded size, none empty."""
    info = reader.graph(name)
    if info.first_step_us is None or info.last_step_us is None:
        return
    width_us = _PAGE_STEPS * info.step_us
    for begin_us in range(info.first_step_us, info.last_step_us + 1, width_us):
        end_us = min(begin_us + width_us, info.last_step_us + info.step_us)
        table = reader.snapshots(name, start_us=begin_us, end_us=end_us)
        if len(table):
            yield table


def _compare(name: str, first: SnapshotReader, second: SnapshotReader) -> Comparison:
    ours, theirs = first.snapshots(name), second.snapshots(name)
    digest = ours.digest()
    if digest == theirs.digest():
        return Comparison(name, len(ours), digest, None)
    return Comparison(name, len(ours), None, first_difference(ours, theirs))


def first_difference(ours: SnapshotTable, theirs: SnapshotTable) -> str:
    """Return where two unequal tables differ first, in one line."""
    if ours.step_us != theirs.step_us:
        return f"steps of {ours.step_us} us in the first store, of {theirs.step_us} us in the second"
    n_steps = min(len(ours), len(theirs))
    other_step = ours.step_start_us[:n_steps] != theirs.step_start_us[:n_steps]
    revision = ours.revision[:n_steps] != theirs.revision[:n_steps]
    # By bits, as digests compare: 0 and -0 are different, a NaN is equal to itself.
    values = ours.values[:n_steps].view(np.int64) != theirs.values[:n_steps].view(np.int64)
    differs = np.flatnonzero(other_step | revision | values.any(axis=1))
    if not len(differs):
        return f"{len(ours):,} snapshots in the first store, {len(theirs):,} in the second"
    at = int(differs[0])
    if other_step[at]:
        times = (format_time(int(table.step_start_us[at])) for table in (ours, theirs))
        return "snapshot {} is of step {} in the first store, of {} in the second".format(at + 1, *times)
    where = f"step {format_time(int(ours.step_start_us[at]))}"
    if revision[at]:
        return f"{where}: revision {ours.revision[at]} in the first store, {theirs.revision[at]} in the second"
    column = int(np.flatnonzero(values[at])[0])
    pair = (table.values[at, column] for table in (ours, theirs))
    return "{}: {} is {:.17g} in the first store, {:.17g} in the second".format(where, ours.metrics[column], *pair)
