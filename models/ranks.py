"""How the errors of a forecast hang together in time: the rank dynamics of `models.paths`, fitted to past forecasts.

The slow component is a level that was misjudged for weeks, the fast one a busy evening. Sums over time (the totals)
depend on it; marginal quantiles do not.
"""

import math
from statistics import NormalDist

import numpy as np

from infra.schema import QUANTILE_LEVELS
from models.contract import FloatArray
from models.paths import RankDynamics

# The slow component is a level that was misjudged: it stays so for about a year of weeks.
SLOW_SEASONS = 52.0
_MAX_RHO, _MAX_WEIGHT = 0.98, 0.95
# The forecasts that dynamics are fitted to are too few and too short to show a level that stays wrong for a year.
_MIN_WEIGHT = 0.05


def default_dynamics(season: int) -> RankDynamics:
    """Return what is assumed where nothing was measured: errors that mostly last a few steps, partly for seasons."""
    return RankDynamics(rho_slow=math.exp(-1 / (SLOW_SEASONS * season)), rho_fast=0.3, weight_slow=0.2)


def rank_scores(quantiles: FloatArray, observed: FloatArray) -> FloatArray:
    """Return the normal scores of observations within their forecasts: 0 at the median, 1 at the 84th percentile.

    An observation that ties several quantiles (as zeros do) takes the middle of their levels. Beyond the outermost
    quantiles the score stays at the middle of the tail.

    Args:
        quantiles: [..., Q] at the schema's levels, increasing.
        observed: [...].
    """
    levels = np.array(QUANTILE_LEVELS)
    middles = np.concatenate([[levels[0] / 2], (levels[1:] + levels[:-1]) / 2, [(1 + levels[-1]) / 2]])
    at_or_below = (quantiles <= observed[..., None]).sum(axis=-1)
    below = (quantiles < observed[..., None]).sum(axis=-1)
    level = (middles[below] + middles[at_or_below]) / 2
    inverse = np.vectorize(NormalDist().inv_cdf, otypes=[float])
    return np.asarray(inverse(level))


def fit_dynamics(scores: FloatArray, season: int) -> RankDynamics:
    """Return the dynamics that match the autocorrelation of rank scores at one step and around one season.

    Args:
        scores: [N, H] normal scores of N forecasts over H consecutive steps.
        season: steps of one season.
    """
    fallback = default_dynamics(season)
    steps = scores.shape[1]
    far = min(season, steps // 2)
    if far < 2:
        return fallback
    variance = float((scores**2).mean())
    if variance < 1e-6:
        return fallback

    def correlation(lag: int) -> float:
        return float((scores[:, lag:] * scores[:, :-lag]).mean()) / variance

    # An average over neighbouring lags: one lag alone is noisy.
    around = range(max(2, far - far // 4), far + 1)
    lasting = float(np.mean([correlation(lag) for lag in around]))
    rho_slow = fallback.rho_slow
    weight = min(max(lasting / rho_slow ** float(np.mean(list(around))), _MIN_WEIGHT), _MAX_WEIGHT)
    fast = (correlation(1) - weight * rho_slow) / (1 - weight)
    return RankDynamics(rho_slow=rho_slow, rho_fast=min(max(fast, 0.0), _MAX_RHO), weight_slow=weight)
