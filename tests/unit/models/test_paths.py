from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from infra.schema import QUANTILE_LEVELS
from models.paths import RankDynamics, RankPaths, RankStructure, floored_mean, quantile_values

LEVELS = np.array(QUANTILE_LEVELS)


def test_ranks_are_uniform_at_every_step():
    ranks = RankPaths(RankStructure.one(RankDynamics(0.99, 0.5, 0.4)), key=(1, "g"), n_paths=4000).draw(50)[:, 0]
    grid = np.linspace(0.05, 0.95, 19)
    for step in (0, 1, 49):
        share = (ranks[step, :, None] < grid).mean(axis=0)
        np.testing.assert_allclose(share, grid, atol=4 * 0.5 / np.sqrt(4000))


def test_ranks_are_correlated_as_asked():
    dynamics = RankDynamics(rho_slow=0.98, rho_fast=0.4, weight_slow=0.5)
    ranks = RankPaths(RankStructure.one(dynamics), key=(2,), n_paths=2000).draw(120)[:, 0]
    normal = np.vectorize(NormalDist().inv_cdf)(ranks[::10])
    for lag in (10, 50):
        expected = 0.5 * 0.98**lag + 0.5 * 0.4**lag
        measured = np.mean(normal[: -lag // 10] * normal[lag // 10 :])
        assert measured == pytest.approx(expected, abs=0.05)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(1, 9), st.integers(0, 5))
def test_ranks_depend_on_key_and_step_not_on_chunks(lengths, n_paths, seed):
    structure = RankStructure((RankDynamics(0.9, 0.3, 0.5), RankDynamics(0.5, 0.1, 0.9)), (0.8, -0.3))
    whole = RankPaths(structure, key=(seed, "g"), n_paths=n_paths).draw(sum(lengths))
    chunked = RankPaths(structure, key=(seed, "g"), n_paths=n_paths)
    np.testing.assert_array_equal(np.concatenate([chunked.draw(n) for n in lengths]), whole)


def test_the_slow_share_may_differ_from_step_to_step():
    structure = RankStructure((RankDynamics(0.999, 0.2, 0.1), RankDynamics(0.999, 0.2, 0.1)), (0.7, 0.7))
    slow_HK = np.tile([0.9, 0.0], (60, 1))
    slow_HK[::2] = slow_HK[::2, ::-1]
    ranks_HKP = RankPaths(structure, key=(3,), n_paths=4000).draw(60, slow_HK)
    for ranks_P in (ranks_HKP[1, 0], ranks_HKP[58, 1]):
        np.testing.assert_allclose(np.quantile(ranks_P, LEVELS), LEVELS, atol=0.035)
    slow, fast = ranks_HKP[1::2, 0], ranks_HKP[::2, 0]
    assert np.corrcoef(slow[0], slow[-1])[0, 1] == pytest.approx(0.9 * 0.999**58, abs=0.05)
    assert abs(np.corrcoef(fast[0], fast[-1])[0, 1]) < 0.05
    cut = RankPaths(structure, key=(3,), n_paths=4000)
    np.testing.assert_array_equal(
        np.concatenate([cut.draw(n, slow_HK[begin : begin + n]) for begin, n in ((0, 5), (5, 0), (5, 55))]), ranks_HKP
    )


def test_one_field_has_ranks_that_differ_by_their_slow_share_alone():
    structure = RankStructure.one(RankDynamics(0.99, 0.3, 0.4))
    slow_HK = np.tile([0.4, 0.4, 0.8], (30, 1))
    ranks_HKP = RankPaths(structure, key=(4,), n_paths=500).draw(30, slow_HK)
    np.testing.assert_array_equal(ranks_HKP[:, :2], RankPaths(structure, key=(4,), n_paths=500).draw(30).repeat(2, 1))
    assert 0.8 < np.corrcoef(ranks_HKP[9, 1], ranks_HKP[9, 2])[0, 1] < 0.99


def test_another_key_gives_other_ranks():
    structure = RankStructure.one(RankDynamics(0.9, 0.3, 0.5))
    draws = [RankPaths(structure, key=key, n_paths=8).draw(4) for key in ((0, "a"), (0, "b"), (1, "a"), ("0", "a"))]
    for i, first in enumerate(draws):
        for second in draws[i + 1 :]:
            assert not np.any(first == second)


def test_dynamics_without_a_stationary_law_are_refused():
    with pytest.raises(ValueError, match="rho_slow=1"):
        RankDynamics(1.0, 0.5, 0.5)


def test_quantile_values_meet_the_quantiles_and_go_on_straight():
    quantiles = np.array([[[0.0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12]]])
    values = quantile_values(quantiles, LEVELS, np.array([[[*QUANTILE_LEVELS, 0.45, 0.0, 1.0]]]))[0, 0]
    np.testing.assert_allclose(values[:11], quantiles[0, 0], atol=1e-12)
    np.testing.assert_allclose(values[11:], [4.5, -1 / 3, 13], atol=1e-12)


@settings(deadline=None, max_examples=50)
@given(arrays(np.float64, 11, elements=st.floats(0, 100)))
def test_floored_mean_equals_numeric_integration(raw):
    quantiles = np.sort(raw)
    ranks = (np.arange(20_000) + 0.5) / 20_000
    values = np.maximum(quantile_values(quantiles[None, None], LEVELS, ranks[None, None]), 0)
    assert floored_mean(quantiles, LEVELS) == pytest.approx(values.mean(), abs=0.01 + 1e-3 * values.mean())
