"""Calibration on the live stream: right offsets, old ones forgotten, one state however steps come, no look ahead."""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecasting.training import forecaster_of
from infra.schema import METRIC_INDEX, QUANTILE_LEVELS
from infra.steps import HOUR_US
from models import checkpoint, general_folder
from models.columns import IS_COUNT, MEDIAN, MODELLED, N_MODELLED
from models.contract import BLOCK_STEPS, History
from models.forecaster import ForecasterConfig, ForecasterNet, MambaForecaster
from models.ranks import default_structure
from models.recent_errors import MAX_NOTES, MAX_REACH_STEPS, RecentErrors
from tests.unit.models.model_series import weekly_history

SEASON = 168
LEVELS = np.array(QUANTILE_LEVELS)


def observed(errors: np.ndarray, *, said_T: np.ndarray | None = None, season: int = SEASON) -> RecentErrors:
    """Return what follows from forecasts that said zero at every level, in units of one, while `errors` [T] came.

    With `said_T` they said that of each step, at every level, and `errors` beside it.
    """
    said_T = np.zeros(len(errors)) if said_T is None else said_T
    came_T = said_T + errors
    found, begin = RecentErrors(season), 0
    for mark in [*found.marks(0, len(errors)), len(errors)]:
        found = found.observe(begin, np.repeat(came_T[begin:mark, None], N_MODELLED, axis=1))
        if mark < len(errors):
            said = np.zeros((found.reach, N_MODELLED, len(LEVELS)))
            ahead = said_T[mark : mark + found.reach]
            said[: len(ahead)] += ahead[:, None, None]
            unit = np.ones((found.reach, N_MODELLED))
            found = found.noted(found.note(mark, said, 0 * unit, unit))
        begin = mark
    return found.settled(len(errors), np.ones(N_MODELLED))


def corrections(found: RecentErrors, distances: list[float], said: float = 0.0) -> np.ndarray:
    """Return by how much residual quantiles [L, M, Q] that say the same at all levels are corrected."""
    residuals = np.full((len(distances), N_MODELLED, len(LEVELS)), said)
    return found.corrected(residuals, np.array(distances)) - residuals


def test_each_level_moves_towards_that_quantile_of_its_errors() -> None:
    errors = np.random.default_rng(0).normal(10.0, 1.0, size=30 * SEASON)
    moved_Q = corrections(observed(errors), [50.0])[0, 0]
    # Notes weigh about fourteen in all, so that offsets go two thirds of the way.
    expected_Q = np.quantile(errors, LEVELS)
    assert np.all((0.55 * expected_Q < moved_Q) & (moved_Q < 0.75 * expected_Q))
    assert np.all(np.diff(moved_Q) > 0)


def test_old_errors_are_forgotten() -> None:
    quiet, loud = np.zeros(20 * SEASON), np.full(20 * SEASON, 5.0)
    assert np.all(corrections(observed(np.concatenate([loud, quiet])), [50.0]) == 0.0)
    assert len(observed(np.concatenate([loud, quiet])).notes) <= MAX_NOTES


def test_nothing_is_moved_before_anything_is_known_or_far_ahead() -> None:
    assert np.all(corrections(RecentErrors(SEASON), [1.0, 1000.0], said=3.0) == 0.0)
    moved = corrections(observed(np.full(10 * SEASON, 2.0)), [168.0, 300.0, 672.0, 36_500.0])[:, 0, 0]
    assert moved[0] > moved[1] > 0.0
    assert moved[2] == moved[3] == 0.0


@pytest.mark.parametrize(("share", "doubt"), [(1.0, 0.0), (2.0, 0.0), (0.5, 0.5), (0.0, 1.0), (-1.0, 1.0)])
def test_what_does_not_come_true_is_believed_less(share: float, doubt: float) -> None:
    said = np.random.default_rng(1).normal(size=30 * SEASON)
    found = observed((share - 1) * said, said_T=said)
    # Of some fourteen notes and three of trust; of what is said for the end of a season, fewer have come true.
    near, far = found.doubts_KM[:3], found.doubts_KM[3]
    expected = min(doubt * (2 if share < 0 else 1) * 0.82, 1.0)
    assert near.shape[1] == far.shape[0] == N_MODELLED
    assert np.all(np.abs(near - expected) < 0.06)
    assert np.all((0.75 * expected - 1e-6 <= far) & (far <= expected + 1e-6))
    if share == 0.0:
        taken_back = corrections(found, [50.0, 800.0], said=4.0)[:, 0, MEDIAN]
        assert taken_back[0] == pytest.approx(-4.0 * 0.82, abs=0.4)
        assert taken_back[1] == 0.0


def test_doubt_leaves_the_spread_to_the_levels() -> None:
    random = np.random.default_rng(2)
    said, noise = random.normal(size=30 * SEASON), random.normal(size=30 * SEASON)
    moved_Q = corrections(observed(noise - said, said_T=said), [50.0])[0, 0]
    # Shrunk to the two thirds of what is noise, and of the third of what was said that is still believed.
    assert np.all(np.abs(moved_Q - 0.67 * np.quantile(noise, LEVELS)) < 0.15)


