"""Rank dynamics are found again in ranks that were drawn with them."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from infra.schema import QUANTILE_LEVELS
from models.paths import RankDynamics, RankPaths
from models.ranks import SLOW_SEASONS, default_dynamics, fit_dynamics, rank_scores

SEASON = 24
NORMAL = np.array([NormalDist().inv_cdf(level) for level in QUANTILE_LEVELS])


@pytest.mark.parametrize(("weight", "fast"), [(0.1, 0.0), (0.5, 0.3), (0.8, 0.6)])
def test_dynamics_are_recovered(weight: float, fast: float) -> None:
    slow = math.exp(-1 / (SLOW_SEASONS * SEASON))
    ranks = RankPaths(RankDynamics(slow, fast, weight), key=("test",), n_paths=400).draw(8 * SEASON)
    scores = np.vectorize(NormalDist().inv_cdf)(ranks.T)
    found = fit_dynamics(scores, SEASON)
    assert found.weight_slow == pytest.approx(weight, abs=0.1)
    assert found.rho_fast == pytest.approx(fast, abs=0.15)


def test_the_score_of_a_quantile_level_is_its_normal_quantile() -> None:
    observed = np.array([-0.1, 0.0, 0.1, 1.0, 9.0, -9.0])
    scores = rank_scores(np.tile(NORMAL, (6, 1)), observed)
    assert scores[1] == pytest.approx(0.0, abs=1e-9)
    assert scores[0] == pytest.approx(-scores[2])
    assert 0 < scores[2] < scores[3] < scores[4] == pytest.approx(-scores[5])


def test_ties_take_the_middle() -> None:
    # Nine of ten draws are zero: a zero says nothing about the upper tail, and little about the level.
    quantiles = np.array([[0.0] * 10 + [3.0]])
    (score,) = rank_scores(quantiles, np.array([0.0]))
    assert -0.5 < score < 0.0


@pytest.mark.parametrize("scores", [np.zeros((5, 100)), np.zeros((3, 2)), np.ones((1, 1))])
def test_too_little_to_fit_falls_back(scores: np.ndarray) -> None:
    assert fit_dynamics(scores, SEASON) == default_dynamics(SEASON)
