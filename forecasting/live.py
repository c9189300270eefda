"""Live states: each graph of a store encoded once, then advanced as its snapshots close or are revised.

A state is a function of the snapshots and of the model alone, to the last bit: the history is encoded in blocks that
are aligned to its first step, and whatever is newer is replayed on top of the last whole block. Every process, whenever
it started, thus holds the same state and gives the same answer, and a revision costs the replay of a short tail:
revisions within the last one to two blocks are replayed, older ones encode the history anew.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from forecasting.history import read_history
from forecasting.resolving import CalibratedOn, Resolved, Stamp, calibrated_on, floor, resolve, stamp_of
from infra.errors import GraphtideError
from infra.schema import METRIC_INDEX
from models.contract import BLOCK_STEPS, FloatArray, Model
from stream.store.base import GraphInfo, SnapshotReader

# Looks at a store that is written at the same time, before a state one commit behind will do.
_LOOKS = 3
_EVENTS = METRIC_INDEX["events"]


@dataclass(frozen=True, slots=True)
class LiveState:
    """A graph at its last closed step, ready to be rolled out; a value.

    Attributes:
        graph: its name.
        step_us: step size in microseconds.
        next_step_us: start of forecast step 0, which is the end of the last observed step.
        snapshots: observed steps.
        digest: what was observed, as hexadecimal digits; equal exactly where the snapshots are.
        model, state: what to roll out.
        model_digest: SHA-256 of the weights; None for a floor.
        calibrated_until_step: distance ahead, in steps, up to which intervals were found to hold what they say.
        skill_until_step: up to which forecasts were found to be better than the climate of the series.
        calibrated_on: on which graphs both were found; None where they are.
        card: of the model; empty for a floor.
        degraded_reason: why another than the graph's model answers; None where nothing is wrong.
        identity: what tells the model from every other, its calibration included; its name if empty.
    """

    graph: str
    step_us: int
    next_step_us: int
    snapshots: int
    digest: str
    model: Model[Any]
    state: Any
    model_digest: str | None = None
    degraded_reason: str | None = None
    calibrated_until_step: int | None = None
    skill_until_step: int | None = None
    calibrated_on: CalibratedOn | None = None
    card: dict[str, Any] = field(default_factory=dict)
    identity: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """What a forecast from this state depends on, beside its parameters."""
        return self.graph, self.digest, self.identity or self.model.name


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a graph stands, as far as its forecasts depend on it."""

    step_us: int
    first_step_us: int | None
    last_step_us: int | None
    events: int

    @classmethod
    def of(cls, info: GraphInfo) -> "_Place":
        return cls(info.step_us, info.first_step_us, info.last_step_us, info.events)


@dataclass(slots=True)
class _Tracked:
    """A graph that is followed: the state at its last whole block, and what the tail on top of it looked like."""

    place: "_Place"
    resolved: Resolved
    start_us: int
    base_state: Any
    base_steps: int
    base_events: float
    base_hash: Any
    tail: FloatArray = field(init=False)
    live: LiveState = field(init=False)


