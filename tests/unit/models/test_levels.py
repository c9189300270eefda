"""How much of a step is its level: much where it spreads little around its mean, little where it is mostly chance."""

from statistics import NormalDist

import numpy as np
import pytest

from infra.schema import QUANTILE_LEVELS
from models.levels import level_shares

NORMAL = np.array([NormalDist().inv_cdf(level) for level in QUANTILE_LEVELS])


def share(mean: float, quantiles: np.ndarray, least: float = 0.05) -> float:
    return float(level_shares(np.array([[mean]]), quantiles[None, None], np.array([least]))[0, 0])


@pytest.mark.parametrize(("spread", "expected"), [(1.0, 0.2), (0.5, 0.4), (0.25, 0.8), (0.1, 0.95)])
def test_the_share_falls_with_the_spread_around_the_mean(spread: float, expected: float) -> None:
    assert share(40.0, 40.0 * (1 + spread * NORMAL)) == pytest.approx(expected, rel=0.03)


def test_it_is_the_same_for_networks_of_any_size() -> None:
    shares = [share(size, size * (1 + 0.4 * NORMAL)) for size in (1.0, 1e3, 1e6)]
    assert shares == pytest.approx([shares[0]] * 3)


def test_what_is_mostly_chance_or_rarer_than_every_level_has_the_least() -> None:
    assert share(0.02, np.array([0.0] * 10 + [1.0]), least=0.1) == 0.1
    assert share(0.001, np.zeros(len(NORMAL)), least=0.3) == 0.3
    assert share(0.0, np.zeros(len(NORMAL))) == 0.05


def test_what_is_as_good_as_certain_keeps_some_chance() -> None:
    assert share(7.0, np.full(len(NORMAL), 7.0)) == 0.05
    assert share(7.0, 7.0 + 1e-6 * NORMAL) == 0.95
