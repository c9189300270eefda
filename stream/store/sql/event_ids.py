"""The part of a writer that remembers the ids of events, so that none is counted twice within a window."""

from collections.abc import Sequence
from hashlib import blake2b
from itertools import pairwise

import numpy as np

from stream.events import IntArray
from stream.store.known import BoolArray
from stream.store.sql.database import Part

SAME_IDS = "SELECT high, low, ts_us FROM event_ids WHERE graph_id = ? AND high {keys}"
FORGET_IDS = "DELETE FROM event_ids WHERE ts_us < ? AND graph_id {keys}"
_Key = tuple[int, int, int]


class EventIds(Part):
    """Ids of events, as 128-bit digests."""

    def remember_ids(self, graph_id: IntArray, ids: Sequence[str], ts_us: IntArray, *, window_us: int) -> BoolArray:
        """Return which events [n] were seen before, and remember the others.

        An event was seen before if its graph has one of the same id whose time is at most `window_us` away: in the
        store, or earlier in the arrays.
        """
        if not len(ids):
            return np.zeros(0, dtype=np.bool_)
        digests = b"".join([blake2b(id_.encode(), digest_size=16).digest() for id_ in ids])
        high, low = np.frombuffer(digests, dtype="<i8").reshape(-1, 2).astype(np.int64).T
        order = np.lexsort((low, high, graph_id))
        graphs, highs, lows = graph_id[order], high[order], low[order]
        held: dict[_Key, list[int]] = {}
        borders = [0, *(np.flatnonzero(graphs[1:] != graphs[:-1]) + 1).tolist(), len(graphs)]
        for begin, end in pairwise(borders):
            graph = int(graphs[begin])
            for same_high, same_low, same_us in self.database.fetch_in(SAME_IDS, (graph,), highs[begin:end]):
                held.setdefault((graph, same_high, same_low), []).append(same_us)
        # Only ids that are held, or come more than once, can have been seen: few, and the order among them matters.
        repeats = np.zeros(len(order), dtype=np.bool_)
        equal = (lows[1:] == lows[:-1]) & (highs[1:] == highs[:-1]) & (graphs[1:] == graphs[:-1])
        repeats[1:] |= equal
        repeats[:-1] |= equal
        if held:
            repeats |= np.isin(highs, np.array([key[1] for key in held], dtype=np.int64))
        seen = np.zeros(len(order), dtype=np.bool_)
        for index in np.sort(order[repeats]).tolist():
            times = held.setdefault((int(graph_id[index]), int(high[index]), int(low[index])), [])
            at_us = int(ts_us[index])
            if any(abs(at_us - other_us) <= window_us for other_us in times):
                seen[index] = True
            else:
                times.append(at_us)
        new = order[~seen[order]]
        self.database.insert(
            "event_ids", {"graph_id": graph_id[new], "high": high[new], "low": low[new], "ts_us": ts_us[new]}
        )
        return seen

    def forget_ids(self, graph_id: IntArray, before_us: int) -> None:
        """Forget the ids of the events of graphs [n] before a time."""
        self.database.fetch_in(FORGET_IDS, (before_us,), graph_id)
