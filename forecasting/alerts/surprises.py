"""Surprises: observed values far from what was forecast, with the share of false ones under control.

**Tail probability.** Between the outermost quantile levels the distribution function is read off the quantiles; beyond
them the tail is a generalised Pareto one (Pickands 1975, "Statistical inference using extreme order statistics") whose
shape is that of the three outermost levels, but never lighter than `LIGHTEST_TAIL`: a forecast knows little of what is
rarer than its outermost level, and a light tail would call common things impossible.

**Many series at once.** A step of a graph is judged by the procedure of Benjamini and Yekutieli (2001, "The control of
the false discovery rate in multiple testing under dependency") over all its metrics and leads, at the rule's level
divided by the steps in a window and by the graphs that are watched. With V false ones among R surprises in a window,
and v, r those of one graph's step, E[V / max(R, 1)] <= sum E[v / max(r, 1)] <= level: whatever depends on whatever.
`docs/decisions/0006-surprises-under-any-dependence.md` weighs it against others.

Shape suffixes: N values, Q quantile levels.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from infra.steps import parse_duration_us
from models.columns import LEVELS
from models.contract import FloatArray

# Shape of the generalised Pareto tail at least: a quarter lets the fourth moment be infinite.
LIGHTEST_TAIL = 0.25
_HEAVIEST_TAIL = 1.0
# Where the outermost levels are equal and say nothing of the tail.
_UNKNOWN_TAIL = 0.5
# The outermost three levels on either side say which of these shapes a tail has.
_SHAPES = np.linspace(0.0, _HEAVIEST_TAIL, 401)[1:]


def tail_probability(values: FloatArray, quantiles: FloatArray, units: FloatArray) -> FloatArray:
    """Return how likely values [N] at least as far out, on either side, were by forecasts [N, Q] at `QUANTILE_LEVELS`.

    `units` [N] are the smallest differences that mean something, such as 1 for a count: no tail is narrower.

    Twice the smaller of P(X <= x) and P(X >= x), at most 1. Where several quantiles are equal (a count that is mostly
    0) the value lies on an atom, and both sides include it: such values are no surprise.
    """
    least = _lower(values, quantiles, LEVELS, units)
    most = _lower(-values, -quantiles[:, ::-1], 1 - LEVELS[::-1], units)
    return np.asarray(np.minimum(1.0, 2 * np.minimum(least, most)))


def _lower(values_N: FloatArray, quantiles_NQ: FloatArray, levels_Q: FloatArray, units_N: FloatArray) -> FloatArray:
    """Return P(X <= x), read off generously: at an atom all of it, beyond the lowest level by the tail."""
    # The last of equal quantiles counts: the probability up to the value includes the atom.
    above_N = (quantiles_NQ <= values_N[:, None]).sum(axis=1)
    right_N = np.clip(above_N, 1, len(levels_Q) - 1)
    rows_N = np.arange(len(values_N))
    left_N, width_N = quantiles_NQ[rows_N, right_N - 1], np.diff(quantiles_NQ)[rows_N, right_N - 1]
    share_N = np.divide(values_N - left_N, width_N, out=np.zeros(len(values_N)), where=width_N > 0)
    inside_N = levels_Q[right_N - 1] + np.clip(share_N, 0, 1) * np.diff(levels_Q)[right_N - 1]
    inside_N[above_N == len(levels_Q)] = 1.0
    excess_N = quantiles_NQ[:, 0] - values_N
    beyond_N = excess_N > 0
    if beyond_N.any():
        shape_N, scale_N = _tail(quantiles_NQ[beyond_N], levels_Q)
        ratio_N = excess_N[beyond_N] / np.maximum(scale_N, units_N[beyond_N])
        inside_N[beyond_N] = levels_Q[0] * (1 + shape_N * ratio_N) ** (-1 / shape_N)
    return np.asarray(inside_N)


def _tail(quantiles_NQ: FloatArray, levels_Q: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return shape [N] and scale [N] beyond the lowest level of a generalised Pareto tail through the three lowest."""
    near, far = levels_Q[2] / levels_Q[1], levels_Q[2] / levels_Q[0]
    inner_N = quantiles_NQ[:, 2] - quantiles_NQ[:, 1]
    outer_N = quantiles_NQ[:, 2] - quantiles_NQ[:, 0]
    ratio_N = np.divide(outer_N, inner_N, out=np.full(len(inner_N), np.inf), where=inner_N > 0)
    is_known_N = outer_N > 0
    # The quantile at p beyond the threshold u is scale / shape * ((u / p)^shape - 1): the ratio of two gives the shape.
    ratios = (far**_SHAPES - 1) / (near**_SHAPES - 1)
    shape_N = np.where(is_known_N, np.maximum(LIGHTEST_TAIL, np.interp(ratio_N, ratios, _SHAPES)), _UNKNOWN_TAIL)
    # The scale at the lowest level, from the step between it and the next: what the shape makes of that distance.
    growth_N = (levels_Q[1] / levels_Q[0]) ** shape_N
    scale_N = (quantiles_NQ[:, 1] - quantiles_NQ[:, 0]) * shape_N / (1 - 1 / growth_N)
    return shape_N, scale_N


def step_level(false_discovery_rate: float, window: str, step_us: int, graphs: int) -> float:
    """Return the level that one step of one graph is judged at.

    Args:
        false_discovery_rate: of the surprises of a window, at most this share is false on average.
        window: a duration.
        step_us: step size of the graph.
        graphs: how many are watched, at least 1.
    """
    # So many steps a window holds at most: one that the steps do not divide may begin just before one of them.
    steps = -(-parse_duration_us(window) // step_us)
    return false_discovery_rate / (steps * max(1, graphs))


def discoveries(probabilities: Sequence[float] | FloatArray, level: float) -> tuple[npt.NDArray[np.bool_], float]:
    """Return which of the tail probabilities of one step are surprises, and up to which they are.

    The step-up procedure of Benjamini and Yekutieli: the largest k with p(k) <= k / (n * (1 + 1/2 + ... + 1/n)) *
    level. Where there is none, the bound is that of a single surprise.
    """
    given = np.asarray(probabilities, dtype=np.float64)
    count = len(given)
    if count == 0:
        return np.zeros(0, dtype=bool), 0.0
    bounds = level * np.arange(1, count + 1) / (count * (1 / np.arange(1, count + 1)).sum())
    passing = np.flatnonzero(np.sort(given) <= bounds)
    if len(passing) == 0:
        return np.zeros(count, dtype=bool), float(bounds[0])
    bound = float(bounds[passing[-1]])
    return given <= bound, bound
