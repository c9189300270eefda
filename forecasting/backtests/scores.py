"""All scores of a backtest, from its parts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from forecasting.backtests.parts import Part
from forecasting.backtests.plan import Plan
from forecasting.backtests.ratios import COUNT_METRICS, LeftOut, Ratio, left_out, ratios
from infra.schema import METRIC_INDEX, METRIC_NAMES
from models.bootstrap import block_bootstrap_error
from models.contract import FloatArray, History
from models.scoring import Scores, Tally, bucket_name, mase_scale
from models.seasons import season_steps
from models.sums import SumTally

ALL_COUNTS = "counts"
_COUNTS = [METRIC_INDEX[name] for name in COUNT_METRICS]
_DIGITS = 5


@dataclass(frozen=True, slots=True)
class Row:
    """Scores of one model for one metric over one range of horizons; NaN where a score is undefined.

    Attributes:
        bucket: the range of horizons, such as `2-10`.
        mase: of the median, against the seasonal difference of the steps before the first origin.
        wql: weighted quantile loss over the nine deciles.
        coverage_50, coverage_80, coverage_95: share of observations in the central interval.
        winkler_80, winkler_95: mean interval score.
        n: number of observations.
    """

    metric: str
    model: str
    bucket: str
    mase: float
    wql: float
    coverage_50: float
    coverage_80: float
    coverage_95: float
    winkler_80: float
    winkler_95: float
    n: int


@dataclass(frozen=True, slots=True)
class SumRow:
    """Errors of sums over whole days or weeks of the windows.

    Attributes:
        metric: a count.
        period: `day` or `week`, counted from each origin.
        wape_mean: sum of |sum of means - sum of observations| over the sum of observations; NaN where nothing happened.
        wape_median: the same of the medians, whose sum is not the median of the sum.
        n: number of periods.
    """

    metric: str
    model: str
    period: str
    wape_mean: float
    wape_median: float
    n: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """How often observations lay below each quantile: of a calibrated forecast, the level lies between the two shares.

    Attributes:
        metric: a metric, or `counts` for all count metrics together.
        bucket: the range of horizons.
        below, at_or_below: share of observations by level of `infra.schema.QUANTILE_LEVELS`.
        below_se, at_or_below_se: their standard errors, by the block bootstrap over origins; NaN for one origin.
    """

    metric: str
    model: str
    bucket: str
    below: tuple[float, ...]
    at_or_below: tuple[float, ...]
    below_se: tuple[float, ...]
    at_or_below_se: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Timing:
    """What a model cost.

    Attributes:
        update_s, rollout_s: seconds of all updates and all rollouts.
        s_per_update: seconds of an update by the steps between two origins; NaN where each state began anew.
        s_per_rollout: seconds of a forecast of the window, fits included.
        peak_mb: largest rise of the resident memory during one, in megabytes; NaN where the system does not tell.
    """

    update_s: float
    rollout_s: float
    s_per_update: float
    s_per_rollout: float
    peak_mb: float


@dataclass(frozen=True, slots=True)
class BacktestResult:
    """What a backtest found.

    Attributes:
        protocol: how it was done, as JSON values.
        floors: which of the models are floors.
        rows: scores by metric, model and range of horizons: buckets first, then horizons from the first step on.
        sums: errors of daily and weekly sums by count metric and model.
        calibration: shares below the quantiles by model, range of horizons and metric.
        ratios: geometric means over count metrics.
        left_out: count metrics that are not in them.
        timings: by model.
        unscaled: metrics without MASE, because they do not change from season to season before the first origin.
        fans: by model, mean and shown levels [H, M, C] of the first steps from the last origin.
        notes: in words, what is not there and why: a model, MASE.
    """

    protocol: dict[str, Any]
    floors: list[str]
    rows: list[Row]
    sums: list[SumRow]
    calibration: list[Calibration]
    ratios: list[Ratio]
    left_out: list[LeftOut]
    timings: dict[str, Timing]
    unscaled: list[str]
    fans: dict[str, FloatArray]
    notes: list[str] = field(default_factory=list)

    def to_json(self, graph: str) -> dict[str, Any]:
        """Return JSON values, without the fans; an undefined score is null."""
        return {
            "graph": graph,
            "protocol": self.protocol,
            "floors": self.floors,
            "notes": self.notes,
            "rows": [json_fields(row) for row in self.rows],
            "sums": [json_fields(row) for row in self.sums],
            "calibration": [json_fields(row) for row in self.calibration],
            "ratios": [json_fields(ratio) for ratio in self.ratios],
            "left_out": [asdict(one) for one in self.left_out],
            "timings": {model: json_fields(timing) for model, timing in self.timings.items()},
            "unscaled": self.unscaled,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "BacktestResult":
        """Return what `to_json` gave; without fans.

        Raises:
            KeyError, TypeError: the values are of another form.
        """
        return cls(
            protocol=values["protocol"],
            # Older results do not say these two, nor what is left out.
            floors=values.get("floors", []),
            notes=values.get("notes", []),
            rows=[Row(**_with_nan(Row, row)) for row in values["rows"]],
            sums=[SumRow(**_with_nan(SumRow, row)) for row in values["sums"]],
            calibration=[Calibration(**_with_nan(Calibration, row)) for row in values["calibration"]],
            ratios=[Ratio(**_with_nan(Ratio, ratio)) for ratio in values["ratios"]],
            left_out=[LeftOut(**{**one, "metrics": tuple(one["metrics"])}) for one in values.get("left_out", [])],
            timings={model: Timing(**_with_nan(Timing, timing)) for model, timing in values["timings"].items()},
            unscaled=values["unscaled"],
            fans={},
        )


def summarise(
    history: History, plan: Plan, parts: Mapping[str, Sequence[Part]], floors: Sequence[str]
) -> BacktestResult:
    """Return all scores.

    Args:
        history: all steps.
        plan: what was forecast from where.
        parts: by model, the part of each origin in their order.
        floors: which of the models are floors.
    """
    scale_M = mase_scale(history.values[: plan.first_origin], season_steps(history.step_us))
    rows: list[Row] = []
    sums: list[SumRow] = []
    calibration: list[Calibration] = []
    for model, found in parts.items():
        for number, (first, last) in enumerate(plan.ranges):
            tallies = [part.tallies[number] for part in found]
            bucket = bucket_name(first, last)
            rows += _rows(model, bucket, Tally.merged(tallies).scores(scale_M))
            calibration += _calibration(model, bucket, tallies)
        for period in plan.periods:
            sums += _sum_rows(model, period, SumTally.merged([part.sums[period] for part in found]))
    return BacktestResult(
        protocol=plan.protocol(history),
        floors=list(floors),
        rows=rows,
        sums=sums,
        calibration=calibration,
        ratios=ratios([rows], list(parts), floors),
        left_out=left_out(rows, list(parts), floors),
        timings={model: _timing(found) for model, found in parts.items()},
        unscaled=[name for name, scale in zip(METRIC_NAMES, scale_M, strict=True) if math.isnan(scale)],
        fans={model: found[-1].fan_HMC for model, found in parts.items()},
    )


def json_fields(item: Any) -> dict[str, Any]:
    """Return the fields of a dataclass as JSON values; NaN is null, several numbers are rounded to five digits."""
    return {field.name: _json_value(getattr(item, field.name)) for field in fields(item)}


def _json_value(value: Any) -> Any:
    if isinstance(value, tuple):
        return [None if math.isnan(number) else round(number, _DIGITS) for number in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _with_nan(kind: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    def read(value: Any) -> Any:
        if isinstance(value, list):
            return tuple(math.nan if number is None else number for number in value)
        return math.nan if value is None else value

    return {field.name: read(values[field.name]) for field in fields(kind)}


def _rows(model: str, bucket: str, scores: Scores) -> list[Row]:
    return [
        Row(
            metric=name,
            model=model,
            bucket=bucket,
            mase=float(scores.mase[index]),
            wql=float(scores.wql[index]),
            coverage_50=float(scores.coverage[0.5][index]),
            coverage_80=float(scores.coverage[0.8][index]),
            coverage_95=float(scores.coverage[0.95][index]),
            winkler_80=float(scores.winkler[0.8][index]),
            winkler_95=float(scores.winkler[0.95][index]),
            n=scores.n,
        )
        for name, index in METRIC_INDEX.items()
    ]


def _sum_rows(model: str, period: str, tally: SumTally) -> list[SumRow]:
    mean_M, median_M, count = tally.wape()
    return [
        SumRow(name, model, period, float(mean_M[index]), float(median_M[index]), count)
        for name, index in zip(COUNT_METRICS, _COUNTS, strict=True)
    ]


def _calibration(model: str, bucket: str, tallies: Sequence[Tally]) -> list[Calibration]:
    # All origins have as many observations, so the share of all is the mean of theirs. [2 shares, O, M, Q]
    shares = np.stack([tally.shares_below() for tally in tallies], axis=1)
    by_name = {name: shares[:, :, index] for name, index in METRIC_INDEX.items()}
    by_name = {ALL_COUNTS: shares[:, :, _COUNTS].mean(axis=2), **by_name}
    found = []
    for name, shares_2OQ in by_name.items():
        below, at_or_below = (tuple(share_OQ.mean(axis=0).tolist()) for share_OQ in shares_2OQ)
        errors = (tuple(block_bootstrap_error(share_OQ).tolist()) for share_OQ in shares_2OQ)
        found.append(Calibration(name, model, bucket, below, at_or_below, *errors))
    return found


def _timing(parts: Sequence[Part]) -> Timing:
    costs = [part.cost for part in parts]
    moved = [cost.update_s for cost in costs if not cost.is_first]
    return Timing(
        update_s=sum(cost.update_s for cost in costs),
        rollout_s=sum(cost.rollout_s for cost in costs),
        s_per_update=sum(moved) / len(moved) if moved else math.nan,
        s_per_rollout=sum(cost.rollout_s for cost in costs) / len(costs),
        peak_mb=max(cost.peak_bytes for cost in costs) / 1e6,
    )
