"""How the errors of a forecast hang together: the rank structure of `models.paths`, fitted to past forecasts.

The slow component is a level that was misjudged, the fast one a busy evening. Sums over time (the totals) depend on
it; marginal quantiles do not. What is fitted here of its weight is the least: for counts `models.levels` says more.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from statistics import NormalDist
from typing import Any

import numpy as np

from infra.schema import METRICS, RUNNING_TOTALS, Kind
from models.columns import LEVELS
from models.contract import FloatArray
from models.paths import RankDynamics, RankStructure

# The slow component is a level that was misjudged, and what it becomes no network owes to its past: it stays so for
# about four years of weeks. A year would let totals average out over the longest horizon.
SLOW_SEASONS = 208.0
_MAX_RHO, _MAX_WEIGHT = 0.98, 0.95
# The forecasts that dynamics are fitted to are too few and too short to show a level that stays wrong for years.
_MIN_WEIGHT = 0.05
_MAX_LOADING = 0.98
# What is assumed where nothing was measured: a busy hour is busy in all counts, and says little about the shares.
_COUNT_LOADING, _SHARE_LOADING = 0.8, 0.2
_MODELLED = [metric for metric in METRICS if metric.kind is not Kind.TOTAL]
_NAMES = [metric.name for metric in _MODELLED]
# Both new counts move alike: totals are summed with one rank for the two.
_NEWS = [_NAMES.index(new) for _, new in RUNNING_TOTALS]


def default_dynamics(season: int) -> RankDynamics:
    """Return what is assumed where nothing was measured: errors that mostly last a few steps, partly for seasons."""
    return RankDynamics(rho_slow=math.exp(-1 / (SLOW_SEASONS * season)), rho_fast=0.3, weight_slow=0.2)


def default_structure(season: int) -> RankStructure:
    """Return what is assumed of the modelled metrics where nothing was measured."""
    loadings = tuple(_COUNT_LOADING if metric.kind is Kind.COUNT else _SHARE_LOADING for metric in _MODELLED)
    return RankStructure((default_dynamics(season),) * len(_MODELLED), loadings)


def of_metric(structure: RankStructure, name: str) -> RankDynamics:
    """Return the dynamics of one modelled metric.

    Raises:
        ValueError: it is not modelled.
    """
    return structure.dynamics[_NAMES.index(name)]


def fit_structure(scores: FloatArray, season: int) -> RankStructure:
    """Return the rank structure of forecasts of all modelled metrics.

    The loadings are those of the first principal component of the correlations between metrics.

    Args:
        scores: [N, H, K] normal scores of N forecasts over H consecutive steps, in the order of the schema.
        season: steps of one season.
    """
    dynamics = [fit_dynamics(scores[:, :, k], season) for k in range(scores.shape[2])]
    shared = fit_dynamics(np.concatenate([scores[:, :, k] for k in _NEWS]), season)
    for k in _NEWS:
        dynamics[k] = shared
    flat = scores.reshape(-1, scores.shape[2])
    size = np.sqrt((flat**2).mean(axis=0))
    if len(flat) < 2 or not (size > 1e-3).any():
        return RankStructure(tuple(dynamics), default_structure(season).loadings)
    standard = flat / np.where(size > 1e-3, size, np.inf)
    values, vectors = np.linalg.eigh(standard.T @ standard / len(flat))
    first = vectors[:, -1] * math.sqrt(max(values[-1], 0.0))
    # The sign of a component is arbitrary; the factor is what makes a busy hour.
    first = first if first[0] >= 0 else -first
    loadings = tuple(float(loading) for loading in np.clip(first, -_MAX_LOADING, _MAX_LOADING))
    return RankStructure(tuple(dynamics), loadings)


def structure_json(structure: RankStructure) -> list[dict[str, float | str]]:
    """Return the structure of the modelled metrics as JSON values, a metric each."""
    return [
        {"metric": name, **asdict(dynamics), "loading": loading}
        for name, dynamics, loading in zip(_NAMES, structure.dynamics, structure.loadings, strict=True)
    ]


def structure_from_json(rows: Sequence[Mapping[str, Any]], season: int) -> RankStructure:
    """Invert `structure_json`, but for `rho_slow`: it is assumed and not measured, so an older card has no say in it.

    Args:
        rows: what it returned.
        season: steps of a season where the structure was measured.

    Raises:
        ValueError: a metric is missing or there is one too many, or a value makes no sense.
        KeyError, TypeError: the rows are of another form.
    """
    if [row["metric"] for row in rows] != _NAMES:
        raise ValueError(f"ranks of {[row['metric'] for row in rows]}, not of {_NAMES}")
    names = [field.name for field in fields(RankDynamics)]
    rho_slow = default_dynamics(season).rho_slow
    measured = (RankDynamics(**{name: float(row[name]) for name in names}) for row in rows)
    dynamics = tuple(replace(one, rho_slow=rho_slow) for one in measured)
    return RankStructure(dynamics, tuple(float(row["loading"]) for row in rows))


def rank_scores(quantiles: FloatArray, observed: FloatArray) -> FloatArray:
    """Return the normal scores of observations within their forecasts: 0 at the median, 1 at the 84th percentile.

    An observation that ties several quantiles (as zeros do) takes the middle of their levels. Beyond the outermost
    quantiles the score stays at the middle of the tail.

    Args:
        quantiles: [..., Q] at the schema's levels, increasing.
        observed: [...].
    """
    middles = np.concatenate([[LEVELS[0] / 2], (LEVELS[1:] + LEVELS[:-1]) / 2, [(1 + LEVELS[-1]) / 2]])
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
