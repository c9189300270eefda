"""Rank dynamics are found again in ranks that were drawn with them."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from scipy.special import ndtri

from infra.schema import QUANTILE_LEVELS
from models import checkpoint, general_folder
from models.paths import RankDynamics, RankPaths, RankStructure
from models.ranks import (
    SLOW_SEASONS,
    default_dynamics,
    default_structure,
    fit_dynamics,
    fit_structure,
    rank_scores,
    structure_from_json,
    structure_json,
)

SEASON = 24
NORMAL = np.array([NormalDist().inv_cdf(level) for level in QUANTILE_LEVELS])


@pytest.mark.parametrize(("weight", "fast"), [(0.1, 0.0), (0.5, 0.3), (0.8, 0.6)])
def test_dynamics_are_recovered(weight: float, fast: float) -> None:
    slow = math.exp(-1 / (SLOW_SEASONS * SEASON))
    structure = RankStructure.one(RankDynamics(slow, fast, weight))
    ranks = RankPaths(structure, key=("test",), n_paths=400).draw(8 * SEASON)[:, 0]
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


def test_the_structure_of_metrics_is_recovered() -> None:
    slow = math.exp(-1 / (SLOW_SEASONS * SEASON))
    n_fields = len(default_structure(SEASON).loadings)
    loadings = tuple(np.linspace(0.9, -0.4, n_fields))
    drawn = RankStructure((RankDynamics(slow, 0.3, 0.2),) * n_fields, loadings)
    ranks_HKP = RankPaths(drawn, key=("test",), n_paths=400).draw(8 * SEASON)
    found = fit_structure(ndtri(ranks_HKP.transpose(2, 0, 1)), SEASON)
    assert found.loadings == pytest.approx(loadings, abs=0.15)
    assert structure_from_json(structure_json(found), SEASON) == found


def test_a_misjudged_level_outlasts_the_year() -> None:
    found = checkpoint.load(general_folder())
    assert found is not None
    # A card of before says that it does not.
    rows = [{**row, "rho_slow": math.exp(-1 / (52 * 168))} for row in found.card["ranks"]]
    for dynamics in (default_dynamics(168), *structure_from_json(rows, 168).dynamics):
        assert dynamics.rho_slow**8766 > 0.7
        assert dynamics.rho_slow**36_500 > 0.3


def test_a_structure_without_scores_is_the_default() -> None:
    structure = default_structure(SEASON)
    assert fit_structure(np.zeros((3, 50, len(structure.loadings))), SEASON) == structure


def test_a_structure_of_other_metrics_is_refused() -> None:
    rows = structure_json(default_structure(SEASON))
    with pytest.raises(ValueError, match="not of"):
        structure_from_json(rows[1:], SEASON)