@pytest.mark.parametrize("season", [1, 7, 52, 168, 672, 10_080])
def test_every_season_has_notes_at_all_hours(season: int) -> None:
    errors = RecentErrors(season)
    marks = errors.marks(0, 60 * season)
    assert 0 < len(marks) <= MAX_NOTES + 1
    assert marks[-1] > 60 * season - errors.stride
    assert errors.reach == min(season, MAX_REACH_STEPS)
    if season > 14:
        assert len({mark % (season // 7) for mark in marks}) > min(season // 7, MAX_NOTES) // 2


def forecaster(*, follow_errors: bool = True) -> MambaForecaster:
    net = ForecasterNet(ForecasterConfig(d_model=16, n_layers=1, d_state=8, headdim=16), seed=1)
    return MambaForecaster(net, default_structure(7), ranks_season=7, follow_errors=follow_errors)


def quantiles(model: MambaForecaster, history: History, cuts: list[int], horizon: int = 200) -> np.ndarray:
    state = model.start(history.step_us, history.start_us)
    for begin, end in pairwise([0, *sorted(cuts), len(history)]):
        state = model.update(state, history.values[begin:end])
    return np.concatenate([chunk.quantiles for chunk in model.rollout(state, horizon, chunk_steps=64)])


@cache
def in_one_piece(steps: int) -> np.ndarray:
    return quantiles(forecaster(), weekly_history(steps), [])


@settings(max_examples=3)
@given(cuts=st.lists(st.integers(0, 1200), max_size=6))
def test_however_the_steps_arrive_the_forecast_is_one(cuts: list[int]) -> None:
    found = quantiles(forecaster(), weekly_history(1200), cuts)
    np.testing.assert_allclose(found, in_one_piece(1200), rtol=2e-4, atol=2e-4)


@settings(max_examples=3)
@given(blocks=st.lists(st.integers(0, 5), max_size=4))
def test_whole_blocks_lead_to_one_state_to_the_last_bit(blocks: list[int]) -> None:
    steps = 5 * BLOCK_STEPS + 100
    found = quantiles(forecaster(), weekly_history(steps), [block * BLOCK_STEPS for block in blocks])
    np.testing.assert_array_equal(found, in_one_piece(steps))


@settings(max_examples=3)
@given(before=st.integers(0, 400), after=st.integers(0, 400))
def test_what_was_worked_out_before_changes_no_bit(before: int, after: int) -> None:
    history, model = weekly_history(3 * BLOCK_STEPS + 400), forecaster()
    base = model.update(model.start(history.step_us, history.start_us), history.values[: 3 * BLOCK_STEPS])
    tails = [history.values[3 * BLOCK_STEPS :][:steps] for steps in (before, after)]
    earlier = model.update(base, tails[0])
    states = [model.update(base, tails[1], earlier=known) for known in (None, earlier)]
    one, other = (next(model.rollout(state, 30)).quantiles for state in states)
    np.testing.assert_array_equal(one, other)
    for fresh, taken in zip(*(state.errors.notes for state in states), strict=True):
        assert fresh.observed == taken.observed
        np.testing.assert_array_equal(fresh.error_DMQ, taken.error_DMQ)


def test_a_level_that_falls_is_followed() -> None:
    """A network that dies away: the slow level of the anchor stays too high, its errors say so."""
    history = weekly_history(1500)
    values = history.values.copy()
    values[1485:, MODELLED[IS_COUNT]] = np.floor(values[1485:, MODELLED[IS_COUNT]] * 0.2)
    dying = History(history.step_us, history.start_us, values)
    ahead = weekly_history(1507).values[1500:, 0] * 0.2
    followed, held = (quantiles(forecaster(follow_errors=on), dying, [], 7)[:, 0] for on in (True, False))
    assert np.abs(ahead - followed[:, MEDIAN]).mean() < 0.9 * np.abs(ahead - held[:, MEDIAN]).mean()


def test_the_future_moves_nothing() -> None:
    history = weekly_history(1200)
    other = history.values.copy()
    other[1000:] = other[1000:] * 7 + 3
    model = forecaster()
    one = quantiles(model, history.part(0, 1000), [])
    np.testing.assert_array_equal(one, quantiles(model, History(history.step_us, history.start_us, other[:1000]), []))


def test_errors_are_counted_in_the_units_of_now() -> None:
    found = observed(np.full(20 * SEASON, 10.0))
    now = found.notes[-1].observed + 1
    same, larger, smaller = (found.settled(now, np.full(N_MODELLED, unit)).moved.offsets_KMQ for unit in (1, 10, 0.1))
    np.testing.assert_allclose(larger, same / 10, rtol=1e-6)
    np.testing.assert_allclose(smaller, same * 10, rtol=1e-6)


@pytest.mark.parametrize("quiet", [0.0, 0.02, 1.0])
def test_network_that_wakes_up_is_forecast_within_what_it_has_shown(quiet: float) -> None:
    """Weeks of next to nothing, then one of a hundred events an hour: no forecast goes to millions."""
    rng = np.random.default_rng(0)
    values = weekly_history(8 * SEASON).values
    loud = rng.poisson(100, size=SEASON)
    values[-SEASON:, MODELLED] = np.where(IS_COUNT, loud[:, None], values[-SEASON:, MODELLED])
    values[:-SEASON, MODELLED] = np.where(IS_COUNT, rng.poisson(quiet, size=(len(values) - SEASON, 1)), 0.0)
    found = checkpoint.load(general_folder())
    assert found is not None
    model = forecaster_of(found)
    state = model.update(model.start(HOUR_US, 0), values)
    (chunk,) = model.rollout(state, 800)
    assert np.isfinite(chunk.mean).all()
    assert chunk.mean[:, METRIC_INDEX["events"]].max() < 100 * loud.max()
    assert np.median(chunk.quantiles[:, METRIC_INDEX["events"], MEDIAN]) < 2 * loud.max()
