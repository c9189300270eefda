"""What all floors share: their state, the contract of every model, and the invariants of what comes out.

Shape suffixes: T steps, H steps ahead, M metrics.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from infra.errors import ModelError
from infra.schema import METRIC_NAMES
from models.columns import COUNTS, TOTALS
from models.constraints import TotalsAccumulator
from models.contract import FloatArray, ForecastChunk, PathChunk
from models.past_errors import IntArray, PastErrors, unit_of
from models.ranks import default_dynamics, default_structure
from models.sample_paths import sample_paths
from models.seasons import season_steps

# The longest tail of history that a floor keeps: three years of hours, or at least 16 seasons of a finer step.
_MAX_TAIL_STEPS, _MIN_TAIL_SEASONS = 156 * 168, 16


@dataclass(frozen=True, slots=True)
class FloorState:
    """What a floor knows of a graph; a value.

    Attributes:
        step_us: step size in microseconds.
        next_us: start of the next step.
        observed: number of steps observed.
        first_M: the first observed step.
        tail_TM: the last observed steps, at most as many as the floor needs.
    """

    step_us: int
    next_us: int
    observed: int
    first_M: FloatArray
    tail_TM: FloatArray


class PointForecast(ABC):
    """A floor fitted to a state, for steps ahead; step 0 is the next."""

    errors: PastErrors

    @abstractmethod
    def point(self, step_H: IntArray) -> tuple[FloatArray, FloatArray, IntArray]:
        """Return the point forecast [H, M], what sets the unit of its errors [H, M], and the leads [H]."""


class Floor(ABC):
    """A simple method behind the contract of `models.contract.Model`.

    Attributes:
        name: as it stands in tables.
        tail_seasons: how many seasons of history it keeps, if they are not too many steps.
        library: what it needs of the extra `floors`, if anything.
    """

    name: str
    tail_seasons: int
    library: str | None = None

    def start(self, step_us: int, start_us: int) -> FloorState:
        """Return the state before any observation."""
        empty = np.zeros((0, len(METRIC_NAMES)))
        return FloorState(step_us, start_us, 0, np.zeros(len(METRIC_NAMES)), empty)

    def update(self, state: FloorState, values: FloatArray, *, earlier: FloorState | None = None) -> FloorState:
        """Return the state after observing `values` [T, M]; however the steps are cut, it is the same.

        `earlier` is as in `models.contract.Model.update`: it has nothing that is worth taking.

        Raises:
            ModelError: a value is not finite, or the shape is wrong.
        """
        del earlier
        if values.ndim != 2 or values.shape[1] != len(METRIC_NAMES):
            raise ModelError(f"values have shape {values.shape}, a floor needs [T, {len(METRIC_NAMES)}]")
        if not np.isfinite(values).all():
            row, column = np.argwhere(~np.isfinite(values))[0]
            raise ModelError(f"{METRIC_NAMES[column]} of observed step {row} is not finite: {values[row, column]}")
        if len(values) == 0:
            return state
        keep = self._tail_steps(state.step_us)
        return replace(
            state,
            next_us=state.next_us + len(values) * state.step_us,
            observed=state.observed + len(values),
            first_M=values[0].copy() if state.observed == 0 else state.first_M,
            tail_TM=np.concatenate([state.tail_TM, values[-keep:]])[-keep:].copy(),
        )

    def rollout(
        self, state: FloorState, horizon_steps: int, *, chunk_steps: int = 1024, seed: int = 0
    ) -> Iterator[ForecastChunk]:
        """Yield the forecast of the next `horizon_steps` in chunks; see `models.contract.Model.rollout`.

        Raises:
            ModelError: nothing was observed yet.
        """
        if state.observed == 0:
            raise ModelError(
                f"{self.name} has nothing to forecast from: no step was observed",
                fix="ingest at least one step of this graph",
            )
        season = season_steps(state.step_us)
        fitted = self._fit(state, season)
        totals = TotalsAccumulator(
            state.tail_TM[-1, TOTALS], dynamics=default_dynamics(season), key=(seed, state.next_us)
        )
        for first in range(0, horizon_steps, chunk_steps):
            step_H = np.arange(first, min(first + chunk_steps, horizon_steps))
            point_HM, expected_HM, lead_H = fitted.point(step_H)
            quantiles = fitted.errors.quantiles(point_HM, expected_HM, lead_H, step_H % season)
            # The quantiles of an integer are integers.
            quantiles[:, COUNTS] = np.rint(quantiles[:, COUNTS])
            yield ForecastChunk(first, *totals.complete(point_HM, quantiles))

    def sample_paths(
        self,
        state: FloorState,
        horizon_steps: int,
        *,
        n_paths: int,
        chunk_steps: int = 256,
        seed: int = 0,
        use_threads: bool = False,
    ) -> Iterator[PathChunk]:
        """Yield sample paths; see `models.contract.Model.sample_paths`.

        Raises:
            ModelError: nothing was observed yet.
        """
        chunks = self.rollout(state, horizon_steps, chunk_steps=chunk_steps, seed=seed)
        structure = default_structure(season_steps(state.step_us))
        last_totals = state.tail_TM[-1:, TOTALS].sum(axis=0)
        key = (seed, state.next_us)
        return sample_paths(chunks, last_totals, structure, key=key, n_paths=n_paths, use_threads=use_threads)

    def _tail_steps(self, step_us: int) -> int:
        season = season_steps(step_us)
        return season * min(self.tail_seasons, max(_MAX_TAIL_STEPS // season, _MIN_TAIL_SEASONS))

    @abstractmethod
    def _fit(self, state: FloorState, season: int) -> PointForecast:
        """Return the forecast from `state`, which holds at least one step."""


def error_prior(tail_TM: FloatArray) -> FloatArray:
    """Return the size [M] of errors before any was seen: a Poisson count's and what the values themselves spread."""
    unit_M = unit_of(tail_TM.mean(axis=0))
    return np.asarray(np.sqrt(1 + (tail_TM.std(axis=0) / unit_M) ** 2))
