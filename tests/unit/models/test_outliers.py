"""One extreme step enters the statistics as a few times what is known; what comes again enters as it is."""

import numpy as np
import pytest

from infra.steps import DAY_US, HOUR_US, MONDAY_US
from models import outliers
from models.columns import IS_COUNT, N_MODELLED
from models.features import CausalStatistics
from models.tokens import untransform

WEEK = 168
AT = 2000


def busy_weeks(steps: int) -> np.ndarray:
    """Hours of a rhythm of the day, at most 13 a step."""
    hours = 6 * (1 + 0.6 * np.sin(2 * np.pi * np.arange(steps) / 24))
    values = np.minimum(np.random.default_rng(0).poisson(np.tile(hours[:, None], N_MODELLED)), 13).astype(np.float64)
    values[:, ~IS_COUNT] = 0.5
    return values


def expected(values: np.ndarray, steps: int = WEEK) -> np.ndarray:
    """Return what the anchor says of the counts of the next steps."""
    statistics, _ = CausalStatistics.start(HOUR_US, MONDAY_US).observe(values)
    return untransform(statistics.ahead(1, steps, 2000).anchor)[:, IS_COUNT]


@pytest.mark.parametrize("after", [1, 100, 500])
@pytest.mark.parametrize("size", [1000.0, 20_000.0])
@pytest.mark.parametrize("hours", [1, 2])
def test_a_raid_does_not_come_back_every_week(after: int, size: float, hours: int) -> None:
    values = busy_weeks(AT + after + hours - 1)
    raided = values.copy()
    raided[AT : AT + hours, IS_COUNT] = size
    with_raid, without = expected(raided, 4 * WEEK), expected(values, 4 * WEEK)
    same_hour = (AT - len(values)) % WEEK
    assert np.all(with_raid[same_hour::WEEK] < 2 * without[same_hour::WEEK] + 1)
    assert np.all(with_raid.mean(axis=0) < 1.3 * without.mean(axis=0))


@pytest.mark.parametrize("since", [6, 24, WEEK])
def test_a_level_that_stays_is_followed_as_if_nothing_was_held(since: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values = busy_weeks(AT)
    values[-since:, IS_COUNT] *= 10
    held = expected(values).mean(axis=0)
    monkeypatch.setattr(outliers, "ORDINARY_RISE", 1e9)
    np.testing.assert_allclose(held, expected(values).mean(axis=0), rtol=0.06)


@pytest.mark.parametrize(("step_us", "season"), [(HOUR_US, WEEK), (DAY_US, 7)])
@pytest.mark.parametrize("start", [MONDAY_US, MONDAY_US + 3 * DAY_US])
@pytest.mark.parametrize("at", [0, 5])
def test_a_bulk_with_which_a_log_begins_is_no_level(step_us: int, season: int, start: int, at: int) -> None:
    values = busy_weeks(2 * season + 1)
    imported = values.copy()
    imported[at, IS_COUNT] = 1e6
    said = []
    for steps in (values, imported):
        statistics, _ = CausalStatistics.start(step_us, start).observe(steps)
        said.append(untransform(statistics.ahead(1, season, 2000).anchor)[:, IS_COUNT].mean(axis=0))
    np.testing.assert_allclose(said[1], said[0], rtol=0.7)


def test_a_graph_that_wakes_up_as_its_first_season_ends_is_followed() -> None:
    values = busy_weeks(WEEK + 24)
    values[: WEEK - 2] = 0.0
    values[WEEK - 2 :, IS_COUNT] = 500.0
    *_, (statistics, block) = CausalStatistics.start(HOUR_US, MONDAY_US).blocks(values)
    day = statistics.level_sum[0] / statistics.level_weight[0]
    assert np.all(day[IS_COUNT] > 0.4 * 500)
    # The two of the first season count among the three by which a height is known.
    np.testing.assert_array_equal(block.values[1:, IS_COUNT], 500.0)


def test_a_second_visit_of_a_position_at_a_height_enters_as_it_is() -> None:
    heights = CausalStatistics.start(HOUR_US, MONDAY_US).heights
    week = busy_weeks(WEEK)
    _, heights = heights.hold(0, np.arange(WEEK), week)
    week[100, IS_COUNT] = 1000.0
    first, heights = heights.hold(WEEK, np.arange(WEEK), week)
    second, _ = heights.hold(2 * WEEK, np.arange(WEEK), week)
    assert np.all(first[100, IS_COUNT] < 60)
    np.testing.assert_array_equal(second, week)


def test_a_wake_up_after_silence_is_learned_within_a_day() -> None:
    values = busy_weeks(AT)
    values[: AT - 24] = 0.0
    values[AT - 24 :, IS_COUNT] *= 100
    statistics, _ = CausalStatistics.start(HOUR_US, MONDAY_US).observe(values)
    day = statistics.level_sum[0] / statistics.level_weight[0]
    assert np.all(day[IS_COUNT] > 0.4 * values[-24:, IS_COUNT].mean(axis=0))


@pytest.mark.parametrize("step_us", [HOUR_US, DAY_US])
def test_ordinary_values_enter_to_the_last_bit(step_us: int) -> None:
    values = busy_weeks(900)
    statistics = CausalStatistics.start(step_us, MONDAY_US)
    heights, season = statistics.heights, statistics.season
    for begin in range(0, len(values), season):
        piece = values[begin : begin + season]
        entering, heights = heights.hold(begin, np.arange(len(piece)), piece)
        np.testing.assert_array_equal(entering, piece)


def test_heights_of_a_first_season_are_no_bound() -> None:
    values = busy_weeks(WEEK)
    values[50, IS_COUNT] = 1e6
    entering, _ = CausalStatistics.start(HOUR_US, MONDAY_US).heights.hold(0, np.arange(WEEK), values)
    np.testing.assert_array_equal(entering, values)
