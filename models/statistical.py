"""Floors of statsforecast: AutoTheta, AutoETS and MSTL, one model a metric.

Parameters are chosen by the library on twelve seasons (a week each below steps of a week), again after every four
more. In between they stand, and each forecast filters the latest twelve seasons with them. How wrong that was is
measured on forecasts from past moments of the fitted part: their states saw nothing of what they forecast, their few
parameters did.

Fits are slow, most of it AutoTheta's search and MSTL's past forecasts; a window of at most `MAX_WINDOW_STEPS` bounds
them for finer steps.

Shape suffixes: T steps, H steps ahead, M metrics, N past errors.
"""

import warnings
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from infra.errors import ModelError
from infra.schema import MAX_HORIZON_STEPS, METRIC_NAMES
from infra.steps import DAY_US
from models import floor_libraries
from models.columns import IS_SHARE, MODELLED
from models.contract import FloatArray
from models.floor import Floor, FloorState, PointForecast, error_prior
from models.past_errors import IntArray, PastErrors, in_units, samples_by_lead
from models.refits import FitCache, fit_window
from models.seasons import season_steps

WINDOW_SEASONS, REFIT_SEASONS = 12, 4
MAX_WINDOW_STEPS = 4096
# Below so many steps the libraries refuse or fit nothing that means anything; the mean stands in.
MIN_STEPS = 16


@dataclass(frozen=True, slots=True)
class _Fitted:
    """Models by metric, None for one that is the mean of its values, and how wrong they were."""

    models: dict[int, Any]
    errors: PastErrors


class _Ahead(PointForecast):
    """Forecasts of fitted models that have read the latest steps."""

    def __init__(self, floor: str, fitted: _Fitted, recent_TM: FloatArray) -> None:
        self.errors = fitted.errors
        self._floor = floor
        self._models = fitted.models
        self._recent_TM = recent_TM
        self._points_HM = recent_TM[:0]

    def point(self, step_H: IntArray) -> tuple[FloatArray, FloatArray, IntArray]:
        end = int(step_H[-1]) + 1
        if end > len(self._points_HM):
            # A chunk, or else all there can be: reading the latest steps costs more than stepping ahead.
            steps = max(end, MAX_HORIZON_STEPS) if len(self._points_HM) else end
            self._points_HM = _points(self._floor, self._models, self._recent_TM, steps)
        point_HM = self._points_HM[step_H]
        return point_HM, point_HM, step_H + 1


