"""The simulated network as a source: bounded, in time order, resumable, and the same for the same parameters."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from infra.errors import InputError
from infra.steps import format_time
from infra.whole_file import whole_file
from stream.events import DEFAULT_GRAPH, EventBatch, Interner
from stream.simulation.actors import EVENT_TYPES, Actors
from stream.simulation.config import SimulationConfig
from stream.simulation.times import simulate_times
from stream.sources.base import Position, SourceBatch

__all__ = ["SimulatedSource", "SimulationConfig"]

_BATCH_EVENTS = 20_000


class SimulatedSource:
    """The events of a simulated network.

    Args:
        config: what the network looks like; equal values give equal events, byte for byte.
        graph: the graph that the events belong to.
    """

    def __init__(self, config: SimulationConfig, *, graph: str = DEFAULT_GRAPH) -> None:
        self.config = config
        self.graph = graph

    @property
    def name(self) -> str:
        """The identity of the source in the store: a digest of its parameters."""
        digest = hashlib.sha256(f"{self.graph}:{self.config.identity()}".encode()).hexdigest()
        return f"simulated:{digest[:16]}"

    def batches(self, resume_after: Position | None) -> Iterator[SourceBatch]:
        """Yield the events after `resume_after` in time order; the last batch has `end` set and may be empty.

        A position is the number of events handed over. What lies before it is simulated again, for later events
        depend on it, but not handed over.

        Raises:
            InputError: the position does not belong to this simulation.
        """
        occurrences = simulate_times(self.config)
        n = len(occurrences)
        done = self._events_done(resume_after, n)
        actors = Actors(self.config)
        interner = Interner()
        graph_code = interner.code(self.graph)
        type_codes = np.array([interner.code(kind) for kind in EVENT_TYPES], dtype=np.int64)
        user_codes: list[int] = []
        for begin in range(0, max(n, 1), _BATCH_EVENTS):
            end = min(begin + _BATCH_EVENTS, n)
            actors.extend(occurrences.parent[begin:end])
            user_codes += [interner.code(f"u{user}") for user in range(len(user_codes), actors.n_users)]
            first = max(begin, done)
            if first >= end and end < n:
                continue
            rows = slice(first, end)
            codes = np.array(user_codes, dtype=np.int64)
            events = EventBatch(
                interner=interner,
                graph=np.full(end - first, graph_code, dtype=np.int64),
                type=type_codes[np.array(actors.kind[rows], dtype=np.int64)],
                src=codes[np.array(actors.src[rows], dtype=np.int64)],
                dst=codes[np.array(actors.dst[rows], dtype=np.int64)],
                ts_us=occurrences.ts_us[rows],
                weight=np.ones(end - first, dtype=np.float64),
            )
            yield SourceBatch(events=events, position={"events": end}, end=end == n)

    def write_ndjson(self, path: Path) -> int:
        """Write all events to `path`, one JSON object a line, whole or not at all; return how many.

        Raises:
            GraphtideError: the file cannot be written.
        """
        written = 0
        with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as out:
            graph = json.dumps(self.graph)
            for batch in self.batches(None):
                events = batch.events
                names = events.interner.names
                columns = (events.type, events.src, events.dst, events.ts_us)
                for type_, src, dst, ts_us in zip(*(column.tolist() for column in columns), strict=True):
                    out.write(
                        f'{{"graph": {graph}, "type": "{names[type_]}", "src": "{names[src]}", "dst": "{names[dst]}", '
                        f'"ts": "{format_time(ts_us)}"}}\n'
                    )
                written += len(events)
        return written

    def _events_done(self, resume_after: Position | None, n: int) -> int:
        if resume_after is None:
            return 0
        done = resume_after.get("events")
        if not isinstance(done, int) or isinstance(done, bool) or not 0 <= done <= n:
            raise InputError(
                f"the simulation cannot go on after {resume_after!r}: it has {n:,} events",
                fix="use the parameters and the graph that the store was filled with, or a new store",
            )
        return done