class LiveStates:
    """The states of the graphs of a store, at most `max_graphs` of them. For one thread at a time.

    Args:
        open_reader: opens the store; called again after a failure.
        models: folder of the checkpoints.
        max_graphs: states that are kept; the one used least recently goes first.
    """

    def __init__(self, open_reader: Callable[[], SnapshotReader], models: Path, *, max_graphs: int) -> None:
        self._open_reader = open_reader
        self._models = models
        self._max_graphs = max_graphs
        self._reader: SnapshotReader | None = None
        self._tracked: OrderedDict[str, _Tracked] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the store; the next call opens it again."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def catalog(self) -> dict[str, GraphInfo]:
        """Return the graphs of the store as they stand now.

        Raises:
            StoreError: the store cannot be read.
        """
        return {info.name: info for info in self._read(lambda reader: reader.graphs())}

    def tracked(self) -> list[str]:
        """Return the graphs whose states are kept."""
        return list(self._tracked)

    def is_current(self, info: GraphInfo) -> bool:
        """Tell whether the state of a graph stands at what `info` says, under the model that lies in its folder."""
        known = self._tracked.get(info.name)
        return known is not None and known.place == _Place.of(info) and known.resolved.stamp == self._stamp_of(info)

    def state_of(self, graph: str) -> LiveState:
        """Return the state of a graph at its last closed step, encoded or advanced if needed.

        Raises:
            StoreError: the store cannot be read, there is no such graph, or none of its steps is closed.
            ModelError: the snapshots hold what no model can read.
        """
        for _ in range(_LOOKS):
            info = self._read(lambda reader: reader.graph(graph))
            known = self._tracked.get(graph)
            if known is not None and self.is_current(info):
                break
            if known is not None and self._advance(known, info):
                break
            if known is None or self._read(lambda reader: reader.graph(graph)) == info:
                resolved = resolve(self._models, graph, info.step_us, info.snapshots)
                known = self._tracked[graph] = self._encoded(info, resolved)
                break
            # Ingestion committed between two of our looks: nothing is wrong, look again.
        else:
            # A state one commit behind is a right answer too.
            known = self._tracked[graph]
        self._tracked.move_to_end(graph)
        while len(self._tracked) > self._max_graphs:
            self._tracked.popitem(last=False)
        return known.live

    def state_at(self, graph: str, snapshots: int, *, floor_for: str | None = None) -> LiveState:
        """Return the state of a graph when it had so many snapshots, as they read today; it is not kept.

        `floor_for` is why a floor shall answer in the place of the model, as for `degrade`; None where none shall.

        Raises:
            StoreError: as for `state_of`.
        """
        info = self._read(lambda reader: reader.graph(graph))
        if floor_for is None:
            resolved = resolve(self._models, graph, info.step_us, snapshots)
        else:
            resolved = floor(self._models, graph, info.step_us, snapshots, floor_for)
        return self._encoded(info, resolved, snapshots).live

    def observed(self, graph: str, step_start_us: int) -> FloatArray | None:
        """Return [M] float64, the metrics of a closed step as they read now; None where the store has no such step.

        Raises:
            StoreError: the store cannot be read, or there is no such graph.
        """
        table = self._read(lambda reader: reader.snapshots(graph, start_us=step_start_us, end_us=step_start_us + 1))
        return table.values[0] if len(table) else None

    def degrade(self, graph: str, reason: str) -> LiveState:
        """Return the state of a floor in the place of a model that failed; kept until the model's files change.

        Raises:
            StoreError: as for `state_of`.
        """
        info = self._read(lambda reader: reader.graph(graph))
        instead = floor(self._models, graph, info.step_us, info.snapshots, reason)
        self._tracked[graph] = self._encoded(info, instead)
        return self._tracked[graph].live

    def _stamp_of(self, info: GraphInfo) -> Stamp:
        return stamp_of(self._models, info.name, info.step_us, info.snapshots)

    def _read(self, question: Callable[[SnapshotReader], Any]) -> Any:
        try:
            if self._reader is None:
                self._reader = self._open_reader()
            return question(self._reader)
        except GraphtideError:
            # The file may have been replaced; a fresh connection costs little.
            self.close()
            raise

    def _encoded(self, info: GraphInfo, resolved: Resolved, snapshots: int | None = None) -> _Tracked:
        history = self._read(lambda reader: read_history(reader, info.name))
        history = history if snapshots is None else history.part(0, snapshots)
        base_steps = BLOCK_STEPS * max(0, len(history) // BLOCK_STEPS - 1)
        fresh = _Tracked(
            place=_Place.of(info),
            resolved=resolved,
            start_us=history.start_us,
            base_state=resolved.model.start(history.step_us, history.start_us),
            base_steps=0,
            base_events=0,
            base_hash=hashlib.blake2b(f"{history.step_us} {history.start_us}".encode(), digest_size=16),
        )
        _move_base(fresh, history.values[:base_steps])
        return _finish(fresh, info, history.values[base_steps:])

    def _advance(self, known: _Tracked, info: GraphInfo) -> bool:
        """Advance a graph to what the store holds now; False where it has to be encoded anew."""
        if known.resolved.stamp != self._stamp_of(info) or known.start_us != info.first_step_us:
            return False
        base_us = known.start_us + known.base_steps * info.step_us
        tail = self._read(lambda reader: reader.snapshots(info.name, start_us=base_us))
        if len(tail) < BLOCK_STEPS and known.base_steps > 0:
            return False
        # Every revision brings events. If those of the tail do not explain the sum, an older step was revised.
        if known.base_events + tail.values[:, _EVENTS].sum() != info.events:
            return False
        surplus = BLOCK_STEPS * max(0, len(tail) // BLOCK_STEPS - 1)
        has_grown = np.array_equal(tail.values[: len(known.tail)], known.tail)
        earlier = known.live.state if has_grown else None
        _move_base(known, tail.values[:surplus], earlier)
        _finish(known, info, tail.values[surplus:], earlier)
        known.place = _Place.of(info)
        return True


def _move_base(tracked: _Tracked, values: FloatArray, earlier: Any = None) -> None:
    """Advance the base over whole blocks: its bits do not depend on how they arrived."""
    tracked.base_state = tracked.resolved.model.update(tracked.base_state, values, earlier=earlier)
    tracked.base_hash.update(_bytes(values))
    tracked.base_events += float(values[:, _EVENTS].sum())
    tracked.base_steps += len(values)


def _finish(tracked: _Tracked, info: GraphInfo, tail: FloatArray, earlier: Any = None) -> _Tracked:
    resolved = tracked.resolved
    digest = tracked.base_hash.copy()
    digest.update(_bytes(tail))
    steps = tracked.base_steps + len(tail)
    tracked.tail = tail.copy()
    tracked.live = LiveState(
        graph=info.name,
        step_us=info.step_us,
        next_step_us=tracked.start_us + steps * info.step_us,
        snapshots=steps,
        digest=digest.hexdigest(),
        model=resolved.model,
        state=resolved.model.update(tracked.base_state, tail, earlier=earlier),
        model_digest=resolved.digest,
        degraded_reason=resolved.reason,
        card=resolved.card,
        identity=resolved.identity,
        calibrated_until_step=None if resolved.calibration is None else resolved.calibration.calibrated_until_step,
        skill_until_step=None if resolved.calibration is None else resolved.calibration.skill_until_step,
        calibrated_on=calibrated_on(resolved),
    )
    return tracked


def _bytes(values: FloatArray) -> bytes:
    return np.ascontiguousarray(values, dtype="<f8").tobytes()
