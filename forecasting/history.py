"""Snapshots of a store as the history that models read."""

from infra.errors import StoreError
from models.contract import History
from stream.store.base import SnapshotReader


def read_history(reader: SnapshotReader, graph: str) -> History:
    """Return all snapshots of a graph.

    Raises:
        StoreError: there is no such graph, or none of its steps is closed yet.
    """
    table = reader.snapshots(graph)
    if len(table) == 0:
        raise StoreError(
            f"graph {graph!r} has no closed step yet",
            fix="ingest more events: a step closes when the watermark passes its end, or when a bounded file ends",
        )
    return History(table.step_us, int(table.step_start_us[0]), table.values)
