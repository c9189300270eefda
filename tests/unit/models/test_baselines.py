import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import ModelError
from infra.schema import METRIC_INDEX, METRIC_NAMES, QUANTILE_LEVELS
from infra.steps import DAY_US, HOUR_US, WEEK_US
from models.baselines import Drift, Persistence, ProfileLevel, SeasonalNaive, SeasonalWindowMean, floors
from models.constraints import violations
from models.past_errors import ErrorSample, PastErrors, in_units

M, Q = len(METRIC_NAMES), len(QUANTILE_LEVELS)
EVENTS, TOTAL_NODES = METRIC_INDEX["events"], METRIC_INDEX["total_nodes"]
each_floor = pytest.mark.parametrize("floor", floors(), ids=lambda floor: floor.name)


def snapshots(steps, *, seed=0, season=24, level=20.0):
    """Poisson counts around a daily rhythm, in the order of the schema, with its invariants."""
    rng = np.random.default_rng(seed)
    rate = level * (1 + 0.8 * np.sin(2 * np.pi * np.arange(steps) / season))
    values = rng.random((steps, M))
    values[:, EVENTS] = rng.poisson(rate)
    for smaller, larger, share in (
        ("unique_edges", "events", 0.9),
        ("new_edges", "unique_edges", 0.5),
        ("active_nodes", "events", 0.8),
        ("new_nodes", "active_nodes", 0.2),
    ):
        values[:, METRIC_INDEX[smaller]] = rng.binomial(values[:, METRIC_INDEX[larger]].astype(int), share)
    for total, new in (("total_nodes", "new_nodes"), ("total_edges", "new_edges")):
        values[:, METRIC_INDEX[total]] = values[:, METRIC_INDEX[new]].cumsum()
    return values


def forecast(floor, values, horizon, *, step_us=HOUR_US, chunk_steps=1024, seed=0):
    state = floor.update(floor.start(step_us, 0), values)
    chunks = list(floor.rollout(state, horizon, chunk_steps=chunk_steps, seed=seed))
    assert [chunk.first_step for chunk in chunks] == list(range(0, horizon, chunk_steps))
    return np.concatenate([chunk.mean for chunk in chunks]), np.concatenate([chunk.quantiles for chunk in chunks])


def constant_rows(*events):
    values = np.zeros((len(events), M))
    values[:, EVENTS] = events
    return values


def test_persistence_repeats_the_last_value():
    mean, _ = forecast(Persistence(), constant_rows(3, 9, 5), 4)
    np.testing.assert_array_equal(mean[:, EVENTS], [5, 5, 5, 5])


def test_drift_follows_the_line_through_the_first_and_the_last_value():
    mean, _ = forecast(Drift(), constant_rows(2, 9, 8), 3)
    np.testing.assert_allclose(mean[:, EVENTS], [11, 14, 17])
    mean, _ = forecast(Drift(), constant_rows(8, 9, 2), 3)
    np.testing.assert_array_equal(mean[:, EVENTS], [0, 0, 0])


def test_seasonal_naive_repeats_the_last_week():
    values = constant_rows(*range(30))
    mean, _ = forecast(SeasonalNaive(), values, 9, step_us=DAY_US)
    np.testing.assert_array_equal(mean[:, EVENTS], [23, 24, 25, 26, 27, 28, 29, 23, 24])


def test_window_mean_averages_the_last_eight_weeks_by_position():
    values = constant_rows(*range(7 * 10))
    mean, _ = forecast(SeasonalWindowMean(), values, 8, step_us=DAY_US)
    np.testing.assert_allclose(mean[:, EVENTS], [38.5, 39.5, 40.5, 41.5, 42.5, 43.5, 44.5, 38.5])


def test_profile_level_scales_the_long_shape_to_the_recent_level():
    shape = np.array([1.0, 2, 3, 4, 5, 6, 7])
    values = constant_rows(*np.concatenate([np.tile(shape, 48), np.tile(2 * shape, 4)]))
    mean, _ = forecast(ProfileLevel(), values, 7, step_us=DAY_US)
    profile = shape * 56 / 52
    expected = profile * (4 * 56 + 0.5) / (4 * profile.sum() + 0.5)
    np.testing.assert_allclose(mean[:, EVENTS], expected)


def test_profile_level_moves_shares_by_a_difference():
    values = np.zeros((7 * 52, M))
    reciprocity = METRIC_INDEX["reciprocity"]
    values[:, reciprocity] = 0.2
    values[-28:, reciprocity] = 0.6
    mean, _ = forecast(ProfileLevel(), values, 3, step_us=DAY_US)
    np.testing.assert_allclose(mean[:, reciprocity], 0.6)


