"""The events that ingestion is measured with, made from a seed, and what the right counts of them are.

1,000,000 events of some 79 bytes: few nodes have most of the edges, an hour of event time, 10 % come up to 20 s late.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stream.events import IntArray

TYPES = ("reply", "repost", "mention", "follow", "like")
START_MS = 1_767_225_600_000  # 2026-01-01
SPAN_MS = 3_600_000
STEP_MS = 60_000
N_EVENTS = 1_000_000
N_NODES = 100_000
OUT_OF_ORDER_MS = 20_000
PARTITIONS = 4


@dataclass(frozen=True, slots=True)
class Truth:
    """Sums over the steps of the three counts."""

    events: int
    active_nodes: int
    unique_edges: int


@dataclass(frozen=True, slots=True)
class EventLog:
    """n events in the order in which they are sent, as arrays [n]; event i goes to partition i modulo `PARTITIONS`."""

    type: IntArray
    src: IntArray
    dst: IntArray
    ts_ms: IntArray

    @classmethod
    def make(cls, n_events: int = N_EVENTS) -> "EventLog":
        """Return the log of the published figures, or its like with fewer events; the same on every call."""
        random = np.random.default_rng(7)
        shuffled = random.permutation(N_NODES)

        def popular(count: int) -> IntArray:
            return shuffled[np.minimum((random.pareto(1.1, count) * 20).astype(np.int64), N_NODES - 1)]

        src = popular(n_events)
        dst = shuffled[random.integers(0, N_NODES, n_events)]
        to_popular = random.random(n_events) < 0.6
        dst[to_popular] = popular(int(to_popular.sum()))
        kinds = random.integers(0, len(TYPES), n_events)
        delay_ms = random.integers(0, OUT_OF_ORDER_MS, n_events) * (random.random(n_events) < 0.1)
        ts_ms = np.maximum(START_MS + np.arange(n_events) * SPAN_MS // n_events - delay_ms, START_MS)
        return cls(kinds, src, dst, ts_ms)

    def __len__(self) -> int:
        return len(self.ts_ms)

    def head(self, n_events: int) -> "EventLog":
        """Return the first events."""
        return EventLog(self.type[:n_events], self.src[:n_events], self.dst[:n_events], self.ts_ms[:n_events])

    def truth(self) -> Truth:
        """Return the right counts."""
        step = (self.ts_ms - START_MS) // STEP_MS
        nodes = np.unique(np.concatenate([step * N_NODES + self.src, step * N_NODES + self.dst]))
        return Truth(len(self), len(nodes), len(np.unique((step * N_NODES + self.src) * N_NODES + self.dst)))

    def json_lines(self) -> list[bytes]:
        """Return each event as a JSON object."""
        iso = np.datetime_as_string(self.ts_ms.astype("datetime64[ms]"), unit="ms")
        columns = zip(self.type.tolist(), self.src.tolist(), self.dst.tolist(), iso.tolist(), strict=True)
        return [
            f'{{"type":"{TYPES[kind]}","src":"u{src}","dst":"u{dst}","ts":"{ts}Z"}}'.encode()
            for kind, src, dst, ts in columns
        ]

    @staticmethod
    def closing_lines() -> list[bytes]:
        """Return an event for each partition that comes so much later that all steps can close."""
        ts = np.datetime_as_string(np.datetime64(START_MS + 10 * SPAN_MS, "ms"), unit="ms")
        return [f'{{"type":"like","src":"u0","dst":"u0","ts":"{ts}Z"}}'.encode()] * PARTITIONS


def batched(lines: list[bytes], size: int) -> Iterator[bytes]:
    """Yield messages of `size` lines each, without a line end behind the last."""
    for begin in range(0, len(lines), size):
        yield b"\n".join(lines[begin : begin + size])
