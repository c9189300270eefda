import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from infra.errors import ModelError
from infra.schema import METRIC_INDEX, METRIC_NAMES, QUANTILE_LEVELS
from models.constraints import TotalsAccumulator, constrain, violations
from models.paths import RankDynamics
from models.ranks import SLOW_SEASONS

M, Q = len(METRIC_NAMES), len(QUANTILE_LEVELS)
DYNAMICS = RankDynamics(rho_slow=0.99, rho_fast=0.5, weight_slow=0.3)
WILD = st.floats(-100, 1000, width=32)


def raw_forecasts(max_steps=6):
    return st.integers(1, max_steps).flatmap(
        lambda h: st.tuples(arrays(np.float64, (h, M), elements=WILD), arrays(np.float64, (h, M, Q), elements=WILD))
    )


def gamma_forecast(steps, seed=0, shape=2.0):
    quantiles = np.sort(np.random.default_rng(seed).gamma(shape, 3, (steps, M, Q)), axis=-1)
    return quantiles.mean(axis=-1), quantiles


def accumulator(last=(100.0, 40.0), dynamics=DYNAMICS, key=(0, "g"), n_paths=64):
    return TotalsAccumulator(last, dynamics=dynamics, key=key, n_paths=n_paths)


@settings(deadline=None, max_examples=50)
@given(raw_forecasts(), st.tuples(st.floats(0, 500), st.floats(0, 500)))
def test_whatever_goes_in_every_invariant_comes_out(raw, last):
    mean, quantiles = accumulator(last).complete(*raw)
    before = (np.zeros(M), np.zeros((M, Q)))
    for total, name in zip(last, ("total_nodes", "total_edges"), strict=True):
        before[0][METRIC_INDEX[name]] = total
        before[1][METRIC_INDEX[name]] = total
    assert violations(mean, quantiles, before=before) == []


@settings(deadline=None, max_examples=50)
@given(raw_forecasts())
def test_constrain_is_idempotent_and_leaves_its_arguments(raw):
    kept = [array.copy() for array in raw]
    once = constrain(*raw)
    twice = constrain(*once)
    for a, b in zip(once, twice, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(raw, kept, strict=True):
        np.testing.assert_array_equal(a, b)


def test_constrain_lowers_along_the_whole_chain():
    mean, quantiles = np.full((1, M), 9.0), np.full((1, M, Q), 9.0)
    quantiles[0, METRIC_INDEX["events"]] = np.arange(Q)
    mean[0, METRIC_INDEX["events"]] = 4
    mean, quantiles = constrain(mean, quantiles)
    expected = np.minimum(np.arange(Q), 9)
    for name in ("events", "unique_edges", "new_edges", "self_loops"):
        np.testing.assert_array_equal(quantiles[0, METRIC_INDEX[name]], np.arange(Q) if name == "events" else expected)
        assert mean[0, METRIC_INDEX[name]] == 4
    assert quantiles[0, METRIC_INDEX["reciprocity"]].max() == 1


def test_a_forecast_that_keeps_the_invariants_is_not_changed():
    mean, quantiles = constrain(*gamma_forecast(5))
    again = constrain(mean.copy(), quantiles.copy())
    np.testing.assert_array_equal(again[0], mean)
    np.testing.assert_array_equal(again[1], quantiles)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(value):
    mean, quantiles = gamma_forecast(3)
    quantiles[2, METRIC_INDEX["triangles"], 4] = value
    with pytest.raises(ModelError, match="triangles is not finite") as error:
        constrain(mean, quantiles)
    assert error.value.place == "step 2 of the chunk"


def breaking(name, value, *, step=1, level=3):
    mean, quantiles = accumulator().complete(*gamma_forecast(4))
    quantiles[step, METRIC_INDEX[name], level] = value
    return mean, quantiles


@pytest.mark.parametrize(
    ("name", "value", "invariant"),
    [
        ("self_loops", -1, "self_loops >= 0"),
        ("transitivity", 1.5, "transitivity <= 1"),
        ("triangles", 1e6, "quantiles of triangles never cross"),
        ("new_nodes", 1e6, "new_nodes <= active_nodes"),
        ("active_nodes", 1e6, "active_nodes <= total_nodes"),
        ("new_edges", 1e6, "new_edges <= unique_edges"),
        ("unique_edges", 1e6, "unique_edges <= events"),
        ("unique_edges", 1e6, "unique_edges <= total_edges"),
        ("self_loops", 1e6, "self_loops <= events"),
        ("total_edges", 0, "total_edges never falls"),
        ("events", np.nan, "events is finite"),
    ],
)
def test_every_broken_invariant_is_found_where_it_is(name, value, invariant):
    found = {violation.invariant: violation for violation in violations(*breaking(name, value))}
    assert invariant in found
    assert (found[invariant].step, found[invariant].level) in {(1, 0.3), (0, 0.3)}


def test_a_broken_mean_is_found_too():
    mean, quantiles = accumulator().complete(*gamma_forecast(4))
    mean[2, METRIC_INDEX["new_nodes"]] = 1e6
    (violation,) = violations(mean, quantiles)
    assert (violation.invariant, violation.step, violation.level) == ("new_nodes <= active_nodes", 2, None)


def test_totals_may_not_fall_below_the_step_before():
    mean, quantiles = accumulator().complete(*gamma_forecast(4))
    before = (mean[-1], quantiles[-1])
    found = violations(mean, quantiles, before=before)
    assert [violation.invariant for violation in found] == ["total_nodes never falls", "total_edges never falls"]


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 25), min_size=1, max_size=5), st.integers(0, 100))
def test_chunks_change_nothing(lengths, seed):
    mean, quantiles = gamma_forecast(sum(lengths), seed)
    whole = accumulator().complete(mean, quantiles)
    chunked, begin = accumulator(), 0
    parts = []
    for length in lengths:
        parts.append(chunked.complete(mean[begin : begin + length], quantiles[begin : begin + length]))
        begin += length
    np.testing.assert_allclose(np.concatenate([part[0] for part in parts]), whole[0], rtol=1e-12)
    np.testing.assert_allclose(np.concatenate([part[1] for part in parts]), whole[1], rtol=1e-12)


