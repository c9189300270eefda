import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from infra.schema import QUANTILE_LEVELS
from models.scoring import (
    HORIZON_BUCKETS,
    Tally,
    bucket_name,
    central_interval,
    covered,
    decile_loss,
    geometric_mean_ratio,
    mase_scale,
    winkler,
)

Q = len(QUANTILE_LEVELS)
FAN = np.array([0.0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10])


def test_mase_scale_is_the_mean_seasonal_difference():
    training = np.array([[1.0, 5], [2, 5], [4, 5], [3, 5]])
    scale = mase_scale(training, 2)
    assert scale[0] == 2  # (|4 - 1| + |3 - 2|) / 2
    assert math.isnan(scale[1])
    assert np.isnan(mase_scale(training, 4)).all()


def test_decile_loss_by_hand():
    # y = 6: below the deciles 7, 8, 9 by 1, 2, 3; above 1 ... 5 by 5 ... 1.
    under = sum(level * (6 - value) for level, value in zip(QUANTILE_LEVELS[1:6], range(1, 6), strict=True))
    over = 0.3 * 1 + 0.2 * 2 + 0.1 * 3
    assert decile_loss(np.array(6.0), FAN) == pytest.approx(2 * (under + over) / 9)


@pytest.mark.parametrize(
    ("share", "low", "high"), [(0.95, 0, 10), (0.8, 1, 9), (0.5, 2.5, 7.5), (0.6, 2, 8), (0.2, 4, 6)]
)
def test_central_intervals(share, low, high):
    assert central_interval(FAN, share) == (pytest.approx(low), pytest.approx(high))


@pytest.mark.parametrize(("value", "inside"), [(1.0, True), (9.0, True), (0.999, False), (9.001, False)])
def test_bounds_belong_to_the_interval(value, inside):
    assert bool(covered(np.array(value), FAN, 0.8)) is inside


@pytest.mark.parametrize(("value", "score"), [(5, 8), (0, 8 + 10 * 1), (12, 8 + 10 * 3)])
def test_winkler_by_hand(value, score):
    assert winkler(np.array(float(value)), FAN, 0.8) == pytest.approx(score)


def test_geometric_mean_leaves_out_what_cannot_be_compared():
    ratio, count = geometric_mean_ratio(np.array([2.0, 8, 0, np.nan, 1]), np.array([1.0, 1, 1, 1, 0]))
    assert (ratio, count) == (pytest.approx(4), 2)
    ratio, count = geometric_mean_ratio(np.array([np.nan]), np.array([1.0]))
    assert math.isnan(ratio)
    assert count == 0


def test_buckets_cover_every_horizon_once():
    steps = [step for first, last in HORIZON_BUCKETS for step in (first, last)]
    assert steps[0] == 1
    assert steps[-1] == 36_500
    assert all(b == a + 1 for a, b in zip(steps[1:-1:2], steps[2::2], strict=True))
    names = [bucket_name(*bucket) for bucket in HORIZON_BUCKETS]
    assert names == ["1", "2-10", "11-100", "101-1000", "1001-10000", "10001-36500"]


def naive_scores(observed, quantiles, scale):
    """The same averages, one observation at a time, for one metric."""
    error = loss = size = inside = interval = 0.0
    for y, fan in zip(observed, quantiles, strict=True):
        error += abs(y - fan[5])
        for level, q in zip(QUANTILE_LEVELS[1:-1], fan[1:-1], strict=True):
            loss += 2 * ((y - q) * level if y >= q else (q - y) * (1 - level)) / 9
        size += abs(y)
        inside += fan[1] <= y <= fan[9]
        interval += fan[9] - fan[1] + 10 * max(fan[1] - y, y - fan[9], 0)
    n = len(observed)
    return error / n / scale, loss / size if size else math.nan, inside / n, interval / n, n


@settings(deadline=None, max_examples=40)
@given(
    first=st.integers(1, 12),
    length=st.integers(1, 12),
    cuts=st.lists(st.integers(0, 20), max_size=3),
    observed=arrays(np.float64, (20, 2), elements=st.integers(0, 9)),
    fans=arrays(np.float64, (20, 2, Q), elements=st.floats(0, 9, width=32)),
)
def test_tally_equals_a_naive_implementation_however_chunks_are_cut(first, length, cuts, observed, fans):
    fans = np.sort(fans, axis=-1)
    tally, begin = Tally(first, first + length - 1), 0
    for end in [*sorted(cuts), 20]:
        tally.add(begin, observed[begin:end], fans[begin:end])
        begin = end
    scores = tally.scores(np.array([2.0, np.nan]))
    kept = slice(first - 1, first - 1 + length)
    for metric in (0, 1):
        mase, wql, coverage, interval, n = naive_scores(observed[kept, metric], fans[kept, metric], 2.0)
        if metric == 0:
            assert scores.mase[0] == pytest.approx(mase)
        assert scores.wql[metric] == pytest.approx(wql, nan_ok=True)
        assert scores.coverage[0.8][metric] == pytest.approx(coverage)
        assert scores.winkler[0.8][metric] == pytest.approx(interval)
        assert scores.n == n
    assert math.isnan(scores.mase[1])


def test_an_empty_tally_is_undefined():
    tally = Tally(101, 1000)
    tally.add(0, np.zeros((100, 1)), np.zeros((100, 1, Q)))
    scores = tally.scores(np.ones(1))
    assert scores.n == 0
    assert np.isnan([scores.mase, scores.wql, scores.coverage[0.5], scores.winkler[0.95]]).all()
