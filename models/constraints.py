"""The invariants of the schema, imposed on forecasts and checked in them.

Shape suffixes: H steps, M metrics in the order of `METRIC_NAMES`, Q quantile levels.
"""

from dataclasses import dataclass
from graphlib import TopologicalSorter

import numpy as np
import numpy.typing as npt

from infra.errors import ModelError
from infra.schema import METRIC_INDEX, METRICS, ORDER_CONSTRAINTS, QUANTILE_LEVELS, RUNNING_TOTALS, Kind
from models.columns import LEVELS, NEWS, SHARES, TOTALS
from models.contract import FloatArray
from models.levels import level_shares
from models.paths import RankDynamics, RankPaths, RankStructure, add_up, floored_mean, quantile_values

_TINY = 1e-12
# What follows from the meaning of the metrics beside the rules of the schema.
_ORDERED = (*ORDER_CONSTRAINTS, ("self_loops", "events"), ("unique_edges", "total_edges"))


def _from_larger_to_smaller() -> tuple[tuple[int, int], ...]:
    """Return all ordered pairs as indices (smaller, larger), each after those that can still lower its larger one."""
    graph: dict[str, set[str]] = {}
    for smaller, larger in _ORDERED:
        graph.setdefault(smaller, set()).add(larger)
    rank = {name: position for position, name in enumerate(TopologicalSorter(graph).static_order())}
    ordered = sorted(_ORDERED, key=lambda pair: rank[pair[1]])
    return tuple((METRIC_INDEX[smaller], METRIC_INDEX[larger]) for smaller, larger in ordered)


_ORDER = _from_larger_to_smaller()


