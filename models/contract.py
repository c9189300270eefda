"""The one contract of everything that forecasts: the Mamba2 forecaster and every floor.

A model is advanced over observed steps and then rolled out from the state it reached. States are values: `update`
and `rollout` never change the state that they are given, so one state can serve many forecasts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
State = TypeVar("State")
# Calls of `Model.update` that are cut at multiples of this many steps lead to one state, to the last bit.
BLOCK_STEPS = 256


@dataclass(frozen=True, slots=True)
class History:
    """Observed steps of one graph without a gap.

    Attributes:
        step_us: step size in microseconds.
        start_us: start of the first step, UTC microseconds.
        values: [T, M] float64, columns in the order of `infra.schema.METRIC_NAMES`.
    """

    step_us: int
    start_us: int
    values: FloatArray

    def __len__(self) -> int:
        return len(self.values)

    def part(self, begin: int, end: int) -> "History":
        """Return steps `begin` (inclusive) to `end` (exclusive) as a history of its own."""
        begin, end, _ = slice(begin, end).indices(len(self.values))
        return History(self.step_us, self.start_us + begin * self.step_us, self.values[begin:end])


@dataclass(frozen=True, slots=True)
class ForecastChunk:
    """Consecutive forecast steps.

    Attributes:
        first_step: index of the first step of the chunk; the step after the last observed one is 0.
        mean: [H, M] float64.
        quantiles: [H, M, Q] float64 at `infra.schema.QUANTILE_LEVELS`, increasing along Q.
        finer: [H, M, Q] the same before counts were drawn to whole numbers, for who draws paths; None where they were
            not, and where nobody does.
    """

    first_step: int
    mean: FloatArray
    quantiles: FloatArray
    finer: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.mean)


@dataclass(frozen=True, slots=True)
class PathChunk:
    """Consecutive steps of sample paths.

    Attributes:
        first_step: index of the first step of the chunk; the step after the last observed one is 0.
        values: [H, M, P] float64, one column a path; counts are whole numbers.
        forecast: the forecast through whose quantiles they were drawn.
    """

    first_step: int
    values: FloatArray
    forecast: ForecastChunk

    def __len__(self) -> int:
        return len(self.values)


class Model(Protocol, Generic[State]):
    """Something that forecasts all metrics of a graph."""

    @property
    def name(self) -> str:
        """A stable name, as it stands in tables."""
        ...

    def start(self, step_us: int, start_us: int) -> State:
        """Return the state before any observation of a graph whose first step starts at `start_us`."""
        ...

    def update(self, state: State, values: FloatArray, *, earlier: State | None = None) -> State:
        """Return the state after observing `values` [T, M], the next T steps; T may be 0.

        Args:
            state: where the steps begin.
            values: what was observed.
            earlier: a state that was reached in whole blocks, over a history of which the one after this call is the
                beginning, or the other way round. What was worked out for it may be taken; no bit changes by it.

        However the steps are cut into calls, the state is the same to float tolerance; to the last bit if all calls
        but the last are of whole blocks of `BLOCK_STEPS`.
        """
        ...

    def rollout(
        self, state: State, horizon_steps: int, *, chunk_steps: int = 1024, seed: int = 0
    ) -> Iterator[ForecastChunk]:
        """Yield the forecast of the next `horizon_steps` in chunks, at memory that does not grow with it.

        Every chunk keeps the invariants of the schema. The chunk length changes no number beyond float tolerance;
        `seed` moves only what is computed on sample paths (the totals).
        """
        ...

    def sample_paths(
        self,
        state: State,
        horizon_steps: int,
        *,
        n_paths: int,
        chunk_steps: int = 256,
        seed: int = 0,
        use_threads: bool = False,
    ) -> Iterator[PathChunk]:
        """Yield `n_paths` futures of the next `horizon_steps` in chunks, at memory that does not grow with it.

        Every path keeps the invariants of the schema; at each step they spread as the quantiles of `rollout`. The
        randomness of a step depends on the seed, the state's step and the step alone, not on the chunks.
        `use_threads` lets other cores make the next chunk meanwhile; it changes no number.
        """
        ...
