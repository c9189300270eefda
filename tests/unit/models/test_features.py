"""The causal statistics see the past alone, whole or in any pieces."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.steps import DAY_US, HOUR_US, MONDAY_US, WEEK_US
from models.columns import IS_COUNT, N_MODELLED
from models.features import CausalStatistics
from models.outlook import LEANS, N_FEATURES, N_LEANS, N_RIVALS
from models.tokens import calendar_features, transform, untransform

START_US = 1_254_193_200_000_000


def with_raids(n: int) -> np.ndarray:
    """Some values with an hour here and there, one of them of the first, at hundreds of times the usual."""
    values = some_values(n)
    values[[2, n // 2, n // 2 + 40, n - 60, n - 59], :] *= np.where(IS_COUNT, 500.0, 1.0)
    return values


def some_values(n: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    values = generator.poisson(4.0, size=(n, N_MODELLED)).astype(np.float64)
    values[:, ~IS_COUNT] = generator.random((n, int((~IS_COUNT).sum())))
    return values


@pytest.mark.parametrize("step_us", [HOUR_US, DAY_US, WEEK_US])
@given(cuts=st.lists(st.integers(0, 400), max_size=6))
def test_any_cut_gives_the_same_statistics_and_tokens(step_us: int, cuts: list[int]) -> None:
    values = with_raids(400)
    whole, tokens = CausalStatistics.start(step_us, START_US).observe(values)
    pieces, features = CausalStatistics.start(step_us, START_US), []
    edges = [0, *sorted(cuts), 400]
    for begin, end in pairwise(edges):
        pieces, part = pieces.observe(values[begin:end])
        features.append(part.features)
    np.testing.assert_allclose(np.concatenate(features), tokens.features, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(pieces.heights.highest, whole.heights.highest, rtol=1e-9, atol=1e-9)
    for name in ("level_sum", "level_expected", "square_sum"):
        np.testing.assert_allclose(getattr(pieces, name), getattr(whole, name), rtol=1e-9, atol=1e-9)
    for name in ("total", "shape", "daily_total"):
        np.testing.assert_allclose(getattr(pieces.profiles, name), getattr(whole.profiles, name), rtol=1e-9, atol=1e-9)
    assert pieces.next_us == whole.next_us == START_US + 400 * step_us


@pytest.mark.parametrize("step_us", [HOUR_US, DAY_US])
@given(cut=st.integers(1, 399), count=st.sampled_from([1.0, 3.0, 7.0, 900.0]), share=st.sampled_from([0.1, 1 / 3, 0.7]))
def test_rounding_does_not_tell_where_a_metric_lies_that_never_moves(
    step_us: int, cut: int, count: float, share: float
) -> None:
    values = np.where(IS_COUNT, count, np.full((400, N_MODELLED), share))
    start = CausalStatistics.start(step_us, START_US)
    whole, pieces = start.observe(values)[0], start.observe(values[:cut])[0].observe(values[cut:])[0]
    np.testing.assert_allclose(pieces.outlook().spread, whole.outlook().spread, rtol=0, atol=1e-6)


@given(origin=st.integers(1, 399), seed=st.integers(0, 5))
def test_what_comes_later_changes_nothing_before(origin: int, seed: int) -> None:
    values = some_values(400)
    changed = values.copy()
    changed[origin:] = some_values(400, seed + 1)[origin:]
    _, tokens = CausalStatistics.start(HOUR_US, START_US).observe(values)
    _, other = CausalStatistics.start(HOUR_US, START_US).observe(changed)
    np.testing.assert_array_equal(tokens.features[:origin], other.features[:origin])
    # The anchor of a step is known before the step is seen.
    np.testing.assert_array_equal(tokens.anchor[: origin + 1], other.anchor[: origin + 1])


def test_observing_changes_no_earlier_value() -> None:
    before, _ = CausalStatistics.start(HOUR_US, START_US).observe(some_values(200))
    kept = before.profiles.total.copy()
    before.observe(some_values(200, seed=1))
    np.testing.assert_array_equal(before.profiles.total, kept)


def a_week() -> np.ndarray:
    """A rhythm of hours times days, from the hour of `START_US` on."""
    generator = np.random.default_rng(3)
    hours, days = (
        generator.uniform(5, 40, size=(1, 24, N_MODELLED)),
        generator.uniform(0.5, 1.5, size=(7, 1, N_MODELLED)),
    )
    week = np.where(IS_COUNT, hours * days, 0.5).reshape(168, N_MODELLED)
    return np.roll(week, -((START_US - MONDAY_US) // HOUR_US % 168), axis=0)


def test_a_steady_weekly_rhythm_is_the_anchor() -> None:
    week = a_week()
    statistics, _ = CausalStatistics.start(HOUR_US, START_US).observe(np.tile(week, (30, 1)))
    ahead = statistics.ahead(1, 168, 1000)
    np.testing.assert_allclose(untransform(ahead.anchor), week, rtol=0.06, atol=0.8)


def test_a_rhythm_is_found_in_a_few_noisy_weeks() -> None:
    week = a_week()
    noisy = np.random.default_rng(4).poisson(np.tile(week, (4, 1))).astype(np.float64)
    noisy[:, ~IS_COUNT] = 0.5
    statistics, _ = CausalStatistics.start(HOUR_US, START_US).observe(noisy)
    error = np.abs(untransform(statistics.ahead(1, 168, 1000).anchor) - week)[:, IS_COUNT].mean()
    by_position = np.abs(noisy.reshape(4, 168, N_MODELLED).mean(axis=0) - week)[:, IS_COUNT].mean()
    assert error < 0.7 * by_position


def test_an_hour_that_is_unlike_its_day_and_its_hour_is_kept() -> None:
    week = a_week()
    week[50, IS_COUNT] += 200.0
    statistics, _ = CausalStatistics.start(HOUR_US, START_US).observe(np.tile(week, (40, 1)))
    anchor = untransform(statistics.ahead(1, 168, 1000).anchor)
    # Other days at this hour, and other hours of this day, take a little of it.
    assert np.all(anchor[50, IS_COUNT] > 0.65 * week[50, IS_COUNT])
    others = np.delete(anchor - week, 50, axis=0)[:, IS_COUNT]
    assert others.max() < 40


def test_recent_weeks_are_worth_less_the_further_ahead() -> None:
    values = np.tile(a_week(), (20, 1))
    values[-168:, IS_COUNT] *= 3
    statistics, _ = CausalStatistics.start(HOUR_US, START_US).observe(values)
    rivals = statistics.ahead(1, 168 * 30, 1000).features[:, LEANS].reshape(-1, N_LEANS, N_MODELLED)[:, :N_RIVALS]
    near, far = (
        np.abs(rivals[:168, :, IS_COUNT]).mean(axis=(0, 2)),
        np.abs(rivals[-168:, :, IS_COUNT]).mean(axis=(0, 2)),
    )
    # Levels of a day, a season, 13 and 52 seasons; the recent profile; that of a day.
    assert np.all(far[[0, 1, 4, 5]] < 0.05 * near[[0, 1, 4, 5]])
    np.testing.assert_allclose(far[2:4], near[2:4], rtol=1e-4)
    assert np.all(near > 0.05)


def test_a_doubled_level_doubles_the_anchor() -> None:
    values = np.full((168 * 30, N_MODELLED), 10.0)
    values[:, ~IS_COUNT] = 0.5
    values[-168 * 12 :, IS_COUNT] *= 2
    statistics, _ = CausalStatistics.start(HOUR_US, START_US).observe(values)
    anchor = untransform(statistics.ahead(1, 10, 1000).anchor)[:, IS_COUNT]
    assert np.all((anchor > 17) & (anchor < 23))


def test_tokens_ahead_do_not_depend_on_how_they_are_cut() -> None:
    statistics, _ = CausalStatistics.start(HOUR_US, START_US).observe(some_values(500))
    whole = statistics.ahead(1, 300, 200)
    np.testing.assert_array_equal(whole.features[120:], statistics.ahead(121, 180, 200).features)


@pytest.mark.parametrize("values", [np.zeros((900, N_MODELLED)), np.full((900, N_MODELLED), 1e9)])
def test_constant_series_give_finite_tokens(values: np.ndarray) -> None:
    values[:, ~IS_COUNT] = np.minimum(values[:, ~IS_COUNT], 1.0)
    statistics, tokens = CausalStatistics.start(HOUR_US, START_US).observe(values)
    ahead = statistics.ahead(1, 500, 100)
    assert tokens.features.shape == (900, N_FEATURES)
    assert np.isfinite(tokens.features).all()
    assert np.isfinite(ahead.features).all()
    np.testing.assert_allclose(untransform(ahead.anchor), values[:500], rtol=2e-3)


def test_seasons_of_many_steps_without_days_stay_finite() -> None:
    # A season of 61 s steps has 9,915 of them and no whole days: a day's average then decays within one step.
    values = some_values(25_000) * np.where(IS_COUNT, 1e6, 1.0)
    statistics, tokens = CausalStatistics.start(61_000_000, START_US).observe(values)
    assert np.isfinite(tokens.features).all()
    assert np.isfinite(statistics.ahead(1, 10, 100).features).all()


def test_nothing_observed_yet_is_no_error() -> None:
    ahead = CausalStatistics.start(HOUR_US, START_US).ahead(1, 5, 100)
    assert np.isfinite(ahead.features).all()
    np.testing.assert_array_equal(ahead.anchor, np.zeros((5, N_MODELLED)))


def test_transform_is_inverted() -> None:
    values = some_values(50)
    np.testing.assert_allclose(untransform(transform(values)), values, atol=1e-9)


def test_calendar_repeats_with_the_week_but_for_the_year() -> None:
    steps = START_US + np.arange(168) * HOUR_US
    week, later = calendar_features(steps, year=np.ones(168)), calendar_features(steps + WEEK_US, year=np.ones(168))
    np.testing.assert_allclose(week[:, :14], later[:, :14], atol=1e-6)
    assert np.abs(week[:, 14:] - later[:, 14:]).max() > 0.01


def test_the_year_is_not_told_of_far_steps() -> None:
    statistics, _ = CausalStatistics.start(HOUR_US, START_US).observe(some_values(500))
    weeks = statistics.ahead(1, 168 * 52, 1000).features[:, -6:-2]
    assert np.abs(weeks[0]).max() > 0.5
    assert np.abs(weeks[168 * 40 :]).max() < 1e-3
