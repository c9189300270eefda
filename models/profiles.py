"""Seasonal profiles: means by position in the season, drawn to what is likely while there are few observations.

Shapes: S positions of a season, D positions of a day, M modelled metrics, P profiles, n steps.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from models.columns import IS_COUNT, N_MODELLED
from models.decay import decayed_sums

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
# Profiles of a season: the anchor's reaches back half a year of weeks, the recent one about a month.
PROFILE_SEASONS = (26.0, 4.0)
# The profile of a day, whichever of the week, reaches back two seasons; it stands in where a season is not yet known.
DAYS_PER_SEASON = 7
DAILY_SEASONS = 2.0

# A position of the season counts as this many observations of the mean of its hour until it has its own, and so does
# an hour with the overall mean.
PROFILE_PRIOR_OBSERVATIONS = 1.0
# And as up to this many of what its hour, of all days, times its day, of all hours, say: a position alone is mostly
# noise, which stays in a forecast however far ahead. Half as many at the weight of two seasons, as days are not known.
SHAPE_PRIOR_OBSERVATIONS = 12.0
_SHAPE_HALF_SEASONS = 2.0
# Pseudo-counts that keep the level ratio of a sparse metric near 1.
LEVEL_PRIOR_COUNT = 0.5
_EPSILON = 1e-9


def mean(total: FloatArray, weight: FloatArray) -> FloatArray:
    """Return means of decayed sums; 0 where there is no weight."""
    return total / np.maximum(weight, _EPSILON)


def towards(total: FloatArray, weight: FloatArray, expected: FloatArray) -> FloatArray:
    """Return means [..., M] of decayed sums, drawn to what is expected while the weight [...] is small."""
    prior = PROFILE_PRIOR_OBSERVATIONS
    return np.asarray((total + prior * expected) / (weight[..., None] + prior))


def _shapes(by_position: FloatArray, weights: FloatArray, day: int) -> tuple[FloatArray, FloatArray]:
    """Return profiles [P, S, M] as products of an hour and a day, and by how many observations each counts [P, S].

    They are made of the decayed sums of values [P, S, M] and their weights [P, S]: the mean of an hour over all days of
    the season, times what came on a day over what its hours expect of it; for shares plus their difference. `day` is
    the number of steps of a day; a season without days has no such shape.
    """
    if day == 1:
        return np.zeros_like(by_position), np.zeros_like(weights)
    total = by_position.reshape(len(by_position), -1, day, N_MODELLED)
    weight = weights.reshape(len(weights), -1, day, 1)
    hour = mean(total.sum(axis=1, keepdims=True), weight.sum(axis=1, keepdims=True))
    came, expected = total.sum(axis=2, keepdims=True), (weight * hour).sum(axis=2, keepdims=True)
    ratio = (came + LEVEL_PRIOR_COUNT) / (expected + LEVEL_PRIOR_COUNT)
    shift = mean(came - expected, weight.sum(axis=2, keepdims=True))
    shape = np.where(IS_COUNT, hour * ratio, np.clip(hour + shift, 0.0, 1.0))
    seasons = weight.mean(axis=(1, 2), keepdims=True)
    observations = SHAPE_PRIOR_OBSERVATIONS * seasons / (seasons + _SHAPE_HALF_SEASONS)
    known = weight.sum(axis=1, keepdims=True) > 0
    counted = np.broadcast_to(np.where(known, observations, 0.0), weight.shape)
    return shape.reshape(by_position.shape), counted.reshape(weights.shape)


@dataclass(frozen=True, slots=True)
class Profiles:
    """What the past says of each position of the season and of the day; a value, never changed in place.

    Attributes:
        total: [P, S, M] decayed sums of the values by position, `weight` [P, S] their weights.
        shape: [P, S, M] what the profiles were, as hours times days, where the season under way began,
            `shape_weight` [P, S] how many observations they count as.
        daily_total: [D, M] decayed sums of the values by position of the day, `daily_weight` [D] their weights; D is 1
            where a season has no days.
    """

    total: FloatArray
    weight: FloatArray
    shape: FloatArray
    shape_weight: FloatArray
    daily_total: FloatArray
    daily_weight: FloatArray

    @classmethod
    def start(cls, season: int) -> "Profiles":
        """Return the profiles before anything was observed."""
        n, day = len(PROFILE_SEASONS), season // DAYS_PER_SEASON if season % DAYS_PER_SEASON == 0 else 1
        return cls(
            total=np.zeros((n, season, N_MODELLED)),
            weight=np.zeros((n, season)),
            shape=np.zeros((n, season, N_MODELLED)),
            shape_weight=np.zeros((n, season)),
            daily_total=np.zeros((day, N_MODELLED)),
            daily_weight=np.zeros(day),
        )

    @property
    def season(self) -> int:
        """Steps of one season."""
        return int(self.total.shape[1])

    def expected(self, position: IntArray, usual: FloatArray) -> FloatArray:
        """Return what each profile, and last that of the day, expects at positions [n], as [P + 1, n, M].

        `usual`, [M] or [n, M], stands in for hours that were never seen.
        """
        day = position % len(self.daily_total)
        return self._expected(position, towards(self.daily_total[day], self.daily_weight[day], usual))

    def through(self, position: IntArray, values: FloatArray, usual: FloatArray) -> tuple[FloatArray, "Profiles"]:
        """Return what was expected before each step [P + 1, n, M], and the profiles after them all.

        The steps, with `values` [n, M], follow each other within one season; so each position occurs at most once.
        """
        sums, weights = self._daily(int(position[0]), values)
        expected = self._expected(position, towards(sums[0], weights[0], usual))
        return expected, self._after(position, values, sums[1], weights[1])

    def after(self, position: IntArray, values: FloatArray) -> "Profiles":
        """Return the profiles after steps with `values` [n, M], which follow each other within one season."""
        if len(values) == 0:
            return self
        sums, weights = self._daily(int(position[0]), values)
        return self._after(position, values, sums[1], weights[1])

    def with_shape(self) -> "Profiles":
        """Return the profiles where a new season begins."""
        shape, shape_weight = _shapes(self.total, self.weight, len(self.daily_total))
        return replace(self, shape=shape, shape_weight=shape_weight)

    def _expected(self, position: IntArray, daily: FloatArray) -> FloatArray:
        shape_weight = self.shape_weight[:, position]
        total = self.total[:, position] + shape_weight[..., None] * self.shape[:, position]
        profiles = towards(total, self.weight[:, position] + shape_weight, daily)
        return np.concatenate([profiles, daily[None]])

    def _after(
        self, position: IntArray, values: FloatArray, daily_sums: FloatArray, daily_weights: FloatArray
    ) -> "Profiles":
        """Return the profiles after steps behind each of which the daily sums are [n, M], their weights [n]."""
        total, weight = self.total.copy(), self.weight.copy()
        for p, seasons in enumerate(PROFILE_SEASONS):
            keep = float(np.exp(-1.0 / seasons))
            total[p, position] = keep * total[p, position] + values
            weight[p, position] = keep * weight[p, position] + 1.0
        daily_total, daily_weight = self.daily_total.copy(), self.daily_weight.copy()
        latest = slice(max(0, len(values) - len(daily_total)), len(values))
        day = position[latest] % len(daily_total)
        daily_total[day], daily_weight[day] = daily_sums[latest], daily_weights[latest]
        return replace(self, total=total, weight=weight, daily_total=daily_total, daily_weight=daily_weight)

    def _daily(self, first: int, values: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the decayed daily sums before and after each step of a block, [2, n, M], and their weights [2, n]."""
        n, day = len(values), len(self.daily_total)
        # One row a day, beginning with the block; the last one may be filled up.
        rows = np.zeros((-(-n // day) * day, N_MODELLED + 1))
        rows[:n, :-1], rows[:n, -1] = values, 1.0
        initial = np.roll(np.column_stack([self.daily_total, self.daily_weight]), -(first % day), axis=0)
        sums = decayed_sums(
            initial, rows.reshape(-1, day, N_MODELLED + 1), np.exp(-1.0 / (DAYS_PER_SEASON * DAILY_SEASONS))
        )
        both = np.stack([sums[:-1].reshape(len(rows), -1)[:n], sums[1:].reshape(len(rows), -1)[:n]])
        return both[..., :-1], both[..., -1]
