"""Bugs planted on purpose: the simulator is worth what it finds, so each of these has to be found.

Each changes the real code for a while, in the way in which somebody might have written it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np

from stream import ingest, intake, revision, windows
from stream.events import IntArray
from stream.graphs import FedGraphs
from stream.sources.base import PartitionedBatch
from stream.store.projector import Projector
from stream.store.records import GraphState, PartitionState, SourceState
from stream.store.sql.event_ids import EventIds
from stream.store.sql.writer import SqlWriter


@contextmanager
def positions_apart() -> Iterator[None]:
    """Save the positions of a batch in the transaction after its own: what a crash in between repeats counts twice."""
    save = SqlWriter.save_partitions
    transaction = SqlWriter.transaction

    def save_later(self: SqlWriter, source: SourceState, partitions: Mapping[str, PartitionState]) -> None:
        self.__dict__.setdefault("_saved_later", []).append((source, dict(partitions)))

    @contextmanager
    def apart(self: SqlWriter) -> Iterator[None]:
        with transaction(self):
            yield
        for source, partitions in self.__dict__.pop("_saved_later", []):
            with transaction(self):
                save(self, source, partitions)

    with patch.object(SqlWriter, "save_partitions", save_later), patch.object(SqlWriter, "transaction", apart):
        yield


def lateness_by_all() -> AbstractContextManager[object]:
    """Judge lateness by the furthest partition's clock instead of the event's own."""
    judge = intake.judge

    def judge_by_all(batch: PartitionedBatch, partitions: dict[str, PartitionState], rules: intake.TimeRules) -> Any:
        furthest = max((state.clock for state in partitions.values()), key=lambda clock: clock.watermark_us)
        for part in batch.parts:
            partitions[part.partition].clock = furthest
        return judge(batch, partitions, rules)

    return patch.object(ingest, "judge", judge_by_all)


def outbox_emptied_early() -> AbstractContextManager[object]:
    """Take changes out of the outbox once they are sent for, before the sink has acknowledged them."""
    pending = Projector._pending

    def acknowledged_at_once(self: Projector, outbox: Any) -> Any:
        changes, is_all = pending(self, outbox)
        self._acknowledge(changes, {change.graph for change in changes})
        return changes, is_all

    return patch.object(Projector, "_pending", acknowledged_at_once)


def first_seen_stays() -> AbstractContextManager[object]:
    """Revise steps without moving nodes and edges that are now first seen earlier."""

    def none_moves(now_us: IntArray, was_us: IntArray) -> Any:
        return was_us == windows.NEVER_US

    return patch.object(revision, "_moves", none_moves)


@contextmanager
def ids_in_memory() -> Iterator[None]:
    """Remember ids in memory alone, outside of any transaction."""
    held: dict[int, dict[tuple[int, str], list[int]]] = {}

    def remember(self: EventIds, graph_id: IntArray, ids: Sequence[str], ts_us: IntArray, *, window_us: int) -> Any:
        own = held.setdefault(id(self), {})
        seen = []
        for graph, name, at_us in zip(graph_id.tolist(), ids, ts_us.tolist(), strict=True):
            times = own.setdefault((graph, name), [])
            seen.append(any(abs(at_us - other_us) <= window_us for other_us in times))
            if not seen[-1]:
                times.append(at_us)
        return np.array(seen, dtype=np.bool_)

    with patch.object(EventIds, "remember_ids", remember):
        yield


def claims_unchecked() -> AbstractContextManager[object]:
    """Let a process that has lost its partitions commit all the same."""
    return patch.object(SqlWriter, "_check_claims", lambda self: None)


def others_not_waited_for() -> AbstractContextManager[object]:
    """Close a split graph's steps, and call them final, by the partitions of one process alone."""
    return patch.object(FedGraphs, "all_hands", FedGraphs.own_hands)


@contextmanager
def split_graphs_kept() -> Iterator[None]:
    """Go on from what one process knows of a split graph, whatever others have made of it."""
    share = SqlWriter._share

    def share_once(self: SqlWriter, name: str, step_us: int, *, alone: bool) -> GraphState:
        held: dict[str, GraphState] = self.__dict__.setdefault("_shared_states", {})
        if name not in held:
            held[name] = share(self, name, step_us, alone=alone)
        return held[name]

    with patch.object(SqlWriter, "_share", share_once):
        yield


# How the problem of a run that has found one begins; that a run breaks down in another way proves nothing.
FOUND_BY = ("WrongResultError", "BrokenInvariantError", "StuckError")

BUGS: Mapping[str, Callable[[], AbstractContextManager[object]]] = {
    "positions-apart": positions_apart,
    "lateness-by-all": lateness_by_all,
    "outbox-emptied-early": outbox_emptied_early,
    "first-seen-stays": first_seen_stays,
    "ids-in-memory": ids_in_memory,
    "claims-unchecked": claims_unchecked,
    "others-not-waited-for": others_not_waited_for,
    "split-graphs-kept": split_graphs_kept,
}
