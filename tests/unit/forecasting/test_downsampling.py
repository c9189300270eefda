"""Downsampled snapshots: no extreme is lost, and a range that fits is left as it is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecasting.downsampling import downsample, steps_per_bucket
from infra.steps import MONDAY_US, WEEK_US
from stream.store.base import SnapshotTable

HOUR_US = 3_600_000_000
DAY_US = WEEK_US // 7


def table(n: int, *, first_step: int = 0, step_us: int = HOUR_US, seed: int = 0) -> SnapshotTable:
    values = np.random.default_rng(seed).integers(0, 1000, (n, 2)).astype(np.float64)
    starts = (first_step + np.arange(n, dtype=np.int64)) * step_us
    return SnapshotTable("g", step_us, ("events", "new_nodes"), starts, np.zeros(n, dtype=np.int64), values)


@given(
    n=st.integers(0, 3000),
    first=st.integers(-5000, 5000),
    most=st.integers(2, 500),
    step_s=st.sampled_from([1, 900, 3600, 86400]),
)
def test_buckets_keep_extremes_sums_and_their_number(n: int, first: int, most: int, step_s: int) -> None:
    given_ = table(n, first_step=first, step_us=step_s * 1_000_000)
    found = downsample(given_, most)
    assert len(found) <= most
    assert found.steps.sum() == n
    np.testing.assert_allclose((found.mean * found.steps[:, None]).sum(axis=0), given_.values.sum(axis=0))
    at = 0
    for bucket, steps in enumerate(found.steps):
        inside = given_.values[at : at + steps]
        assert found.start_us[bucket] == given_.step_start_us[at]
        assert (found.least[bucket] == inside.min(axis=0)).all()
        assert (found.largest[bucket] == inside.max(axis=0)).all()
        at += steps


def test_a_range_that_fits_is_exact() -> None:
    given_ = table(100)
    found = downsample(given_, 100)
    assert found.steps_per_bucket == 1
    for values in (found.least, found.mean, found.largest):
        np.testing.assert_array_equal(values, given_.values)


def test_a_single_spike_among_many_years_of_hours_is_there() -> None:
    given_ = table(56_410)
    given_.values[31_234, 0] = 1e6
    found = downsample(given_, 900)
    assert found.largest[:, 0].max() == 1e6


def test_buckets_stand_still_while_the_range_moves() -> None:
    one = downsample(table(2000, first_step=10_000), 300)
    moved = downsample(table(2000, first_step=10_003), 300)
    inner = set(one.start_us[1:].tolist()) & set(moved.start_us.tolist())
    assert len(inner) >= len(one) - 2


@pytest.mark.parametrize(
    ("steps", "step_us", "period_us"),
    [(56_410, HOUR_US, WEEK_US), (9_000, HOUR_US, DAY_US), (3_000, DAY_US, WEEK_US), (3_000, HOUR_US, 4 * HOUR_US)],
)
def test_long_buckets_hold_whole_days_or_weeks(steps: int, step_us: int, period_us: int) -> None:
    assert steps_per_bucket(steps, 900, step_us) * step_us == period_us


@pytest.mark.parametrize("step_us", [HOUR_US, DAY_US])
def test_buckets_of_weeks_begin_on_mondays_as_weeks_do_elsewhere(step_us: int) -> None:
    found = downsample(table(100 * WEEK_US // step_us, step_us=step_us), 60)
    assert (found.start_us[1:] % (2 * WEEK_US) == MONDAY_US).all()
