"""The floors of the extra `floors`: the same contract as the others, kept fits, errors that name what to do."""

import sys

import numpy as np
import pytest

from infra.errors import ModelError, UsageError
from infra.schema import METRIC_INDEX, METRIC_NAMES, QUANTILE_LEVELS
from infra.steps import DAY_US, HOUR_US
from models import boosted, statistical
from models.baselines import SeasonalNaive, floors
from models.boosted import LightGBM
from models.columns import MEDIAN
from models.constraints import violations
from models.floor_names import library_floors, named_floors
from models.refits import FitCache, refit_point
from models.statistical import MSTL, AutoETS, AutoTheta
from tests.unit.models.test_baselines import constant_rows, forecast, snapshots, wake_up

EVENTS, Q = METRIC_INDEX["events"], len(QUANTILE_LEVELS)
each_floor = pytest.mark.parametrize("make", [AutoTheta, AutoETS, MSTL, LightGBM], ids=lambda make: make.name)


def loss(make, values, origins, horizon):
    """Mean absolute error of the median of events, forecast from each origin."""
    floor, errors = make(), []
    for origin in origins:
        _, quantiles = forecast(floor, values[:origin], horizon, step_us=DAY_US)
        errors.append(np.abs(values[origin : origin + horizon, EVENTS] - quantiles[:, EVENTS, MEDIAN]).mean())
    return np.mean(errors)


@each_floor
@pytest.mark.parametrize("steps", [1, 17, 40, 200])
@pytest.mark.parametrize("level", [0.05, 30])
def test_forecasts_keep_every_invariant_however_short_the_history(make, steps, level):
    values = snapshots(steps, seed=steps, season=7, level=level)
    mean, quantiles = forecast(make(), values, 30, step_us=DAY_US)
    before = (values[-1], np.repeat(values[-1][:, None], Q, axis=1))
    assert violations(mean, quantiles, before=before) == []


@each_floor
def test_what_never_changed_stays_as_it_is(make):
    mean, quantiles = forecast(make(), constant_rows(*[16] * 60), 10, step_us=DAY_US)
    np.testing.assert_allclose(mean[:, EVENTS], 16, atol=0.01)
    assert np.isfinite(quantiles).all()


@pytest.mark.parametrize(("make", "quiet", "awake"), [(LightGBM, 50, 12), (AutoTheta, 8, 5), (AutoETS, 8, 5)])
def test_a_wake_up_after_sleep_lifts_no_forecast_far_beyond_its_level(make, quiet, awake):
    values = wake_up(quiet=quiet, awake=awake, level=1000, season=7)
    mean, quantiles = forecast(make(), values, 14, step_us=DAY_US)
    np.testing.assert_allclose(mean[:, EVENTS], 1000, rtol=0.3)  # a trend is part of AutoTheta's
    assert 500 < quantiles[:, EVENTS, MEDIAN].mean() < 2000
    assert quantiles[:, EVENTS, -1].mean() < 4000


@each_floor
def test_it_learns_a_weekly_rhythm_that_the_last_week_only_shows_with_noise(make):
    values = snapshots(7 * 60, seed=4, season=7, level=60)
    origins = range(7 * 44, 7 * 58, 14)
    assert loss(make, values, origins, 14) < 0.9 * loss(SeasonalNaive, values, origins, 14)


@each_floor
def test_chunks_change_no_number(make):
    values, floor = snapshots(150, season=7), make()
    whole = forecast(floor, values, 90, step_us=DAY_US)
    for chunk_steps in (13, 40):
        chunked = forecast(floor, values, 90, step_us=DAY_US, chunk_steps=chunk_steps)
        for ours, theirs in zip(chunked, whole, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9)


@each_floor
def test_cuts_and_earlier_forecasts_change_no_number(make):
    values, used = snapshots(170, season=7), make()
    state = used.start(DAY_US, 0)
    for begin, end in ((0, 1), (1, 90), (90, 160), (160, 170)):
        state = used.update(state, values[begin:end])
        list(used.rollout(state, 5))
    (chunk,) = used.rollout(state, 20)
    _, fresh = forecast(make(), values, 20, step_us=DAY_US)
    np.testing.assert_array_equal(chunk.quantiles, fresh)


@each_floor
def test_a_fit_serves_until_the_history_has_grown_by_several_seasons(make, monkeypatch):
    fits = []
    floor = make()
    kept = "_fit_known" if make is LightGBM else "_fit_window"
    original = getattr(floor, kept)

    def fit(*given):
        fits.append(1)
        return original(*given)

    monkeypatch.setattr(floor, kept, fit)
    values = snapshots(7 * 30, season=7)
    state = floor.update(floor.start(DAY_US, 0), values[: 7 * 16])
    for begin in range(7 * 16, 7 * 30, 7):
        list(floor.rollout(state, 3))
        state = floor.update(state, values[begin : begin + 7])
    assert len(fits) == (2 if make is LightGBM else 4)  # at 16 and 24 weeks, or at 16, 20, 24 and 28


