"""A floor of LightGBM: one model of gradient-boosted trees over all metrics and leads at once.

It forecasts each lead directly, nothing is fed back, from what is known at the origin: the mean of the last 4, 8 and 52
seasons at the position of the target, its last value there, how far recent steps lay from their own mean of eight
seasons, the calendar and the lead. Targets and features are in units of a Poisson spread around the mean of eight
seasons, so that busy and sparse metrics share one model; what is learned is the distance from that mean.

The last fifth of the fitted part is not learned from: errors are measured there. Fits are made anew after every eight
seasons.

Shape suffixes: T steps, N pairs of origin and lead, H steps ahead, M metrics (of K modelled), F features.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from infra.steps import DAY_US, WEEK_US
from models import floor_libraries
from models.columns import IS_SHARE, MODELLED
from models.contract import FloatArray
from models.floor import Floor, FloorState, PointForecast, error_prior
from models.past_errors import IntArray, PastErrors, in_units, samples_by_lead, unit_of
from models.refits import FitCache, fit_window
from models.seasons import season_steps

WINDOW_SEASONS, REFIT_SEASONS = 104, 8
MAX_WINDOW_STEPS = 104 * 168
N_PAIRS, N_ERROR_PAIRS = 4096, 2048
TREES = 200
_PARAMETERS = {
    "objective": "regression",
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_data_in_leaf": 40,
    "lambda_l2": 1.0,
    "feature_fraction": 0.8,
    "seed": 0,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}
_LEARNED_SHARE = 0.8
_MIN_SEASONS = 3
_ANCHOR_SEASONS = 8
_OTHER_SEASONS = (1, 4, 52)
# Shares of the golden ratio in two dimensions: they fill a square evenly (Roberts 2018).
_GOLDEN_2D = (0.7548776662466927, 0.5698402909980532)


class _Known:
    """What can be asked of a window of steps at any origin in it, by sums made once."""

    def __init__(self, window_TM: FloatArray, start_us: int, step_us: int, season: int) -> None:
        self.values_TM = window_TM
        self.season = season
        self._start_us, self._step_us = start_us, step_us
        rows = -(-len(window_TM) // season) * season
        padded_TM = np.zeros((rows, window_TM.shape[1]))
        padded_TM[: len(window_TM)] = window_TM
        by_season = padded_TM.reshape(-1, season, window_TM.shape[1]).cumsum(axis=0).reshape(rows, -1)
        # A season of zeros before the first, to subtract from.
        self._by_position_TM = np.concatenate([np.zeros((season, window_TM.shape[1])), by_season])
        self._sums_TM = np.concatenate([np.zeros((1, window_TM.shape[1])), window_TM.cumsum(axis=0)])
        step_T = np.arange(len(window_TM))
        anchor_TM = self.mean_of(step_T, np.ones_like(step_T), _ANCHOR_SEASONS)
        surprise_TM = (window_TM - anchor_TM) / unit_of(anchor_TM)
        surprise_TM[:season] = 0
        self._surprises_TM = np.concatenate([np.zeros((1, window_TM.shape[1])), surprise_TM.cumsum(axis=0)])

    def mean_of(self, origin_N: IntArray, lead_N: IntArray, seasons: int) -> FloatArray:
        """Return the mean [N, M] at the position of the target over the last `seasons` before the origin.

        Before a position was seen at all, it is the mean of all that was seen; before anything was, 0.
        """
        latest_N = origin_N + lead_N - 1 - self.season * -(-lead_N // self.season)
        count_N = np.minimum(latest_N // self.season + 1, seasons)
        first_N = np.maximum(latest_N, 0)
        sums_NM = (
            self._by_position_TM[first_N + self.season]
            - self._by_position_TM[np.maximum(latest_N - count_N * self.season, -self.season) + self.season]
        )
        overall_NM = self._sums_TM[origin_N] / np.maximum(origin_N, 1)[:, None]
        return np.where((latest_N >= 0)[:, None], sums_NM / np.maximum(count_N, 1)[:, None], overall_NM)

    def features(self, origin_N: IntArray, lead_N: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return features [N, K, F], the mean of eight seasons [N, M] and its unit [N, M]."""
        anchor_NM = self.mean_of(origin_N, lead_N, _ANCHOR_SEASONS)
        unit_NM = unit_of(anchor_NM)
        by_metric = [np.log1p(np.maximum(anchor_NM, 0))]
        by_metric += [(self.mean_of(origin_N, lead_N, n) - anchor_NM) / unit_NM for n in _OTHER_SEASONS]
        spans_us = (DAY_US, WEEK_US, 4 * WEEK_US, 8 * WEEK_US)
        spans = sorted({1, 3, *(max(1, round(span_us / self._step_us)) for span_us in spans_us)})
        for span in spans:
            begin_N = np.maximum(origin_N - span, 0)
            by_metric.append((self._surprises_TM[origin_N] - self._surprises_TM[begin_N]) / span)
        target_us_N = self._start_us + (origin_N + lead_N - 1) * self._step_us
        by_pair = [
            np.log(lead_N),
            (target_us_N % DAY_US) / DAY_US,
            # Days since the epoch; which weekday is 0 makes no difference to a tree.
            (target_us_N // DAY_US) % 7,
            np.minimum(origin_N / self.season, 52.0),
        ]
        kinds = np.arange(len(MODELLED))
        columns = [values_NM[:, MODELLED] for values_NM in by_metric]
        columns += [np.broadcast_to(values_N[:, None], columns[0].shape) for values_N in by_pair]
        columns.append(np.broadcast_to(kinds, columns[0].shape))
        return np.stack(columns, axis=-1), anchor_NM, unit_NM


@dataclass(frozen=True, slots=True)
class _Fitted:
    """The trees, None where the history is too short to learn from, and how wrong they were."""

    trees: Any
    errors: PastErrors

    def points(self, known: _Known, origin_N: IntArray, lead_N: IntArray) -> FloatArray:
        """Return forecasts [N, M], within what a metric can be; totals are left 0."""
        features_NKF, anchor_NM, unit_NM = known.features(origin_N, lead_N)
        points_NM = np.zeros_like(anchor_NM)
        points_NM[:, MODELLED] = anchor_NM[:, MODELLED]
        if self.trees is not None:
            learned_N = self.trees.predict(features_NKF.reshape(-1, features_NKF.shape[-1]), num_threads=1)
            points_NM[:, MODELLED] += unit_NM[:, MODELLED] * np.asarray(learned_N).reshape(features_NKF.shape[:2])
        return np.clip(points_NM, 0, np.where(IS_SHARE, 1, np.inf))


@dataclass(frozen=True, slots=True)
class _Ahead(PointForecast):
    """Forecasts from the end of what is known."""

    errors: PastErrors
    fitted: _Fitted
    known: _Known

    def point(self, step_H: IntArray) -> tuple[FloatArray, FloatArray, IntArray]:
        lead_H = step_H + 1
        point_HM = self.fitted.points(self.known, np.full_like(step_H, len(self.known.values_TM)), lead_H)
        return point_HM, point_HM, lead_H


class LightGBM(Floor):
    """Gradient-boosted trees on lags, rolling means and the calendar (Ke et al. 2017)."""

    name = "lightgbm"
    tail_seasons = WINDOW_SEASONS + REFIT_SEASONS
    library = "lightgbm"

    def __init__(self) -> None:
        self._fits: FitCache[_Fitted] = FitCache()

    def _tail_steps(self, step_us: int) -> int:
        season = season_steps(step_us)
        return _window_steps(season) + REFIT_SEASONS * season

    def _fit(self, state: FloorState, season: int) -> PointForecast:
        steps = _window_steps(season)
        window_TM, start_us = fit_window(state, season, every_seasons=REFIT_SEASONS, steps=steps)
        # The calendar depends on when the window starts, not only on what is in it.
        key = (state.step_us, start_us % WEEK_US)
        known = _Known(window_TM, start_us, state.step_us, season)
        fitted = self._fits.get(window_TM, key, lambda: self._fit_known(known))
        recent_TM = state.tail_TM[-steps:]
        recent_us = state.next_us - len(recent_TM) * state.step_us
        return _Ahead(fitted.errors, fitted, _Known(recent_TM, recent_us, state.step_us, season))

    def _fit_known(self, known: _Known) -> _Fitted:
        library = floor_libraries.load("lightgbm", self.name)
        count, season = len(known.values_TM), known.season
        prior_M = error_prior(known.values_TM)
        learned = int(_LEARNED_SHARE * count)
        nothing = _Fitted(None, PastErrors.fit([], season, prior_M=prior_M))
        if count < _MIN_SEASONS * season:
            return nothing
        origin_N, lead_N = _pairs(season, learned, N_PAIRS)
        features_NKF, anchor_NM, unit_NM = known.features(origin_N, lead_N)
        targets_NM = (known.values_TM[origin_N + lead_N - 1] - anchor_NM) / unit_NM
        table = library.Dataset(
            features_NKF.reshape(-1, features_NKF.shape[-1]),
            targets_NM[:, MODELLED].ravel(),
            categorical_feature=[features_NKF.shape[-1] - 1],
        )
        trees = library.train(_PARAMETERS, table, num_boost_round=TREES)
        learned_fit = _Fitted(trees, nothing.errors)
        origin_N, lead_N = _pairs(learned, count, N_ERROR_PAIRS)
        points_NM = learned_fit.points(known, origin_N, lead_N)
        target_N = origin_N + lead_N - 1
        errors_NM = in_units(known.values_TM[target_N], points_NM)
        samples, nearest = samples_by_lead(lead_N, errors_NM, (target_N - count) % season, season)
        return _Fitted(trees, PastErrors.fit(samples, season, prior_M=prior_M, sized_by=nearest))


def _pairs(begin: int, end: int, count: int) -> tuple[IntArray, IntArray]:
    """Return origins from `begin` on and leads whose targets lie before `end`; leads of each size alike."""
    place_2N = np.outer(_GOLDEN_2D, np.arange(1, count + 1)) % 1
    origin_N = begin + (place_2N[0] * (end - begin)).astype(np.int64)
    lead_N = np.exp(place_2N[1] * np.log(end - origin_N)).astype(np.int64)
    return origin_N, np.maximum(lead_N, 1)


def _window_steps(season: int) -> int:
    return max(min(WINDOW_SEASONS * season, MAX_WINDOW_STEPS), _MIN_SEASONS * season)
