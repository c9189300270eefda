"""Sample paths: whole futures of all metrics that hang together, drawn through the quantiles of a forecast.

At each step and metric the paths are spread as the quantiles say; along time and across metrics they move with the
dependent ranks of `models.paths`. What depends on several steps or metrics at once (sums over a month, the chance to
fall below a bound within a week) is computed on them.

Shape suffixes: H steps, M metrics in the order of `METRIC_NAMES`, K modelled metrics, P paths, Q quantile levels.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from infra.ahead import ahead
from infra.schema import METRICS
from models.columns import COUNTS, IS_COUNT, LEVELS, MODELLED, NEWS, SHARES, TOTALS
from models.constraints import lower_to_larger
from models.contract import FloatArray, ForecastChunk, PathChunk
from models.levels import level_shares
from models.paths import RankPaths, RankStructure, add_up, quantile_values

# Of the 53 bits of a rank the first 20 say where it lies.
_LATE_DIGITS = 2.0**20


def sample_paths(
    chunks: Iterable[ForecastChunk],
    last_totals: npt.ArrayLike,
    structure: RankStructure,
    *,
    key: tuple[int | str, ...],
    n_paths: int,
    use_threads: bool = False,
) -> Iterator[PathChunk]:
    """Yield paths through a forecast, chunk by chunk, at memory that does not grow with its length.

    Counts are whole numbers, and every path keeps every invariant of the schema at every step.

    Args:
        chunks: the forecast from its first step on.
        last_totals: the last observed totals, in the order of `RUNNING_TOTALS`.
        structure: how the ranks of the modelled metrics hang together.
        key: what the randomness depends on, such as (seed, graph).
        n_paths: number of paths, at least 1.
        use_threads: whether the next chunk and its ranks are made by threads meanwhile; the numbers are the same.

    Raises:
        ValueError: there are no paths to draw.
    """
    if n_paths < 1:
        raise ValueError(f"a forecast has at least one path, not {n_paths}")
    ranks = RankPaths(structure, key=(*key, "paths"), n_paths=n_paths)
    totals_TP = np.repeat(np.asarray(last_totals, dtype=np.float64)[:, None], n_paths, axis=1)
    slow_K = np.array([dynamics.weight_slow for dynamics in structure.dynamics])
    forecast = ahead(chunks) if use_threads else chunks
    ranked = ((chunk, ranks.draw(len(chunk), _slow(chunk, slow_K))) for chunk in forecast)
    for chunk, ranks_HKP in ahead(ranked) if use_threads else ranked:
        values_HMP = np.zeros((len(chunk), len(METRICS), n_paths))
        values_HMP[:, MODELLED] = _modelled(chunk, ranks_HKP)
        np.maximum(values_HMP, 0, out=values_HMP)
        values_HMP[:, COUNTS] = _whole(values_HMP[:, COUNTS], ranks_HKP[:, :1])
        values_HMP[:, SHARES] = np.minimum(values_HMP[:, SHARES], 1)
        lower_to_larger(values_HMP, totals=False)
        if len(chunk):
            sums_HTP = values_HMP[:, NEWS]
            add_up(sums_HTP)
            values_HMP[:, TOTALS] = totals_TP + sums_HTP
            totals_TP = values_HMP[-1, TOTALS].copy()
        lower_to_larger(values_HMP, totals=True)
        yield PathChunk(chunk.first_step, values_HMP, replace(chunk, finer=None))


def _whole(values_HCP: FloatArray, ranks_H1P: FloatArray) -> FloatArray:
    """Return counts [H, C, P] as whole numbers whose mean over the paths is theirs: 0.3 is one on three paths of ten.

    To the nearest whole number, the many hours of a rare event would be none. Which paths are rounded up is the same
    for all counts of a step, so that those that are equal stay equal, and is told by digits of a rank [H, 1, P] that
    are too late to tell its size.
    """
    return np.asarray(np.floor(values_HCP + (ranks_H1P * _LATE_DIGITS) % 1.0))


def _slow(chunk: ForecastChunk, slow_K: FloatArray) -> FloatArray:
    """Return the slow share [H, K] of ranks: that of the level for counts, `slow_K` for shares."""
    shares_HK = level_shares(chunk.mean[:, MODELLED], _through(chunk), slow_K)
    return np.where(IS_COUNT, shares_HK, slow_K)


def _through(chunk: ForecastChunk) -> FloatArray:
    """Return the quantiles [H, K, Q] that paths go through."""
    through_HMQ = chunk.quantiles if chunk.finer is None else chunk.finer
    return through_HMQ[:, MODELLED]


def _modelled(chunk: ForecastChunk, ranks_HKP: FloatArray) -> FloatArray:
    mean_HK, quantiles_HKQ = chunk.mean[:, MODELLED], _through(chunk)
    values_HKP = quantile_values(quantiles_HKQ, LEVELS, ranks_HKP)
    # Rarer than the outermost level can say: a path then has one with the probability of the mean.
    rare_HK = (quantiles_HKQ[..., -1] <= 0) & (mean_HK > 0)
    if rare_HK.any():
        share_K1 = np.minimum(mean_HK[rare_HK], 1 - LEVELS[-1])[:, None]
        size_K1 = np.maximum(mean_HK[rare_HK][:, None] / share_K1, 1)
        values_HKP[rare_HK] = (ranks_HKP[rare_HK] > 1 - share_K1) * size_K1
    return values_HKP
