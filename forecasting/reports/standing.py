"""Where a model stands against the floors: what a page and a table show of backtests, said as it is."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forecasting.backtests.ratios import BEST_FLOOR, REFERENCE
from forecasting.backtests.scores import BacktestResult, Row


@dataclass(frozen=True, slots=True)
class Score:
    """One score of the model beside that of the floor which turned out best at it; NaN where undefined."""

    model: float
    floor: float
    floor_name: str

    @property
    def is_better(self) -> bool | None:
        """Whether the model is better, at the digits shown; None where there is nothing to compare."""
        if math.isnan(self.model) or math.isnan(self.floor):
            return None
        return round(self.model, 3) < round(self.floor, 3)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Model and floors for one metric over the steps up to a horizon."""

    metric: str
    horizon: int
    mase: Score
    wql: Score
    coverage_80: float
    coverage_95: float
    n: int


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a model stands.

    Attributes:
        model: its name.
        horizons: scores are over the steps from the first up to each of these.
        comparisons: by metric, then horizon.
        ratios: (model or floor, horizon, `mase` or `wql`) to the geometric mean over the count metrics of its score
            over seasonal naive's; NaN where undefined.
        against_best: (horizon, `mase` or `wql`) to the model's ratio over the floor that is best at each metric.
        origins: by horizon, from how many origins.
    """

    model: str
    horizons: tuple[int, ...]
    comparisons: tuple[Comparison, ...]
    ratios: dict[tuple[str, int, str], float]
    against_best: dict[tuple[int, str], float]
    origins: dict[int, int]

    @property
    def models(self) -> list[str]:
        """The model and the floors."""
        return list(dict.fromkeys(name for name, _, _ in self.ratios))

    def best(self, horizon: int, score: str) -> str | None:
        """Return the one with the lowest mean ratio at a horizon; None where none is defined."""
        column = {name: self.ratios[name, horizon, score] for name in self.models}
        defined = {name: ratio for name, ratio in column.items() if not math.isnan(ratio)}
        return min(defined, key=defined.__getitem__) if defined else None

    def sentences(self) -> list[str]:
        """Say in words how the model compares with the best floor at each horizon, by weighted quantile loss."""
        said = []
        for horizon in self.horizons:
            ratio = self.against_best[horizon, "wql"]
            ahead = "One step ahead" if horizon == 1 else f"Up to {horizon} steps ahead"
            if math.isnan(ratio):
                said.append(f"{ahead} no count metric could be compared.")
            elif abs(ratio - 1) < 0.005:
                said.append(f"{ahead} it is level with the best floor.")
            elif ratio < 1:
                said.append(f"{ahead} its loss is {1 - ratio:.0%} below the best floor's.")
            else:
                said.append(f"{ahead} the best floor is better: the model's loss is {ratio - 1:.0%} above it.")
        return said


def standing(results: Mapping[int, BacktestResult], model: str, metrics: Sequence[str]) -> Standing:
    """Return where `model` stands.

    Args:
        results: by horizon, a backtest that scored the steps up to it.
        model: the name of the model; all others are floors.
        metrics: which metrics to compare one by one.
    """
    comparisons = []
    ratios: dict[tuple[str, int, str], float] = {}
    against_best: dict[tuple[int, str], float] = {}
    for horizon, result in results.items():
        bucket = "1" if horizon == 1 else f"1-{horizon}"
        rows = [row for row in result.rows if row.bucket == bucket]
        comparisons += [
            _comparison([row for row in rows if row.metric == metric], model, horizon) for metric in metrics
        ]
        for ratio in result.ratios:
            if ratio.bucket == bucket and ratio.against == REFERENCE:
                ratios[ratio.model, horizon, ratio.score] = ratio.ratio
            if ratio.bucket == bucket and ratio.against == BEST_FLOOR and ratio.model == model:
                against_best[horizon, ratio.score] = ratio.ratio
    comparisons.sort(key=lambda comparison: metrics.index(comparison.metric))
    origins = {horizon: int(result.protocol["origins"]) for horizon, result in results.items()}
    return Standing(model, tuple(results), tuple(comparisons), ratios, against_best, origins)


def _comparison(rows: Sequence[Row], model: str, horizon: int) -> Comparison:
    (own,) = (row for row in rows if row.model == model)
    floors = [row for row in rows if row.model != model]

    def score(name: str) -> Score:
        defined = [row for row in floors if not math.isnan(getattr(row, name))]
        if not defined:
            return Score(getattr(own, name), math.nan, "")
        best = min(defined, key=lambda row: float(getattr(row, name)))
        return Score(getattr(own, name), getattr(best, name), best.model)

    return Comparison(
        metric=own.metric,
        horizon=horizon,
        mase=score("mase"),
        wql=score("wql"),
        coverage_80=own.coverage_80,
        coverage_95=own.coverage_95,
        n=own.n,
    )
