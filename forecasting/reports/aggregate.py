"""What sample paths say of whole days, weeks, months and years, gathered chunk by chunk at bounded memory.

Quantiles of a sum are not sums of quantiles: every path is aggregated by itself, and quantiles are taken over the
paths at the end of each period. Metrics that add up over time are summed, totals are taken at the end of the period,
all others are means over its steps: nodes that are active in two steps are not two nodes.

Shape suffixes: H steps, N periods, C columns (the metrics of the schema, then `density`), P paths, Q levels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from forecasting.reports.calendar import Scale, Times, scales_of
from forecasting.reports.outlook import SHOWN_LEVELS, Fan
from infra.schema import METRIC_INDEX, METRIC_NAMES, METRICS, Kind
from models.contract import FloatArray, History, PathChunk

DENSITY = "density"
COLUMNS: tuple[str, ...] = (*METRIC_NAMES, DENSITY)
COLUMN_INDEX = {name: index for index, name in enumerate(COLUMNS)}
_SUMMED = {"events", "new_nodes", "new_edges", "self_loops"}


class Rule(StrEnum):
    """How the steps of a period become one value."""

    SUM = "sum"
    MEAN = "mean"
    LAST = "last"


def rule_of(column: str) -> Rule:
    """Return how a column is aggregated over time."""
    if column in _SUMMED:
        return Rule.SUM
    is_total = column != DENSITY and METRICS[METRIC_INDEX[column]].kind is Kind.TOTAL
    return Rule.LAST if is_total else Rule.MEAN


_RULES = [rule_of(column) for column in COLUMNS]
_IS_MEAN = np.array([rule is Rule.MEAN for rule in _RULES])
_LAST = np.flatnonzero([rule is Rule.LAST for rule in _RULES])
_ADDED = np.flatnonzero([rule is not Rule.LAST for rule in _RULES])
# Relative error of a mean at most: sums of a year of minutes have less.
_ROUNDING = 1e-9
_UNIQUE, _ACTIVE = METRIC_INDEX["unique_edges"], METRIC_INDEX["active_nodes"]


def with_density(values: FloatArray) -> FloatArray:
    """Return values [H, M, …] as columns [H, C, …], with the density of each step as the last.

    Density is unique edges over ordered pairs of active nodes, at most 1; 0 with fewer than two nodes.
    """
    pairs = values[:, _ACTIVE] * (values[:, _ACTIVE] - 1)
    density = np.divide(values[:, _UNIQUE], pairs, out=np.zeros_like(pairs), where=pairs > 0)
    return np.concatenate([values, np.minimum(density, 1)[:, None]], axis=1)


@dataclass(frozen=True, slots=True)
class Periods:
    """Whole periods of one scale, observed.

    Attributes:
        start_us: [N] int64.
        values: [N, C].
    """

    scale: Scale
    start_us: Times
    values: FloatArray

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, slots=True)
class PeriodFan:
    """Whole periods of one scale, forecast; the first one may have begun before the forecast.

    Attributes:
        start_us: [N] int64.
        fan: mean [N, C] and quantiles [N, C, 5] over the paths.
        above: [N, C] share of the paths above the last whole observed period, ties as halves; NaN where there is none.
        observed_steps: how many steps of the first period were observed and are part of it.
    """

    scale: Scale
    start_us: Times
    fan: Fan
    above: FloatArray
    observed_steps: int

    def __len__(self) -> int:
        return len(self.above)


def observed_periods(history: History, scale: Scale) -> Periods:
    """Return the periods that a history covers wholly."""
    starts_us = history.start_us + np.arange(len(history), dtype=np.int64) * history.step_us
    numbers = scale.number_of(starts_us)
    begins = np.flatnonzero(np.diff(numbers, prepend=numbers[0] - 1))
    # The first step is the first of its period if a step earlier belongs to another.
    is_whole = np.ones(len(begins), dtype=bool)
    before = np.array([history.start_us - history.step_us, starts_us[-1] + history.step_us])
    first, last = scale.number_of(before)
    is_whole[0] &= bool(first != numbers[0])
    is_whole[-1] &= bool(last != numbers[-1])
    columns = with_density(history.values)
    lengths = np.diff(begins, append=len(history))
    sums = np.add.reduceat(columns, begins, axis=0)
    values = np.where(_IS_MEAN, sums / lengths[:, None], sums)
    values[:, _LAST] = columns[begins + lengths - 1][:, _LAST]
    return Periods(scale, scale.start_us(numbers[begins])[is_whole], values[is_whole])


class _Gathering:
    """One scale: the sums of the period that is open, and what is known of those that are closed."""

    def __init__(self, scale: Scale, history: History, n_paths: int) -> None:
        self.scale = scale
        self._step_us = history.step_us
        self._first_us = history.start_us + len(history) * history.step_us
        seen = observed_periods(history, scale)
        self._baseline = seen.values[-1] if len(seen) else np.full(len(COLUMNS), np.nan)
        self._number = int(scale.number_of(np.array([self._first_us]))[0])
        starts_us = history.start_us + np.arange(len(history), dtype=np.int64) * history.step_us
        open_steps = scale.number_of(starts_us) == self._number
        self.observed_steps = int(open_steps.sum())
        # A period whose beginning was not observed cannot be told whole.
        begin_us = int(scale.start_us(np.array([self._number]))[0])
        self._is_whole = begin_us > history.start_us - history.step_us
        self._steps = self.observed_steps
        begun = with_density(history.values[open_steps]).sum(axis=0)[_ADDED]
        self._sums_AP = np.repeat(begun[:, None], n_paths, axis=1)
        self._numbers: list[int] = []
        self._rows: list[FloatArray] = []

    def add(self, first_step: int, columns_HCP: FloatArray) -> None:
        starts_us = self._first_us + (first_step + np.arange(len(columns_HCP) + 1, dtype=np.int64)) * self._step_us
        numbers = self.scale.number_of(starts_us)
        # Where a period ends within the chunk: behind the step whose successor has another number.
        ends = np.flatnonzero(np.diff(numbers)) + 1
        begin = 0
        for end in ends:
            self._sums_AP += columns_HCP[begin:end, _ADDED].sum(axis=0)
            self._steps += int(end) - begin
            self._close(columns_HCP[end - 1], int(numbers[end - 1]))
            begin = int(end)
        self._sums_AP += columns_HCP[begin:, _ADDED].sum(axis=0)
        self._steps += len(columns_HCP) - begin

    def _close(self, last_CP: FloatArray, number: int) -> None:
        if self._is_whole:
            values_CP = np.empty_like(last_CP)
            values_CP[_ADDED] = self._sums_AP
            values_CP[_IS_MEAN] /= self._steps
            values_CP[_LAST] = last_CP[_LAST]
            seen_C1 = self._baseline[:, None]
            # Means of equal steps differ by the order in which these were added.
            is_same_CP = _IS_MEAN[:, None] & np.isclose(values_CP, seen_C1, rtol=_ROUNDING, atol=0.0)
            values_CP = np.where(is_same_CP, seen_C1, values_CP)
            quantiles = np.quantile(values_CP, SHOWN_LEVELS, axis=1).T
            # What does not change is neither above nor below.
            above = (values_CP > seen_C1).mean(axis=1) + (values_CP == seen_C1).mean(axis=1) / 2
            above[np.isnan(self._baseline)] = np.nan
            row = np.concatenate([values_CP.mean(axis=1)[:, None], quantiles, above[:, None]], axis=1)
            self._rows.append(row)
            self._numbers.append(number)
        self._is_whole = True
        self._steps = 0
        self._sums_AP = np.zeros_like(self._sums_AP)

    def result(self) -> PeriodFan:
        rows = np.array(self._rows).reshape(-1, len(COLUMNS), 2 + len(SHOWN_LEVELS))
        starts_us = self.scale.start_us(np.array(self._numbers, dtype=np.int64))
        fan = Fan(starts_us, rows[..., 0], rows[..., 1:-1])
        return PeriodFan(self.scale, starts_us, fan, rows[..., -1], self.observed_steps)


class PathAggregator:
    """Aggregates sample paths to every scale that holds more than one step.

    Args:
        history: what was observed; the first period of a scale goes on from its end.
        n_paths: how many paths the chunks have.
        scales: which scales; all that the steps allow if not given.
    """

    def __init__(self, history: History, n_paths: int, scales: Sequence[Scale] | None = None) -> None:
        wanted = scales_of(history.step_us) if scales is None else scales
        self._gatherings = [_Gathering(scale, history, n_paths) for scale in wanted]

    def add(self, chunk: PathChunk) -> None:
        """Take the next chunk; chunks come in order."""
        columns_HCP = with_density(chunk.values)
        for gathering in self._gatherings:
            gathering.add(chunk.first_step, columns_HCP)

    def periods(self) -> dict[Scale, PeriodFan]:
        """Return the whole periods so far, by scale; a scale may have none."""
        return {gathering.scale: gathering.result() for gathering in self._gatherings}
