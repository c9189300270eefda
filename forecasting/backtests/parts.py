"""A part of a backtest: the forecast of one model from one origin, scored. Parts can be kept and added up."""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from forecasting.backtests.memory import PeakMemory
from forecasting.backtests.plan import Plan
from forecasting.reports.outlook import SHOWN_LEVELS
from infra.schema import QUANTILE_LEVELS
from models.columns import MEDIAN
from models.contract import FloatArray, ForecastChunk, History, Model
from models.scoring import Tally
from models.sums import SumTally

_SHOWN = [QUANTILE_LEVELS.index(level) for level in SHOWN_LEVELS]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a forecast cost.

    Attributes:
        update_s: seconds to observe the steps since the state before.
        is_first: that state had observed nothing, so the steps are all before the origin.
        rollout_s: seconds to forecast the window.
        peak_bytes: rise of the resident memory while both ran; NaN where the system does not tell.
    """

    update_s: float
    is_first: bool
    rollout_s: float
    peak_bytes: float


@dataclass(frozen=True, slots=True)
class Part:
    """The scores of one origin.

    Attributes:
        tallies: by range of horizons.
        sums: by period.
        cost: what it cost.
        fan_HMC: mean and `SHOWN_LEVELS` of the first steps, where the plan wants them kept; else empty.
    """

    tallies: tuple[Tally, ...]
    sums: dict[str, SumTally]
    cost: Cost
    fan_HMC: FloatArray

    def arrays(self) -> dict[str, FloatArray]:
        """Return everything as arrays by name; see `of`."""
        cost = self.cost
        named = {f"range/{number}": tally.arrays() for number, tally in enumerate(self.tallies)}
        named |= {f"sum/{period}": tally.arrays() for period, tally in self.sums.items()}
        flat = {f"{name}/{key}": array for name, arrays in named.items() for key, array in arrays.items()}
        flat["cost"] = np.array([cost.update_s, cost.is_first, cost.rollout_s, cost.peak_bytes])
        flat["fan"] = self.fan_HMC
        return flat

    @classmethod
    def of(cls, arrays: Mapping[str, FloatArray]) -> "Part":
        """Invert `arrays`.

        Raises:
            KeyError, ValueError: they are of another form.
        """
        named: dict[str, dict[str, FloatArray]] = {}
        for name, array in arrays.items():
            if "/" in name:
                kind, key, field = name.split("/")
                named.setdefault(f"{kind}/{key}", {})[field] = array
        ranges = sorted((name for name in named if name.startswith("range/")), key=lambda name: int(name[6:]))
        update_s, is_first, rollout_s, peak_bytes = (float(value) for value in arrays["cost"])
        return cls(
            tallies=tuple(Tally.of(named[name]) for name in ranges),
            sums={name[4:]: SumTally.of(found) for name, found in named.items() if name.startswith("sum/")},
            cost=Cost(update_s, bool(is_first), rollout_s, peak_bytes),
            fan_HMC=np.asarray(arrays["fan"]),
        )


def run_parts(
    history: History, model: Model[Any], plan: Plan, numbers: Collection[int], on_part: Callable[[int, Part], None]
) -> None:
    """Forecast from the origins `numbers` in turn, one state moving on from one to the next.

    Of the history a model sees what lies before its origin and nothing else.

    Args:
        history: all steps.
        model: what forecasts.
        plan: from where and how far.
        numbers: which of its origins, counted from 0.
        on_part: given each part with its number when it is done.
    """
    state, seen = model.start(history.step_us, history.start_us), 0
    for number in sorted(numbers):
        origin = plan.origins[number]
        memory, begin_s = PeakMemory(), time.perf_counter()
        is_first = seen == 0
        # A copy, so that no model can reach the steps behind its origin.
        state, seen = model.update(state, history.values[seen:origin].copy()), origin
        update_s = time.perf_counter() - begin_s
        tallies = tuple(Tally(first, last) for first, last in plan.ranges)
        sums = {period: SumTally(steps) for period, steps in plan.periods.items()}
        kept: list[FloatArray] = []
        rollout_s, peak_bytes = 0.0, 0.0
        begin_s = time.perf_counter()
        for chunk in model.rollout(state, plan.window, seed=plan.seed):
            rollout_s += time.perf_counter() - begin_s
            # Before anything of the scoring is added to it.
            if chunk.first_step == 0:
                peak_bytes = memory.rise()
            observed = history.values[origin + chunk.first_step : origin + chunk.first_step + len(chunk)]
            for tally in tallies:
                tally.add(chunk.first_step, observed, chunk.quantiles)
            for total in sums.values():
                total.add(observed, chunk.mean, chunk.quantiles[..., MEDIAN])
            kept.append(_fan(chunk, plan.fan_steps(origin)))
            begin_s = time.perf_counter()
        cost = Cost(update_s, is_first, rollout_s, peak_bytes)
        on_part(number, Part(tallies, sums, cost, np.concatenate(kept)))


def _fan(chunk: ForecastChunk, steps: int) -> FloatArray:
    """Return mean and shown levels [H, M, C] of those steps of a chunk that lie before `steps`."""
    rows = max(0, steps - chunk.first_step)
    return np.concatenate([chunk.mean[:rows, :, None], chunk.quantiles[:rows][..., _SHOWN]], axis=-1)
