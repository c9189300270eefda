"""From changes of the outbox to the snapshots that stand behind them, in pieces of bounded size."""

from collections.abc import Collection, Iterable, Iterator
from itertools import groupby

from stream.store.base import SnapshotReader, SnapshotTable
from stream.store.outbox import CHANGE_STEPS, Change

# Snapshots that are acknowledged together: a few requests.
PIECE_STEPS = 4 * CHANGE_STEPS


def pieces(changes: Iterable[Change]) -> Iterator[list[Change]]:
    """Yield changes in their order, in lists of at most `PIECE_STEPS` snapshots."""
    piece: list[Change] = []
    steps = 0
    for change in changes:
        if piece and steps + change.n_steps > PIECE_STEPS:
            yield piece
            piece, steps = [], 0
        piece.append(change)
        steps += change.n_steps
    if piece:
        yield piece


def snapshots_of(reader: SnapshotReader, changes: Iterable[Change], graphs: Collection[str]) -> Iterator[SnapshotTable]:
    """Yield the snapshots that changes name as the store has them now, each once, in tables of bounded size.

    Args:
        reader: the store.
        changes: in any order; they may overlap.
        graphs: the graphs that the store has; what was erased since a change is passed over.
    """
    for graph, step_us, first_us, last_us in _spans(change for change in changes if change.graph in graphs):
        for begin_us in range(first_us, last_us + 1, CHANGE_STEPS * step_us):
            end_us = min(begin_us + CHANGE_STEPS * step_us, last_us + step_us)
            yield reader.snapshots(graph, start_us=begin_us, end_us=end_us)


def _spans(changes: Iterable[Change]) -> Iterator[tuple[str, int, int, int]]:
    """Yield graph, step size, first and last step of changes, those joined that overlap or follow each other."""
    ordered = sorted(changes, key=lambda change: (change.graph, change.step_us, change.first_step_us))
    for (graph, step_us), of_graph in groupby(ordered, key=lambda change: (change.graph, change.step_us)):
        first, *others = of_graph
        first_us, last_us = first.first_step_us, first.last_step_us
        for change in others:
            if change.first_step_us > last_us + step_us:
                yield graph, step_us, first_us, last_us
                first_us = change.first_step_us
                last_us = change.last_step_us
            last_us = max(last_us, change.last_step_us)
        yield graph, step_us, first_us, last_us
