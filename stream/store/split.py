"""Graphs that several processes may feed at the same time: how the store notes which ones are.

Whoever feeds such a graph takes it for each of its transactions and reads anew what others made of it. A process that
does not would write over their work, so the store remembers it, and no process feeds the graph in another way.
"""

from collections.abc import Iterable

from stream.store.records import Feeder, GraphState
from stream.store.writer import StoreWriter

# The source that such a graph is noted to come from, too; no source that is read has this name.
SPLIT = "split:graphs"


def note_split(writer: StoreWriter, graph: GraphState) -> None:
    """Note, inside a transaction, that several processes may feed a graph from now on."""
    mark = writer.source(SPLIT) or writer.add_source(SPLIT, split_by_type=False)
    writer.link(mark, "", graph)


def is_noted(feeders: Iterable[Feeder]) -> bool:
    """Tell whether several processes may feed the graph of these feeders."""
    return any(feeder.source == SPLIT for feeder in feeders)
