"""Which events of a batch belong to which graph."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from stream.events import EventBatch, IntArray
from stream.store.known import BoolArray

# Stands between the name of a graph and the type of the events of a part of it.
TYPE_MARK = ":"


@dataclass(frozen=True, slots=True)
class Members:
    """The rows of a batch that belong to one graph, ascending; `whole` unless it is a part of another by type."""

    name: str
    rows: IntArray
    whole: bool


def memberships(events: EventBatch, eligible: BoolArray, *, split_by_type: bool) -> list[Members]:
    """Return the graphs of the `eligible` [n] rows of a batch and these rows, in order of first appearance."""
    names = events.interner.names
    found: list[Members] = []
    rows = np.flatnonzero(eligible)
    for graph_code, of_eligible in _groups(events.graph[rows]):
        of_graph = rows[of_eligible]
        found.append(Members(names[graph_code], of_graph, whole=True))
        if split_by_type:
            found.extend(
                Members(f"{names[graph_code]}{TYPE_MARK}{names[type_code]}", of_graph[of_type], whole=False)
                for type_code, of_type in _groups(events.type[of_graph])
                if names[type_code]
            )
    # Stable: a graph stands before the part of it that begins with the same event.
    return sorted(found, key=lambda members: int(members.rows[0]))


def _groups(codes: IntArray) -> list[tuple[int, IntArray]]:
    """Return each distinct code and the indices where it stands, ascending."""
    if not len(codes):
        return []
    if int(codes.min()) == int(codes.max()):
        return [(int(codes[0]), np.arange(len(codes)))]
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    borders = [0, *(np.flatnonzero(ordered[1:] != ordered[:-1]) + 1).tolist(), len(codes)]
    return [(int(ordered[begin]), order[begin:end]) for begin, end in pairwise(borders)]