def constrain(mean_HM: FloatArray, quantiles_HMQ: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the forecast with every invariant that concerns one step, except those of totals.

    Quantiles are sorted along Q (Chernozhukov et al. 2010, "Quantile and probability curves without crossing"), counts
    floored at 0, shares kept in [0, 1], and the smaller of two ordered metrics is lowered to the larger one, level by
    level; none of these undoes another. Totals are sorted and floored only.

    Raises:
        ModelError: a value is not finite.
    """
    _require_finite(mean_HM, quantiles_HMQ)
    mean_HM, quantiles_HMQ = mean_HM.copy(), np.sort(quantiles_HMQ, axis=-1)
    for values in (mean_HM, quantiles_HMQ):
        np.maximum(values, 0, out=values)
        values[:, SHARES] = np.minimum(values[:, SHARES], 1)
        lower_to_larger(values, totals=False)
    return mean_HM, quantiles_HMQ


class TotalsAccumulator:
    """Completes consecutive chunks of a forecast with its totals: the last total plus the running sum of the new.

    Sums are taken on sample paths, so that their uncertainty grows as the ranks of the new nodes and edges persist; a
    path draws one for both, and they differ by the share of the level alone. What it draws is scaled to the forecast
    mean, so that the mean of a total is exactly the last total plus the sum of the forecast means, however sparse the
    metric. Memory does not grow with the horizon.

    Args:
        last_totals: the last observed totals, in the order of `RUNNING_TOTALS`.
        dynamics: how the ranks of new nodes and edges move in time.
        key: what the randomness depends on, such as (seed, graph).
        n_paths: number of sample paths.
    """

    def __init__(
        self,
        last_totals: npt.ArrayLike,
        *,
        dynamics: RankDynamics,
        key: tuple[int | str, ...],
        n_paths: int = 256,
    ) -> None:
        last = np.asarray(last_totals, dtype=np.float64)
        self._ranks = RankPaths(RankStructure.one(dynamics), key=(*key, "totals"), n_paths=n_paths)
        self._slow_T = np.full(len(RUNNING_TOTALS), dynamics.weight_slow)
        self._mean_T = last
        self._sums_TP = np.repeat(last[:, None], n_paths, axis=1)

    def complete(self, mean_HM: FloatArray, quantiles_HMQ: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the next H steps with every invariant; the totals among the arguments are ignored.

        Raises:
            ModelError: a value is not finite.
        """
        mean_HM, quantiles_HMQ = mean_HM.copy(), quantiles_HMQ.copy()
        mean_HM[:, TOTALS], quantiles_HMQ[:, TOTALS] = 0, 0
        mean_HM, quantiles_HMQ = constrain(mean_HM, quantiles_HMQ)
        if len(mean_HM) == 0:
            return mean_HM, quantiles_HMQ
        mean_HM[:, TOTALS] = np.cumsum(np.vstack([self._mean_T, mean_HM[:, NEWS]]), axis=0)[1:]
        sums_HTP = self._new_on_paths(mean_HM[:, NEWS], quantiles_HMQ[:, NEWS])
        sums_HTP[0] += self._sums_TP
        add_up(sums_HTP)
        self._mean_T, self._sums_TP = mean_HM[-1, TOTALS], sums_HTP[-1].copy()
        quantiles_HMQ[:, TOTALS] = _quantiles_of_paths(sums_HTP)
        for values in (mean_HM, quantiles_HMQ):
            lower_to_larger(values, totals=True)
        return mean_HM, quantiles_HMQ

    def _new_on_paths(self, mean_HT: FloatArray, quantiles_HTQ: FloatArray) -> FloatArray:
        ranks_HTP = self._ranks.draw(len(mean_HT), level_shares(mean_HT, quantiles_HTQ, self._slow_T))
        values_HTP = np.maximum(quantile_values(quantiles_HTQ, LEVELS, ranks_HTP), 0)
        expected_HT = floored_mean(quantiles_HTQ, LEVELS)
        drawn_HT = expected_HT > 0
        values_HTP *= np.divide(mean_HT, expected_HT, out=np.zeros_like(mean_HT), where=drawn_HT)[..., None]
        if drawn_HT.all():
            return values_HTP
        # Rarer than the outermost level can say: a path then has one with the probability of the mean.
        share_HT = np.clip(mean_HT, _TINY, 1 - LEVELS[-1])
        rare_HTP = (ranks_HTP > 1 - share_HT[..., None]) * (mean_HT / share_HT)[..., None]
        return np.where(drawn_HT[..., None], values_HTP, rare_HTP)


@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant that a forecast breaks.

    Attributes:
        invariant: the rule, such as `unique_edges <= events`.
        step: the first step where it is broken, from the start of the chunk.
        level: the quantile level there; None for the mean.
        count: how often it is broken in all.
    """

    invariant: str
    step: int
    level: float | None
    count: int


def violations(
    mean_HM: FloatArray,
    quantiles_HMQ: FloatArray,
    *,
    before: tuple[FloatArray, FloatArray] | None = None,
    tolerance: float = 0.0,
) -> list[Violation]:
    """Return every invariant of the schema that the forecast breaks; none for a forecast that keeps them all.

    Args:
        mean_HM: the means.
        quantiles_HMQ: the quantiles.
        before: mean [M] and quantiles [M, Q] of the step before the first, which no total may fall below.
        tolerance: by how much a value may break a rule.
    """
    found: list[Violation] = []
    # The mean stands beside the levels as one more column.
    values_HMK = np.concatenate([quantiles_HMQ, mean_HM[..., None]], axis=-1)

    def require(invariant: str, excess: FloatArray) -> None:
        broken = ~(excess <= tolerance)
        if broken.any():
            step, column = np.argwhere(broken)[0]
            level = QUANTILE_LEVELS[column] if column < len(QUANTILE_LEVELS) else None
            found.append(Violation(invariant, int(step), level, int(broken.sum())))

    for index, metric in enumerate(METRICS):
        values_HK = values_HMK[:, index]
        require(f"{metric.name} is finite", np.where(np.isfinite(values_HK), 0.0, np.inf))
        require(f"{metric.name} >= 0", -values_HK)
        if metric.kind is Kind.SHARE:
            require(f"{metric.name} <= 1", values_HK - 1)
        if metric.kind is Kind.TOTAL:
            first = values_HK[:1] if before is None else np.append(before[1][index], before[0][index])[None]
            require(f"{metric.name} never falls", -np.diff(np.concatenate([first, values_HK]), axis=0))
        require(f"quantiles of {metric.name} never cross", -np.diff(quantiles_HMQ[:, index], axis=-1))
    for smaller, larger in _ORDERED:
        require(f"{smaller} <= {larger}", values_HMK[:, METRIC_INDEX[smaller]] - values_HMK[:, METRIC_INDEX[larger]])
    return found


def lower_to_larger(values: FloatArray, *, totals: bool) -> None:
    """Lower the smaller of two ordered metrics [H, M, ...] to the larger one, in place, totals included or not."""
    for smaller, larger in _ORDER:
        if totals or larger not in TOTALS:
            np.minimum(values[:, smaller], values[:, larger], out=values[:, smaller])


def _quantiles_of_paths(sums_HTP: FloatArray) -> FloatArray:
    """Return quantiles [H, T, Q] over paths: the nearest order statistics.

    An order statistic of paths that never fall never falls, to the last bit; an interpolation would round.
    """
    nearest_Q = np.rint(LEVELS * (sums_HTP.shape[-1] - 1)).astype(np.int64)
    return np.asarray(np.sort(sums_HTP, axis=-1)[..., nearest_Q])


def _require_finite(mean_HM: FloatArray, quantiles_HMQ: FloatArray) -> None:
    finite_HM = np.isfinite(mean_HM) & np.isfinite(quantiles_HMQ).all(axis=-1)
    if not finite_HM.all():
        step, index = np.argwhere(~finite_HM)[0]
        raise ModelError(
            f"the forecast of {METRICS[index].name} is not finite",
            place=f"step {step} of the chunk",
            fix="check the history for absurd values, or train the model anew",
        )