def test_the_mean_of_a_total_is_the_sum_of_the_means_and_lies_within_its_fan():
    # Sparse: new in one step out of fifty, so that all but the outermost quantile are zero.
    steps = 3000
    quantiles = np.zeros((steps, M, Q))
    quantiles[..., -1] = 1
    quantiles[:, [METRIC_INDEX["events"], METRIC_INDEX["unique_edges"], METRIC_INDEX["active_nodes"]]] = 5
    mean = np.full((steps, M), 0.02)
    mean[:, [METRIC_INDEX["events"], METRIC_INDEX["unique_edges"], METRIC_INDEX["active_nodes"]]] = 5
    mean, quantiles = accumulator(dynamics=RankDynamics(0, 0, 0), n_paths=256).complete(mean, quantiles)
    for name, last in (("total_nodes", 100), ("total_edges", 40)):
        index = METRIC_INDEX[name]
        assert mean[-1, index] == pytest.approx(last + 0.02 * steps)
        assert quantiles[-1, index, 0] < mean[-1, index] < quantiles[-1, index, -1]


def test_what_is_rarer_than_every_level_still_adds_up_and_is_uncertain():
    mean, quantiles = np.full((1000, M), 0.005), np.zeros((1000, M, Q))
    independent = accumulator(dynamics=RankDynamics(0, 0, 0), n_paths=1000)
    mean, quantiles = independent.complete(mean, quantiles)
    index = METRIC_INDEX["total_nodes"]
    assert mean[-1, index] == pytest.approx(105)
    # Quantiles of a Poisson count with mean 5.
    np.testing.assert_allclose(quantiles[-1, index] - 100, [1, 2, 3, 4, 4, 5, 5, 6, 7, 8, 10], atol=1)


def test_persistent_ranks_widen_the_fan_of_a_total():
    mean, quantiles = gamma_forecast(400)
    widths = []
    for dynamics in (RankDynamics(0, 0, 0), RankDynamics(0.99, 0, 0.5), RankDynamics(0.999, 0, 1)):
        _, completed = accumulator(dynamics=dynamics).complete(mean, quantiles)
        widths.append(np.ptp(completed[-1, METRIC_INDEX["total_nodes"]]))
    assert widths[0] * 2 < widths[1] < widths[2]


def test_an_empty_chunk_is_empty():
    mean, quantiles = accumulator().complete(np.zeros((0, M)), np.zeros((0, M, Q)))
    assert mean.shape == (0, M)
    assert quantiles.shape == (0, M, Q)


def test_totals_over_the_longest_horizon_carry_the_uncertainty_of_the_rate():
    """36,500 hours of 10 +- 5 new ones: the errors of hours average out, and what the rate becomes does not."""
    normal = np.array([NormalDist().inv_cdf(level) for level in QUANTILE_LEVELS])
    mean, quantiles = np.full((1000, M), 10.0), np.tile(10 + 5 * normal, (1000, M, 1))
    rarely_slow = RankDynamics(rho_slow=math.exp(-1 / (SLOW_SEASONS * 168)), rho_fast=0.2, weight_slow=0.05)
    total, step = accumulator((0.0, 0.0), rarely_slow, n_paths=256), 0
    while step < 36_500:
        said_mean, said = total.complete(mean, quantiles)
        step += len(said)
    for name in ("total_nodes", "total_edges"):
        low, high = said[-1, METRIC_INDEX[name], [1, -2]] / said_mean[-1, METRIC_INDEX[name]]
        assert low < 0.77, name
        assert high > 1.23, name
