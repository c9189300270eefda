"""The floors: simple methods that a model must beat to be worth its cost.

Each gives a point forecast, which is its mean, and quantiles from its own past errors (`models.past_errors`), which
widen with the lead and then saturate. A floor answers as soon as one step was observed: what it lacks of history it
replaces by the mean of what there is, and by a wide prior for its errors.

Shape suffixes: T steps, H steps ahead, W seasons, S positions of a season, M metrics, N past errors.
"""

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from infra.steps import WEEK_US
from models.columns import IS_SHARE
from models.contract import FloatArray
from models.floor import Floor, FloorState, PointForecast, error_prior
from models.past_errors import MAX_SAMPLES, ErrorSample, IntArray, PastErrors, in_units, unit_of

_STEP_LEADS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 36, 48, 72, 96, 120, 144, 168, 252, 336, 672, 1344, 2688)
_SEASON_LEADS = (1, 2, 3, 4, 6, 8, 12, 16, 26, 39, 52, 78, 104, 130)
# Counts in the weeks of the level; keeps the ratio of a metric that was hardly ever seen near 1.
_LEVEL_PRIOR_COUNT = 0.5


@dataclass(frozen=True, slots=True)
class _Line(PointForecast):
    """The last value, and so much more with every step."""

    errors: PastErrors
    last_M: FloatArray
    slope_M: FloatArray
    typical_M: FloatArray

    def point(self, step_H: IntArray) -> tuple[FloatArray, FloatArray, IntArray]:
        lead_H = step_H + 1
        point_HM = np.maximum(self.last_M + lead_H[:, None] * self.slope_M, 0)
        return point_HM, np.broadcast_to(self.typical_M, point_HM.shape), lead_H


class Persistence(Floor):
    """The last value for ever."""

    name = "persistence"
    tail_seasons = 26

    def _fit(self, state: FloorState, season: int) -> PointForecast:
        tail_TM = state.tail_TM
        index_T = np.arange(state.observed - len(tail_TM), state.observed)
        typical_M = tail_TM.mean(axis=0)
        samples = []
        for lead in _STEP_LEADS:
            target_N = _evenly(lead, len(tail_TM))
            origin_N = target_N - lead
            slope_NM = self._slope(tail_TM[origin_N], state.first_M, index_T[origin_N])
            point_NM = np.maximum(tail_TM[origin_N] + lead * slope_NM, 0)
            errors_NM = (tail_TM[target_N] - point_NM) / unit_of(typical_M)
            samples.append(ErrorSample(lead, errors_NM, (target_N - len(tail_TM)) % season))
        errors = PastErrors.fit(samples, season, prior_M=error_prior(tail_TM))
        slope_NM = self._slope(tail_TM[-1:], state.first_M, index_T[-1:])
        return _Line(errors, tail_TM[-1], slope_NM[0], typical_M)

    def _slope(self, last_NM: FloatArray, first_M: FloatArray, index_N: IntArray) -> FloatArray:
        """Return the slope [N, M] of the line through the first step and the step `index_N` with `last_NM`."""
        return np.zeros_like(last_NM)


class Drift(Persistence):
    """The line through the first and the last value (Hyndman and Athanasopoulos, "Forecasting", section 5.2)."""

    name = "drift"

    def _slope(self, last_NM: FloatArray, first_M: FloatArray, index_N: IntArray) -> FloatArray:
        return np.asarray((last_NM - first_M) / np.maximum(index_N, 1)[:, None])


@dataclass(frozen=True, slots=True)
class _Season(PointForecast):
    """One season, repeated."""

    errors: PastErrors
    season_SM: FloatArray

    def point(self, step_H: IntArray) -> tuple[FloatArray, FloatArray, IntArray]:
        season = len(self.season_SM)
        point_HM = self.season_SM[step_H % season]
        return point_HM, point_HM, step_H // season + 1


