"""Restoring the snapshots of a store of record from a projection, where the store itself was lost.

Snapshots, their revisions and what is counted of a graph come back, so that reads and forecasts are equal. Node names,
edges, open steps and the positions of sources are in no projection. Without the nodes and edges that were seen before,
`new_*` and `total_*` of a next step cannot be known, so a rebuilt graph takes no more events; to go on, ingest the log
anew into another store, or into a graph of another name.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from infra.errors import StoreError
from infra.schema import METRIC_INDEX, METRIC_NAMES
from stream.store.base import GraphInfo, SnapshotReader, SnapshotTable
from stream.store.records import EdgeRows, Feeder, GraphState, SourceState
from stream.store.writer import Closed, StoreWriter

# The source that a rebuilt graph is noted to come from begins with this; no source that is read does.
REBUILT = "rebuilt:"
_PAGE_STEPS = 20_000

OnSteps = Callable[[str, int], None]


def rebuild(reader: SnapshotReader, writer: StoreWriter, origin: str, on_steps: OnSteps | None = None) -> int:
    """Restore all graphs in one transaction and return how many; the store has none of them before.

    Args:
        reader: the projection.
        writer: the store to restore.
        origin: the projection's address without secrets, to be remembered.
        on_steps: called with a graph's name and how many of its steps are restored.

    Raises:
        StoreError: the store has one of the graphs, or either of the two failed; nothing is restored.
    """
    infos = reader.graphs()
    with writer.transaction():
        source = source_of_rebuilt(writer, origin)
        for info in infos:
            if writer.graph(info.name) is not None:
                raise StoreError(
                    f"the store has a graph {info.name!r} already",
                    fix="rebuild into a new store: --store sqlite:///PATH",
                )
            graph = writer.add_graph(info.name, info.step_us)
            writer.link(source, "", graph)
            last = _restore_steps(reader, writer, info, graph, on_steps)
            _restore_facts(info, graph, last)
            writer.save_graphs([graph])
    return len(infos)


def source_of_rebuilt(writer: StoreWriter, origin: str) -> SourceState:
    """Return the source, which has ended, that graphs restored from a projection are linked to.

    It bars events from them, and tells the projector that the place they came from has them.
    """
    name = REBUILT + origin
    source = writer.source(name) or writer.add_source(name, split_by_type=False)
    writer.end_source(source)
    return source


def refuse_rebuilt(graph: str, feeders: Iterable[Feeder]) -> None:
    """Refuse to count events of a graph that was rebuilt.

    Args:
        graph: its name.
        feeders: what the store says that it was filled from.

    Raises:
        StoreError: it was rebuilt.
    """
    for feeder in feeders:
        if feeder.source.startswith(REBUILT):
            raise StoreError(
                f"graph {graph!r} was rebuilt from {feeder.source.removeprefix(REBUILT)}: its nodes and edges are not"
                " known, so it can be read and forecast, and takes no more events",
                fix="ingest the whole log into another store (--store), or into a graph of another name (--graph)",
            )


def _restore_steps(
    reader: SnapshotReader, writer: StoreWriter, info: GraphInfo, graph: GraphState, on_steps: OnSteps | None
) -> SnapshotTable | None:
    """Write the snapshots of a graph and return the last page of them, None if there are none."""
    table = None
    restored = 0
    for begin_us, end_us in _pages(info):
        table = reader.snapshots(info.name, start_us=begin_us, end_us=end_us)
        steps = len(table)
        metrics = {name: np.ascontiguousarray(table.values[:, at]) for name, at in METRIC_INDEX.items()}
        writer.add_snapshots(np.full(steps, graph.id, dtype=np.int64), table.step_start_us, metrics, EdgeRows.none())
        for begin, end in _revised(table):
            revised = Closed(table.step_start_us[begin:end], table.values[begin:end])
            writer.revise(graph, revised, EdgeRows.none())
        restored += steps
        if on_steps is not None:
            on_steps(info.name, restored)
    return table


def _restore_facts(info: GraphInfo, graph: GraphState, last: SnapshotTable | None) -> None:
    graph.snapshots, graph.events, graph.late = info.snapshots, info.events, info.late
    graph.first_step_us = info.first_step_us
    if last is None or info.last_step_us is None:
        return
    graph.next_step_us = info.last_step_us + info.step_us
    # Nothing revises a rebuilt graph, and none of its edges are here.
    graph.final_us = graph.edges_from_us = graph.next_step_us
    graph.total_nodes = int(last.values[-1, METRIC_NAMES.index("total_nodes")])
    graph.total_edges = int(last.values[-1, METRIC_NAMES.index("total_edges")])


def _pages(info: GraphInfo) -> Iterator[tuple[int, int]]:
    if info.first_step_us is None or info.last_step_us is None:
        return
    stop_us = info.last_step_us + info.step_us
    page_us = _PAGE_STEPS * info.step_us
    for begin_us in range(info.first_step_us, stop_us, page_us):
        yield begin_us, min(begin_us + page_us, stop_us)


def _revised(table: SnapshotTable) -> Iterator[tuple[int, int]]:
    """Yield runs of rows, each to be revised once, so that every row ends with its revision."""
    for revision in range(1, int(table.revision.max(initial=0)) + 1):
        rows = np.flatnonzero(table.revision >= revision)
        for run in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1):
            yield int(run[0]), int(run[-1]) + 1
