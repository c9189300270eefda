"""Aggregates over calendar periods are those of every path by itself, however the paths are cut into chunks."""

import itertools
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecasting.reports.aggregate import (
    COLUMN_INDEX,
    COLUMNS,
    PathAggregator,
    Rule,
    observed_periods,
    rule_of,
    with_density,
)
from forecasting.reports.calendar import Scale, scales_of
from forecasting.reports.outlook import SHOWN_LEVELS
from infra.schema import METRICS
from infra.steps import DAY_US, HOUR_US, WEEK_US
from models.contract import ForecastChunk, History, PathChunk
from tests.unit.forecasting.forecast_cases import START_US, some_history

PATHS = 9
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# The aggregation looks at the paths alone.
NO_FORECAST = ForecastChunk(0, np.zeros((0, 0)), np.zeros((0, 0, 0)))


def moment(time_us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=time_us)


def some_paths(steps: int, seed: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 30, size=(steps, len(METRICS), PATHS)).astype(float)


def period_of(scale: Scale, time_us: int) -> object:
    """The calendar of the standard library, not of numpy."""
    date = moment(time_us)
    if scale is Scale.WEEK:
        return date.isocalendar()[:2]
    return {Scale.DAY: date.date(), Scale.MONTH: (date.year, date.month), Scale.YEAR: date.year}[scale]


def by_hand(history: History, paths: np.ndarray, scale: Scale) -> dict[object, np.ndarray]:
    """Every period that begins and ends within history and paths, and has a step of the paths: [C, P]."""
    whole = np.concatenate([np.repeat(history.values[:, :, None], PATHS, axis=2), paths])
    columns = with_density(whole)
    times = [history.start_us + i * history.step_us for i in range(len(whole))]
    members: dict[object, list[int]] = {}
    for i, time_us in enumerate(times):
        members.setdefault(period_of(scale, time_us), []).append(i)
    before, after = times[0] - history.step_us, times[-1] + history.step_us
    found = {}
    for name, steps in members.items():
        if name in (period_of(scale, before), period_of(scale, after)) or steps[-1] < len(history):
            continue
        rows = columns[steps]
        values = np.empty((len(COLUMNS), PATHS))
        for c, column in enumerate(COLUMNS):
            rule = rule_of(column)
            part = rows[:, c]
            values[c] = part.sum(0) if rule is Rule.SUM else part.mean(0) if rule is Rule.MEAN else part[-1]
        found[name] = values
    return found


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([(HOUR_US, 800), (6 * HOUR_US, 500), (DAY_US, 900), (WEEK_US, 150), (5 * HOUR_US, 300)]),
    st.integers(1, 90),
    st.lists(st.integers(1, 400), max_size=4),
    st.integers(0, 400),
)
def test_periods_are_those_of_each_path(steps: tuple[int, int], seen: int, cuts: list[int], offset: int) -> None:
    step_us, horizon = steps
    base = some_history(seen, step_us=step_us)
    history = History(step_us, base.start_us + offset * step_us, base.values)
    paths = some_paths(horizon)
    gathered = PathAggregator(history, PATHS)
    bounds = [0, *sorted(cut for cut in set(cuts) if cut < horizon), horizon]
    for begin, end in itertools.pairwise(bounds):
        gathered.add(PathChunk(begin, paths[begin:end], NO_FORECAST))
    assert set(gathered.periods()) == set(scales_of(step_us))
    for scale, periods in gathered.periods().items():
        expected = by_hand(history, paths, scale)
        assert [period_of(scale, int(us)) for us in periods.start_us] == list(expected)
        for row, values in enumerate(expected.values()):
            np.testing.assert_allclose(periods.fan.mean[row], values.mean(axis=1), rtol=1e-10)
            np.testing.assert_allclose(
                periods.fan.quantiles[row], np.quantile(values, SHOWN_LEVELS, axis=1).T, rtol=1e-10
            )


def test_quantiles_of_sums_are_not_sums_of_quantiles() -> None:
    """Independent steps: a day of 24 spreads by the root of 24, not by 24."""
    history = some_history(24 * 40)
    paths = np.zeros((24, len(METRICS), 400))
    paths[:, 0] = np.random.default_rng(0).integers(0, 100, size=(24, 400))
    gathered = PathAggregator(history, 400, [Scale.DAY])
    gathered.add(PathChunk(0, paths, NO_FORECAST))
    day = gathered.periods()[Scale.DAY]
    width = day.fan.quantiles[0, 0, 3] - day.fan.quantiles[0, 0, 1]
    summed = np.diff(np.quantile(paths[:, 0], [0.1, 0.9], axis=1), axis=0).sum()
    assert width < 0.35 * summed


def test_share_above_compares_with_the_last_whole_period() -> None:
    history = some_history(24 * 3)
    last = history.values[-24:, 0].sum()
    paths = np.zeros((24, len(METRICS), 4))
    paths[0, 0] = [last - 1, last, last + 1, last + 2]
    gathered = PathAggregator(history, 4, [Scale.DAY, Scale.YEAR])
    gathered.add(PathChunk(0, paths, NO_FORECAST))
    assert gathered.periods()[Scale.DAY].above[0, 0] == 0.5 + 0.25 / 2
    assert len(gathered.periods()[Scale.YEAR]) == 0


@pytest.mark.parametrize("size", [7, 64, 1024])
def test_a_mean_that_does_not_change_is_neither_above_nor_below(size: int) -> None:
    history = History(HOUR_US, START_US, np.full((24 * 15 + 5, len(METRICS)), 0.6))
    paths = np.full((24 * 20, len(METRICS), 4), 0.6)
    gathered = PathAggregator(history, 4, [Scale.DAY, Scale.WEEK])
    for begin in range(0, len(paths), size):
        gathered.add(PathChunk(begin, paths[begin : begin + size], NO_FORECAST))
    reciprocity = COLUMN_INDEX["reciprocity"]
    for scale, fan in gathered.periods().items():
        assert set(fan.above[:, reciprocity]) == {0.5}
        assert {*fan.fan.quantiles[:, reciprocity].ravel()} == {
            observed_periods(history, scale).values[-1, reciprocity]
        }


def test_observed_periods_are_whole_ones() -> None:
    history = some_history(24 * 20 + 5)  # from a Monday
    days, weeks = observed_periods(history, Scale.DAY), observed_periods(history, Scale.WEEK)
    assert (len(days), len(weeks)) == (20, 2)
    assert days.start_us[0] == START_US
    total = COLUMN_INDEX["total_nodes"]
    assert days.values[3, total] == history.values[4 * 24 - 1, total]
    assert days.values[3, 0] == history.values[72:96, 0].sum()
    active = COLUMN_INDEX["active_nodes"]
    assert days.values[3, active] == pytest.approx(history.values[72:96, active].mean())
    later = History(HOUR_US, START_US + HOUR_US, history.values[1:])
    assert len(observed_periods(later, Scale.DAY)) == 19


def test_density_is_the_share_of_possible_pairs() -> None:
    values = np.zeros((3, len(METRICS)))
    values[:, COLUMN_INDEX["active_nodes"]] = [0, 1, 4]
    values[:, COLUMN_INDEX["unique_edges"]] = [0, 1, 6]
    assert with_density(values)[:, -1].tolist() == [0, 0, 0.5]
