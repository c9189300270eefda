import numpy as np
import pytest

from infra.schema import METRIC_INDEX, METRIC_NAMES
from infra.steps import DAY_US, HOUR_US, WEEK_US
from models.bootstrap import block_bootstrap_error, block_length
from models.scoring import Tally
from models.sums import SumTally, whole_periods

M, EVENTS = len(METRIC_NAMES), METRIC_INDEX["events"]


def test_the_standard_error_is_that_of_many_drawn_samples():
    rng = np.random.default_rng(0)
    values = np.cumsum(rng.normal(size=(27, 2)), axis=0)
    length = block_length(27)
    assert length == 3
    starts = rng.integers(0, 27, (20_000, 27 // length))
    rows = (starts[..., None] + np.arange(length)) % 27
    drawn = values[rows.reshape(len(rows), -1)].mean(axis=1)
    np.testing.assert_allclose(block_bootstrap_error(values), drawn.std(axis=0), rtol=0.03)
    assert np.isnan(block_bootstrap_error(values[:1])).all()
    # Neighbours that go together leave less that is known than their number says.
    shuffled = rng.permutation(values)
    assert (block_bootstrap_error(values) > 1.2 * block_bootstrap_error(shuffled)).all()


def test_shares_below_and_at_or_below_by_hand():
    fan = np.arange(11.0)[None, None]
    tally = Tally(1, 4)
    for step, observed in enumerate((3.0, 3.0, 3.5, 20.0)):
        tally.add(step, np.array([[observed]]), fan)
    below, at_or_below = tally.shares_below()
    np.testing.assert_array_equal(below[0], [0, 0, 0, 0, 0.75, 0.75, 0.75, 0.75, 0.75, 0.75, 0.75])
    np.testing.assert_array_equal(at_or_below[0], [0, 0, 0, 0.5, 0.75, 0.75, 0.75, 0.75, 0.75, 0.75, 0.75])
    with pytest.raises(ValueError, match="no observation in 7-9"):
        Tally(7, 9).shares_below()


def test_merged_tallies_are_one_tally_of_everything():
    rng = np.random.default_rng(0)
    observed = rng.poisson(3, (3, 8, 2)).astype(float)
    fans = np.sort(rng.random((3, 8, 2, 11)) * 6, axis=-1)
    apart, whole = [Tally(2, 6) for _ in range(3)], Tally(2, 6)
    for tally, seen, fan in zip(apart, observed, fans, strict=True):
        tally.add(0, seen, fan)
        whole.add(0, seen, fan)
    merged = Tally.merged([Tally.of(tally.arrays()) for tally in apart])
    for ours, theirs in zip(merged.shares_below(), whole.shares_below(), strict=True):
        np.testing.assert_allclose(ours, theirs)
    np.testing.assert_allclose(merged.scores(np.ones(2)).winkler[0.8], whole.scores(np.ones(2)).winkler[0.8])
    with pytest.raises(ValueError, match="different ranges"):
        Tally.merged([Tally(1, 2), Tally(1, 3)])


def test_periods_are_those_that_hold_several_whole_steps():
    assert whole_periods(HOUR_US) == {"day": 24, "week": 168}
    assert whole_periods(DAY_US) == {"week": 7}
    assert whole_periods(WEEK_US) == {}
    assert whole_periods(5 * HOUR_US) == {}


@pytest.mark.parametrize("cuts", [(), (1,), (3, 4, 5)])
def test_sums_over_whole_days_however_chunks_are_cut(cuts):
    observed, mean, median = (np.zeros((8, M)) for _ in range(3))
    observed[:, EVENTS] = [1, 2, 3, 4, 5, 6, 99, 99]
    mean[:, EVENTS] = [3, 2, 2, 4, 5, 9, 0, 0]
    median[:, EVENTS] = [0, 0, 6, 5, 5, 5, 0, 0]
    tally, begin = SumTally(3), 0
    for end in (*cuts, 8):
        tally.add(observed[begin:end], mean[begin:end], median[begin:end])
        begin = end
    wape_mean, wape_median, count = SumTally.merged([SumTally.of(tally.arrays()), tally]).wape()
    # Days of 6 and 15 events; a last part of a day does not count.
    assert (wape_mean[EVENTS], wape_median[EVENTS], count) == (pytest.approx(4 / 21), 0, 4)
    assert np.isnan(wape_mean[METRIC_INDEX["triangles"]])
    assert np.isnan(wape_mean[METRIC_INDEX["total_nodes"]])