def test_profile_level_of_weeks_takes_the_level_of_four_weeks():
    values = constant_rows(*np.concatenate([np.full(52 * 3 - 4, 10.0), np.full(4, 20.0)]))
    mean, _ = forecast(ProfileLevel(), values, 2, step_us=WEEK_US)
    np.testing.assert_allclose(mean[:, EVENTS], 10 * (80 + 0.5) / (40 + 10 / 3 * 4 + 0.5), rtol=1e-9)


@each_floor
@settings(deadline=None, max_examples=12)
@given(steps=st.integers(1, 400), step_us=st.sampled_from([HOUR_US, DAY_US, WEEK_US, HOUR_US // 4]), data=st.data())
def test_forecasts_keep_every_invariant_however_short_the_history(floor, steps, step_us, data):
    values = snapshots(steps, seed=data.draw(st.integers(0, 99)), level=data.draw(st.sampled_from([0.05, 1, 50])))
    mean, quantiles = forecast(floor, values, data.draw(st.integers(1, 50)), step_us=step_us)
    before = (values[-1], np.repeat(values[-1][:, None], Q, axis=1))
    assert violations(mean, quantiles, before=before) == []


@each_floor
def test_no_observation_is_refused(floor):
    with pytest.raises(ModelError, match="no step was observed"):
        next(floor.rollout(floor.start(HOUR_US, 0), 3))


@each_floor
def test_one_step_gives_a_wide_finite_forecast(floor):
    mean, quantiles = forecast(floor, constant_rows(16), 400)
    np.testing.assert_allclose(mean[:, EVENTS], 16)
    assert np.isfinite(quantiles).all()
    assert (quantiles[:, EVENTS, 0] < 12).all()
    assert (quantiles[:, EVENTS, -1] > 20).all()


@each_floor
@settings(deadline=None, max_examples=10)
@given(cuts=st.lists(st.integers(0, 300), max_size=5))
def test_any_cuts_give_the_same_state(floor, cuts):
    values = snapshots(300)
    whole = floor.update(floor.start(DAY_US, 0), values)
    state, begin = floor.start(DAY_US, 0), 0
    for end in [*sorted(cuts), 300]:
        state = floor.update(state, values[begin:end])
        begin = end
    assert (state.next_us, state.observed) == (whole.next_us, whole.observed) == (300 * DAY_US, 300)
    np.testing.assert_array_equal(state.tail_TM, whole.tail_TM)
    np.testing.assert_array_equal(state.first_M, whole.first_M)


@each_floor
def test_chunks_change_no_number(floor):
    values = snapshots(500)
    whole = forecast(floor, values, 400)
    for chunk_steps in (1, 37, 200):
        chunked = forecast(floor, values, 400, chunk_steps=chunk_steps)
        for ours, theirs in zip(chunked, whole, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12)


@each_floor
def test_the_seed_moves_the_totals_alone(floor):
    values = snapshots(500)
    (_, first), (_, second) = forecast(floor, values, 50), forecast(floor, values, 50, seed=1)
    new = [index for index, name in enumerate(METRIC_NAMES) if not name.startswith("total_")]
    np.testing.assert_array_equal(first[:, new], second[:, new])
    assert not np.array_equal(first[:, TOTAL_NODES], second[:, TOTAL_NODES])


@each_floor
def test_states_are_values_and_the_tail_is_bounded(floor):
    values = snapshots(2000)
    state = floor.update(floor.start(DAY_US, 0), values)
    kept = state.tail_TM.copy()
    values[:] = -1
    list(floor.rollout(state, 20))
    floor.update(state, snapshots(3))
    np.testing.assert_array_equal(state.tail_TM, kept)
    assert len(kept) <= 7 * 156


@each_floor
def test_values_that_are_not_finite_are_refused(floor):
    values = snapshots(4)
    values[2, EVENTS] = np.nan
    with pytest.raises(ModelError, match="events of observed step 2"):
        floor.update(floor.start(HOUR_US, 0), values)
    with pytest.raises(ModelError, match="shape"):
        floor.update(floor.start(HOUR_US, 0), values[:, :3])


@pytest.mark.parametrize("floor", [SeasonalNaive(), SeasonalWindowMean(), ProfileLevel()], ids=lambda floor: floor.name)
def test_intervals_of_seasonal_floors_cover_what_they_say(floor):
    # High counts: integers make the intervals of low ones wider than they say.
    values = snapshots(168 * 40, seed=5, level=2000)
    origin = 168 * 30
    _, quantiles = forecast(floor, values[:origin], len(values) - origin)
    for name in ("events", "active_nodes", "new_edges"):
        observed, fan = values[origin:, METRIC_INDEX[name]], quantiles[:, METRIC_INDEX[name]]
        for low, high, level in ((0, -1, 0.95), (1, -2, 0.8)):
            covered = ((observed >= fan[:, low]) & (observed <= fan[:, high])).mean()
            assert covered == pytest.approx(level, abs=0.06), (name, level)


def test_uncertainty_grows_with_the_lead_and_then_stays():
    rng = np.random.default_rng(0)
    level = np.exp(np.repeat(np.cumsum(rng.normal(0, 0.15, 100)), 7))
    values = constant_rows(*rng.poisson(100 * level))
    _, quantiles = forecast(SeasonalNaive(), values, 7 * 400, step_us=DAY_US)
    width = np.ptp(quantiles[::7, EVENTS, 1:-1], axis=-1)
    assert width[10] > 1.3 * width[0]
    assert np.all(np.diff(width) >= -1e-9)
    assert width[150] == width[399]


def wake_up(*, quiet, awake, level, season=168):
    """Seasons of nothing, then others of events alone at a level."""
    events = np.random.default_rng(0).poisson(level, awake * season)
    return constant_rows(*np.concatenate([np.zeros(quiet * season), events]))


@each_floor
@pytest.mark.parametrize(("quiet", "awake"), [(1, 1), (2, 2), (8, 1), (8, 4), (30, 4)])
@pytest.mark.parametrize("level", [10, 1000])
def test_a_wake_up_after_sleep_lifts_no_forecast_far_beyond_its_level(floor, quiet, awake, level):
    mean, quantiles = forecast(floor, wake_up(quiet=quiet, awake=awake, level=level), 168)
    median, top = quantiles[:, EVENTS, Q // 2].mean(), quantiles[:, EVENTS, -1].mean()
    assert mean[:, EVENTS].mean() / 2 < median < 2.5 * level
    assert median <= top < 4 * level


@each_floor
def test_forecasts_of_weeks_after_a_wake_up_do_not_fear_sleep(floor):
    _, quantiles = forecast(floor, wake_up(quiet=20, awake=30, level=1000, season=7), 7, step_us=DAY_US)
    assert (quantiles[:, EVENTS, 1] > 850).all()
    assert (quantiles[:, EVENTS, -1] < 3000).all()


@each_floor
@pytest.mark.parametrize("level", [0, 3, 500])
def test_what_never_changed_stays_as_it_is(floor, level):
    mean, quantiles = forecast(floor, constant_rows(*[level] * 168 * 12), 400)
    np.testing.assert_allclose(mean[:, EVENTS], level, rtol=1e-3)
    np.testing.assert_allclose(quantiles[:, EVENTS], level, atol=1)


@each_floor
def test_a_single_spike_lifts_no_other_hour(floor):
    values = snapshots(168 * 20, seed=1, level=5)
    _, before = forecast(floor, values, 168)
    values[168 * 15 + 5, EVENTS] = 5000
    _, after = forecast(floor, values, 168)
    elsewhere = np.arange(168) != 5
    assert (after - before)[elsewhere, EVENTS].mean() < 2
    assert after[elsewhere, EVENTS].max() < 60
    assert after[:, EVENTS].max() < 5000


def test_a_past_error_is_counted_in_the_unit_of_what_came_where_that_jumped():
    observed = np.repeat(np.array([0.0, 3.0, 8.0, 15.0, 99.0])[:, None], M, axis=1)
    errors = in_units(observed, np.full_like(observed, 3.0))
    # The unit is 2 up to 8, which is 3 of its own; beyond, two thirds of the root of 16 and of 100.
    np.testing.assert_allclose(errors[:, EVENTS], [-1.5, 0, 2.5, 12 * 1.5 / 4, 96 * 1.5 / 10])
    reciprocity = METRIC_INDEX["reciprocity"]
    shares = in_units(observed / 100, np.zeros_like(observed))
    np.testing.assert_allclose(shares[:, reciprocity], observed[:, 0] / 10)


@given(forecast=st.floats(0, 1e6), observed=st.lists(st.floats(0, 1e9), min_size=2, max_size=8))
def test_more_that_came_is_a_larger_error_of_at_most_one_and_a_half_of_the_level(forecast, observed):
    rising = np.repeat(np.sort(observed)[:, None], M, axis=1)
    errors = in_units(rising, np.full_like(rising, forecast))[:, EVENTS]
    assert (np.diff(errors) >= -1e-9 * np.abs(errors[1:])).all()
    assert (errors <= 1.5 * np.sqrt(1 + rising[:, EVENTS])).all()


def test_past_errors_meet_hand_made_quantiles():
    errors = np.tile(np.arange(-2000.0, 2001.0)[:, None], (1, M))
    sample = ErrorSample(1, errors, np.arange(4001) % 2)
    fitted = PastErrors.fit([sample], 2, prior_M=np.ones(M))
    spread = fitted.size_SM[0, 0] * fitted.shape_KMQ[0, 0]
    assert fitted.size_SM[0, 0] == pytest.approx(np.sqrt((np.arange(-2000, 2001) ** 2).mean()), rel=0.01)
    np.testing.assert_allclose(spread, np.quantile(errors[:, 0], QUANTILE_LEVELS), atol=40)
