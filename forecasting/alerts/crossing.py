"""How likely a metric crosses a bound within some steps: the share of sample paths that do.

Whether a path crosses at *any* step depends on how the steps hang together; quantiles of single steps do not say it.
Sums over days and weeks are taken path by path, of periods (UTC) that end within the steps looked at; what was observed
of the first one counts.

Shape suffixes: H steps, P paths.
"""

from dataclasses import dataclass

import numpy as np

from forecasting.alerts.rules import PERIODS_US, Rule
from infra.schema import METRIC_INDEX
from infra.steps import step_start_us
from models.contract import FloatArray, History, PathChunk


@dataclass(frozen=True, slots=True)
class Crossing:
    """What the paths say.

    Attributes:
        probability: share of the paths that cross the bound at any step or period within the steps looked at.
        expected_us: end of the first step, or of the first period, by which the rule's probability is reached; None
            where it is not.
        paths: how many paths there are.
        periods: how many values of each path were compared with the bound.
    """

    probability: float
    expected_us: int | None
    paths: int
    periods: int


class CrossingCount:
    """Counts over the chunks of a forecast which paths cross the bound of a rule.

    Args:
        rule: of kind `forecast`.
        history: what was observed, at least the period that is open at its end.
        n_paths: number of paths.
    """

    def __init__(self, rule: Rule, history: History, n_paths: int) -> None:
        spec = rule.spec
        self._spec = spec
        self._metric = METRIC_INDEX[spec.metric or ""]
        self._step_us = history.step_us
        self._first_us = history.start_us + len(history) * history.step_us
        self.steps = rule.within_steps(history.step_us)
        self._crossed_P = np.zeros(n_paths, dtype=bool)
        self._periods = 0
        self._expected_us: int | None = None
        self._sum_P = np.zeros(n_paths)
        if spec.aggregate != "step":
            open_us = step_start_us(self._first_us, PERIODS_US[spec.aggregate])
            seen = max(0, (self._first_us - open_us) // self._step_us)
            # A period whose beginning was not observed cannot be told whole.
            self._is_whole = seen <= len(history)
            self._sum_P += history.values[len(history) - min(seen, len(history)) :, self._metric].sum()

    def add(self, chunk: PathChunk) -> None:
        """Take the next chunk; steps beyond those looked at are ignored."""
        values_HP = chunk.values[: max(0, self.steps - chunk.first_step), self._metric]
        for place, values_P in enumerate(values_HP):
            at_us = self._first_us + (chunk.first_step + place) * self._step_us
            if self._spec.aggregate == "step":
                self._compare(values_P, at_us + self._step_us)
            else:
                self._sum(values_P, at_us, PERIODS_US[self._spec.aggregate])

    def found(self) -> Crossing:
        """Return what the chunks so far say."""
        return Crossing(float(self._crossed_P.mean()), self._expected_us, len(self._crossed_P), self._periods)

    def _sum(self, values_P: FloatArray, at_us: int, period_us: int) -> None:
        self._sum_P = self._sum_P + values_P
        begin_us = step_start_us(at_us, period_us)
        if at_us + self._step_us >= begin_us + period_us:
            if self._is_whole:
                self._compare(self._sum_P, begin_us + period_us)
            self._sum_P, self._is_whole = np.zeros_like(self._sum_P), True

    def _compare(self, values_P: FloatArray, end_us: int) -> None:
        if self._spec.below is not None:
            self._crossed_P |= values_P < self._spec.below
        if self._spec.above is not None:
            self._crossed_P |= values_P > self._spec.above
        self._periods += 1
        if self._expected_us is None and self._crossed_P.mean() >= self._spec.probability:
            self._expected_us = end_us