@each_floor
def test_the_tail_is_bounded_and_longer_histories_change_nothing(make):
    floor = make()
    values = snapshots(7 * 160, season=7)
    keep = floor._tail_steps(DAY_US)
    state = floor.update(floor.start(DAY_US, 0), values)
    assert len(state.tail_TM) == keep == 7 * floor.tail_seasons
    for fine_us in (HOUR_US, HOUR_US // 60, 1_000_000):
        assert floor._tail_steps(fine_us) < 120_000


def test_between_fits_a_statistical_floor_reads_the_latest_steps():
    steps = np.random.default_rng(0).normal(0, 4, 7 * 31)
    values = constant_rows(*np.maximum(300 + np.cumsum(steps), 0).round())
    values[7 * 28 + 3 :, EVENTS] += 100
    for make in (AutoTheta, AutoETS):
        _, quantiles = forecast(make(), values[: 7 * 28 + 6], 1, step_us=DAY_US)
        assert quantiles[0, EVENTS, MEDIAN] > values[7 * 28 + 5, EVENTS] - 40


def test_uncertainty_grows_with_the_lead():
    rng = np.random.default_rng(0)
    values = constant_rows(*np.maximum(200 + np.cumsum(rng.normal(0, 4, 7 * 40)), 0).round())
    for make in (AutoETS, LightGBM):
        _, quantiles = forecast(make(), values, 200, step_us=DAY_US)
        width = quantiles[:, EVENTS, -2] - quantiles[:, EVENTS, 1]
        assert width[60] > 1.5 * width[0]
        assert width[199] >= width[60] * 0.8


@pytest.mark.parametrize(
    ("observed", "point"), [(1, 1), (6, 6), (7, 7), (13, 7), (30, 28), (55, 49), (56, 56), (111, 56), (112, 112)]
)
def test_refit_points(observed, point):
    assert refit_point(observed, 7, 8) == point


def test_few_fits_are_kept():
    cache, made = FitCache(), []
    for number in [*range(6), 5, 0]:
        cache.get(np.full((1, 1), float(number)), (1,), lambda number=number: made.append(number))
    assert made == [0, 1, 2, 3, 4, 5, 0]


def test_floors_are_chosen_by_name_in_their_order():
    simple = [floor.name for floor in floors()]
    more = [floor.name for floor in library_floors()]
    assert [floor.name for floor in named_floors(["simple"])] == simple
    assert [floor.name for floor in named_floors(["all"])] == simple + more
    assert [floor.name for floor in named_floors(["lightgbm", "simple", "drift"])] == [*simple, "lightgbm"]
    with pytest.raises(UsageError, match="no floor 'nixtla'") as caught:
        named_floors(["profile_level", "nixtla"])
    assert "profile_level" in caught.value.fix


@pytest.mark.parametrize(("name", "library"), [("auto_ets", "statsforecast"), ("lightgbm", "lightgbm")])
def test_a_missing_library_is_named_with_its_extra(name, library, monkeypatch):
    for module in [m for m in sys.modules if m.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr("models.floor_libraries.find_spec", lambda asked: None if asked == library else True)
    with pytest.raises(ModelError, match=library) as caught:
        named_floors([name])
    assert "graphtide[floors]" in caught.value.fix
    with pytest.raises(ModelError, match=library):
        forecast(library_floors()[0 if library == "statsforecast" else 3], snapshots(80), 3, step_us=DAY_US)
    assert named_floors(["simple"])


def test_what_the_library_refuses_is_told_with_floor_and_metric():
    class Broken(AutoETS):
        def _model(self, library, lengths):
            class Model:
                def fit(self, y):
                    raise ZeroDivisionError("inside")

            return Model()

    with pytest.raises(ModelError, match=r"auto_ets cannot be fitted to events.*inside"):
        forecast(Broken(), snapshots(80), 3, step_us=DAY_US)


def test_position_means_by_hand():
    values = np.repeat(np.arange(20.0)[:, None], len(METRIC_NAMES), axis=1)
    known = boosted._Known(values, 0, DAY_US, 7)
    # From origin 17 on, step 20 is the fourth ahead; its position was last seen at 13, and at 6 before.
    assert known.mean_of(np.array([17]), np.array([4]), 1)[0, 0] == 13
    assert known.mean_of(np.array([17]), np.array([4]), 8)[0, 0] == (13 + 6) / 2
    # More than a season ahead, the same position of the last season that is known.
    assert known.mean_of(np.array([17]), np.array([11]), 1)[0, 0] == 13
    # A position that was never seen takes the mean of all that was.
    assert known.mean_of(np.array([3]), np.array([2]), 4)[0, 0] == 1


def test_season_lengths_are_day_and_week_where_the_step_has_both():
    assert statistical._season_lengths(HOUR_US, 168) == [24, 168]
    assert statistical._season_lengths(DAY_US, 7) == [7]
    assert statistical._season_lengths(7 * DAY_US, 52) == [52]
