"""Scores of forecasts against what came, as pure functions over arrays.

Scores of one step have the shape of the observations; `Tally` averages them over a range of horizons. A score that is
undefined is NaN, never 0.

Shape suffixes: T steps of training, H steps ahead, M metrics, Q quantile levels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from infra.schema import MAX_HORIZON_STEPS, QUANTILE_LEVELS
from models.columns import LEVELS, MEDIAN
from models.contract import FloatArray

# The horizons, first and last step included, over which scores are averaged.
HORIZON_BUCKETS = ((1, 1), (2, 10), (11, 100), (101, 1000), (1001, 10_000), (10_001, MAX_HORIZON_STEPS))
_DECILES = [index for index, level in enumerate(QUANTILE_LEVELS) if 0.1 <= level <= 0.9]


def bucket_name(first: int, last: int) -> str:
    """Return the name of a range of horizons: `1`, `2-10`."""
    return str(first) if first == last else f"{first}-{last}"


def mase_scale(training_TM: FloatArray, season: int) -> FloatArray:
    """Return the mean |y_t - y_(t - season)| [M] of the training part, by which MASE divides.

    Hyndman and Koehler 2006, "Another look at measures of forecast accuracy". NaN where the training part is not longer
    than a season or does not change from season to season: MASE is undefined there.
    """
    if len(training_TM) <= season:
        return np.full(training_TM.shape[1], np.nan)
    scale_M = np.abs(training_TM[season:] - training_TM[:-season]).mean(axis=0)
    return np.where(scale_M > 0, scale_M, np.nan)


def decile_loss(observed: FloatArray, quantiles: FloatArray) -> FloatArray:
    """Return the quantile loss [...] of `quantiles` [..., Q], twice the pinball loss, averaged over the nine deciles.

    Its sum over the sum of |observed| is the weighted quantile loss.
    """
    levels = LEVELS[_DECILES]
    error = observed[..., None] - quantiles[..., _DECILES]
    return np.asarray(2 * np.maximum(levels * error, (levels - 1) * error).mean(axis=-1))


def central_interval(quantiles: FloatArray, share: float) -> tuple[FloatArray, FloatArray]:
    """Return the bounds [...] of the central interval that holds `share`, linear between quantiles [..., Q]."""
    bounds = []
    for level in ((1 - share) / 2, (1 + share) / 2):
        place = float(np.interp(level, LEVELS, np.arange(len(LEVELS))))
        # Levels such as (1 + 0.8) / 2 are not met to the last bit.
        place = round(place, 9)
        below = min(int(place), len(LEVELS) - 2)
        part = place - below
        bounds.append(np.asarray(quantiles[..., below] * (1 - part) + quantiles[..., below + 1] * part))
    return bounds[0], bounds[1]


def covered(observed: FloatArray, quantiles: FloatArray, share: float) -> npt.NDArray[np.bool_]:
    """Return whether [...] each observation lies in the central interval of `share`, bounds included."""
    low, high = central_interval(quantiles, share)
    return np.asarray((observed >= low) & (observed <= high))


def winkler(observed: FloatArray, quantiles: FloatArray, share: float) -> FloatArray:
    """Return the interval score [...]: the width, and 2 / (1 - share) times what an observation lies outside.

    Winkler 1972, "A decision-theoretic approach to interval estimation".
    """
    low, high = central_interval(quantiles, share)
    outside = np.maximum(low - observed, 0) + np.maximum(observed - high, 0)
    return np.asarray(high - low + 2 / (1 - share) * outside)


def geometric_mean_ratio(scores: FloatArray, references: FloatArray) -> tuple[float, int]:
    """Return the geometric mean of scores / references [K] and over how many it was taken.

    Pairs where one is NaN or not positive are left out; NaN when none is left.
    """
    usable = (scores > 0) & (references > 0) & np.isfinite(scores) & np.isfinite(references)
    count = int(usable.sum())
    if count == 0:
        return float("nan"), 0
    return float(np.exp(np.log(scores[usable] / references[usable]).mean())), count


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of one range of horizons, each [M]; NaN where undefined.

    Attributes:
        mase: mean absolute error of the median over the scale of the metric; NaN where that scale is undefined.
        wql: weighted quantile loss over the nine deciles; NaN where all observations are 0.
        coverage: share of observations in the central interval, by what it should be.
        winkler: mean interval score, by the share that the interval holds.
        n: how many observations.
    """

    mase: FloatArray
    wql: FloatArray
    coverage: dict[float, FloatArray]
    winkler: dict[float, FloatArray]
    n: int