class StatisticalFloor(Floor):
    """A floor of statsforecast.

    Attributes:
        past_origins: from how many past moments errors are measured.
    """

    tail_seasons = WINDOW_SEASONS + REFIT_SEASONS
    library = "statsforecast"
    past_origins: int

    def __init__(self) -> None:
        self._fits: FitCache[_Fitted] = FitCache()

    def _tail_steps(self, step_us: int) -> int:
        season = season_steps(step_us)
        return _window_steps(season) + REFIT_SEASONS * season

    def _fit(self, state: FloorState, season: int) -> PointForecast:
        steps = _window_steps(season)
        window_TM, _ = fit_window(state, season, every_seasons=REFIT_SEASONS, steps=steps)
        fitted = self._fits.get(window_TM, (state.step_us,), lambda: self._fit_window(window_TM, state.step_us, season))
        return _Ahead(self.name, fitted, state.tail_TM[-steps:])

    def _fit_window(self, window_TM: FloatArray, step_us: int, season: int) -> _Fitted:
        library = floor_libraries.load("statsforecast.models", self.name)
        lengths = [n for n in _season_lengths(step_us, season) if 2 * n <= len(window_TM)]
        models: dict[int, Any] = {}
        for index in MODELLED.tolist():
            values_T = window_TM[:, index]
            models[index] = None
            if len(values_T) >= MIN_STEPS and np.ptp(values_T) > 0:
                model = self._model(library, lengths)
                _call(self.name, index, model.fit, y=values_T)
                models[index] = model
        return _Fitted(models, self._past_errors(models, window_TM, season))

    def _past_errors(self, models: dict[int, Any], window_TM: FloatArray, season: int) -> PastErrors:
        count = len(window_TM)
        begin = max(MIN_STEPS, count // 2)
        # Past the middle, at places that do not share a position of the season.
        origins = np.unique(np.linspace(begin, count - 1, self.past_origins).astype(np.int64))[: max(count - begin, 0)]
        leads, errors, positions = [], [], []
        for origin in origins:
            observed_HM = window_TM[origin:]
            points_HM = _points(self.name, models, window_TM[:origin], len(observed_HM))
            leads.append(np.arange(1, len(observed_HM) + 1))
            errors.append(in_units(observed_HM, points_HM))
            positions.append((np.arange(origin, count) - count) % season)
        prior_M = error_prior(window_TM)
        if not leads:
            return PastErrors.fit([], season, prior_M=prior_M)
        samples, nearest = samples_by_lead(
            np.concatenate(leads), np.concatenate(errors), np.concatenate(positions), season
        )
        return PastErrors.fit(samples, season, prior_M=prior_M, sized_by=nearest)

    @abstractmethod
    def _model(self, library: Any, lengths: Sequence[int]) -> Any:
        """Return an unfitted model of the library for the season lengths that the history has twice, if any."""


class AutoTheta(StatisticalFloor):
    """The best of four Theta models by the season of a day, or of all there is (Fiorucci et al. 2016)."""

    name = "auto_theta"
    past_origins = 24

    def _model(self, library: Any, lengths: Sequence[int]) -> Any:
        return library.AutoTheta(season_length=lengths[0] if lengths else 1)


class AutoETS(StatisticalFloor):
    """Exponential smoothing, its form chosen by AICc (Hyndman and Khandakar 2008); no season beyond 24 steps."""

    name = "auto_ets"
    past_origins = 24

    def _model(self, library: Any, lengths: Sequence[int]) -> Any:
        return library.AutoETS(season_length=lengths[0] if lengths and lengths[0] <= 24 else 1)


class MSTL(StatisticalFloor):
    """Seasons of day and week by repeated loess, their rest by exponential smoothing (Bandara et al. 2021)."""

    name = "mstl"
    past_origins = 6

    def _model(self, library: Any, lengths: Sequence[int]) -> Any:
        if not lengths:
            return library.AutoETS(season_length=1)
        return library.MSTL(season_length=list(lengths), trend_forecaster=library.AutoETS(model="ZZN"))


def _season_lengths(step_us: int, season: int) -> list[int]:
    """Return the steps of a day, if it has several of them, and of the season."""
    day = round(DAY_US / step_us)
    return sorted({n for n in (day, season) if 1 < n <= season})


def _window_steps(season: int) -> int:
    return min(WINDOW_SEASONS * season, MAX_WINDOW_STEPS)


def _points(floor: str, models: dict[int, Any], recent_TM: FloatArray, steps: int) -> FloatArray:
    """Return forecasts [H, M] after `recent_TM`, within what a metric can be; totals are left 0."""
    points_HM = np.zeros((steps, recent_TM.shape[1]))
    for index, model in models.items():
        values_T = recent_TM[:, index]
        if model is None or np.ptp(values_T) == 0:
            points_HM[:, index] = values_T.mean()
        else:
            points_HM[:, index] = _call(floor, index, model.forward, y=values_T, h=steps)["mean"]
    return np.clip(points_HM, 0, np.where(IS_SHARE, 1, np.inf))


def _call(floor: str, index: int, method: Any, **arguments: Any) -> Any:
    """Call the library, which refuses with exceptions of any kind.

    Raises:
        ModelError: it failed, or what it gave is not finite.
    """
    try:
        with warnings.catch_warnings():
            # It tells each metric anew what it does without; the docstrings here say it once.
            warnings.simplefilter("ignore")
            found = method(**arguments)
    except Exception as error:
        raise ModelError(f"{floor} cannot be fitted to {METRIC_NAMES[index]}: {error!r}", fix=_WITHOUT) from error
    if isinstance(found, dict) and not np.isfinite(found["mean"]).all():
        raise ModelError(f"the forecast of {METRIC_NAMES[index]} by {floor} is not finite", fix=_WITHOUT)
    return found


_WITHOUT = "leave the floor out: name the others with --floors"