class SeasonalFloor(Floor):
    """A floor that repeats one season, made of those seen before.

    Attributes:
        window_seasons: how many seasons it wants; past errors are measured where it had them, if the tail allows.
    """

    window_seasons: int

    def _fit(self, state: FloorState, season: int) -> PointForecast:
        rows_WSM = _seasons(state.tail_TM, season)
        forecasts_WSM = self._forecasts(rows_WSM, state.step_us)
        count = len(rows_WSM)
        first = min(self.window_seasons, (count + 1) // 2) - 1
        samples = []
        for lead in _SEASON_LEADS:
            # Lead 1 in full, for the size of errors at each position; a sample of the others will do.
            n = max(count - lead - first, 0) * season
            flat_N = np.arange(n) if lead == 1 else _evenly(0, n)
            origin_N, position_N = first + flat_N // season, flat_N % season
            errors_NM = in_units(rows_WSM[origin_N + lead, position_N], forecasts_WSM[origin_N, position_N])
            samples.append(ErrorSample(lead, errors_NM, position_N))
        errors = PastErrors.fit(samples, season, prior_M=error_prior(state.tail_TM))
        return _Season(errors, forecasts_WSM[-1])

    @abstractmethod
    def _forecasts(self, rows_WSM: FloatArray, step_us: int) -> FloatArray:
        """Return the season [W, S, M] that is forecast after each season of `rows_WSM`, from it and those before."""


class SeasonalNaive(SeasonalFloor):
    """The last season, repeated."""

    name = "seasonal_naive"
    tail_seasons = 105
    window_seasons = 1

    def _forecasts(self, rows_WSM: FloatArray, step_us: int) -> FloatArray:
        return rows_WSM


class SeasonalWindowMean(SeasonalFloor):
    """The mean of the last eight seasons, position by position."""

    name = "seasonal_window_mean"
    tail_seasons = 112
    window_seasons = 8

    def _forecasts(self, rows_WSM: FloatArray, step_us: int) -> FloatArray:
        return _trailing_means(rows_WSM, self.window_seasons)


class ProfileLevel(SeasonalFloor):
    """The mean shape of the last 52 seasons at the level of the last four weeks.

    Counts are scaled by what was seen in these weeks over what the shape expects of them, shares shifted by the
    difference. Where four weeks are less than a season, the level is taken over the positions that they cover.
    """

    name = "profile_level"
    tail_seasons = 156
    window_seasons = 52
    level_weeks = 4

    def _forecasts(self, rows_WSM: FloatArray, step_us: int) -> FloatArray:
        season = rows_WSM.shape[1]
        profiles_WSM = _trailing_means(rows_WSM, self.window_seasons)
        level_steps = max(1, round(self.level_weeks * WEEK_US / step_us))
        level_seasons = max(1, round(level_steps / season))
        if level_steps >= season:
            recent_WSM, expected_WSM = _trailing_means(rows_WSM, level_seasons), profiles_WSM
        else:
            recent_WSM, expected_WSM = rows_WSM[:, -level_steps:], profiles_WSM[:, -level_steps:]
        seen_W1M = recent_WSM.sum(axis=1, keepdims=True)
        expected_W1M = expected_WSM.sum(axis=1, keepdims=True)
        prior = _LEVEL_PRIOR_COUNT / level_seasons
        ratio_W1M = (seen_W1M + prior) / (expected_W1M + prior)
        shift_W1M = (seen_W1M - expected_W1M) / recent_WSM.shape[1]
        shifted_WSM = np.clip(profiles_WSM + shift_W1M, 0, 1)
        return np.asarray(np.where(IS_SHARE, shifted_WSM, np.maximum(profiles_WSM, 0) * ratio_W1M))


def floors() -> list[Floor]:
    """Return one of each floor, seasonal naive first."""
    return [SeasonalNaive(), SeasonalWindowMean(), ProfileLevel(), Persistence(), Drift()]


def _seasons(tail_TM: FloatArray, season: int) -> FloatArray:
    """Return the whole seasons [W, S, M] that end with the last step; one filled up with the mean if there is none."""
    missing = season - len(tail_TM)
    if missing > 0:
        mean_TM = np.broadcast_to(tail_TM.mean(axis=0), (missing, tail_TM.shape[1]))
        return np.concatenate([mean_TM, tail_TM])[None]
    return tail_TM[len(tail_TM) % season :].reshape(-1, season, tail_TM.shape[1])


def _trailing_means(rows_WSM: FloatArray, window: int) -> FloatArray:
    """Return the mean [W, S, M] of each row and at most `window - 1` rows before it."""
    sums_WSM = np.concatenate([np.zeros_like(rows_WSM[:1]), rows_WSM.cumsum(axis=0)])
    end_W = np.arange(1, len(rows_WSM) + 1)
    begin_W = np.maximum(end_W - window, 0)
    return np.asarray((sums_WSM[end_W] - sums_WSM[begin_W]) / (end_W - begin_W)[:, None, None])


def _evenly(begin: int, end: int) -> IntArray:
    """Return at most `MAX_SAMPLES` integers of [begin, end), evenly spread."""
    if end - begin <= MAX_SAMPLES:
        return np.arange(begin, max(begin, end))
    return np.linspace(begin, end - 1, MAX_SAMPLES).astype(np.int64)