@dataclass(slots=True)
class Tally:
    """Sums of scores over a range of horizons, from which averages follow at any time.

    Attributes:
        first, last: the range, first and last step included; the next step is 1.
    """

    first: int
    last: int
    _n: int = 0
    _sums: dict[str, FloatArray] = field(default_factory=dict)

    SHARES = (0.5, 0.8, 0.95)

    def add(self, first_step: int, observed_HM: FloatArray, quantiles_HMQ: FloatArray) -> None:
        """Add those of H consecutive steps that lie in the range; `first_step` counts from 0."""
        begin, end = max(self.first - 1 - first_step, 0), min(self.last - first_step, len(observed_HM))
        if begin >= end:
            return
        observed, quantiles = observed_HM[begin:end], quantiles_HMQ[begin:end]
        self._n += end - begin
        self._count("error", np.abs(observed - quantiles[..., MEDIAN]))
        self._count("loss", decile_loss(observed, quantiles))
        self._count("size", np.abs(observed))
        for share in self.SHARES:
            self._count(f"covered {share}", covered(observed, quantiles, share).astype(np.float64))
            self._count(f"winkler {share}", winkler(observed, quantiles, share))
        self._count("below", (observed[..., None] < quantiles).astype(np.float64))
        self._count("at or below", (observed[..., None] <= quantiles).astype(np.float64))

    def scores(self, scale_M: FloatArray) -> Scores:
        """Return the averages of what was added, with the scales of `mase_scale`."""
        if self._n == 0:
            undefined = np.full(len(scale_M), np.nan)
            by_share = dict.fromkeys(self.SHARES, undefined)
            return Scores(undefined, undefined, by_share, by_share, 0)
        size = self._sums["size"]
        return Scores(
            mase=self._sums["error"] / self._n / scale_M,
            wql=np.divide(self._sums["loss"], size, out=np.full_like(size, np.nan), where=size > 0),
            coverage={share: self._sums[f"covered {share}"] / self._n for share in self.SHARES},
            winkler={share: self._sums[f"winkler {share}"] / self._n for share in self.SHARES},
            n=self._n,
        )

    def shares_below(self) -> tuple[FloatArray, FloatArray]:
        """Return which share [M, Q] of the observations lay below each quantile, and which at or below it.

        Of a calibrated forecast the level lies between the two; they differ where values are integers.

        Raises:
            ValueError: nothing was added.
        """
        if self._n == 0:
            raise ValueError(f"no observation in {bucket_name(self.first, self.last)}")
        return self._sums["below"] / self._n, self._sums["at or below"] / self._n

    def arrays(self) -> dict[str, FloatArray]:
        """Return all that was added, to be kept; see `of`."""
        return {"range": np.array([self.first, self.last, self._n], dtype=np.float64), **self._sums}

    @classmethod
    def of(cls, arrays: Mapping[str, FloatArray]) -> "Tally":
        """Invert `arrays`."""
        first, last, n = (int(value) for value in arrays["range"])
        return cls(first, last, n, {name: sums for name, sums in arrays.items() if name != "range"})

    @classmethod
    def merged(cls, tallies: Sequence["Tally"]) -> "Tally":
        """Return what was added to any of the tallies of one range.

        Raises:
            ValueError: they are of different ranges.
        """
        first, last = tallies[0].first, tallies[0].last
        if any((tally.first, tally.last) != (first, last) for tally in tallies):
            raise ValueError("tallies of different ranges of horizons cannot be added")
        names = dict.fromkeys(name for tally in tallies for name in tally._sums)
        sums = {name: np.sum([t._sums[name] for t in tallies if name in t._sums], axis=0) for name in names}
        return cls(first, last, sum(tally._n for tally in tallies), sums)

    def _count(self, name: str, values: FloatArray) -> None:
        added = values.sum(axis=0)
        self._sums[name] = self._sums[name] + added if name in self._sums else added
