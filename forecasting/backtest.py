"""Rolling-origin evaluation: forecasts from successive origins of a history, scored against what came.

Windows do not overlap, a state moves on from origin to origin, and every model sees of the history what lies before
its origin and nothing else.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from infra.errors import UsageError
from infra.schema import MAX_HORIZON_STEPS, METRIC_INDEX, METRIC_NAMES, METRICS, Kind
from infra.steps import format_duration, format_time
from models.contract import History, Model
from models.floor import Floor
from models.scoring import HORIZON_BUCKETS, Scores, Tally, bucket_name, geometric_mean_ratio, mase_scale
from models.seasons import season_steps

REFERENCE = "seasonal_naive"
BEST_FLOOR = "best_floor"
_COUNTS = [name for name, metric in zip(METRIC_NAMES, METRICS, strict=True) if metric.kind is Kind.COUNT]


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
class Ratio:
    """Geometric mean over count metrics of a model's score over that of another; below 1 the model is better.

    Attributes:
        score: `mase` or `wql`.
        against: `seasonal_naive`, or `best_floor` for the floor that is best at the metric and bucket.
        ratio: NaN when no metric could be compared.
        n_metrics: how many metrics could be; the rest have an undefined or zero score.
    """

    model: str
    bucket: str
    score: str
    against: str
    ratio: float
    n_metrics: int


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds that a model took for all its updates and all its rollouts."""

    update_s: float
    rollout_s: float


@dataclass(frozen=True, slots=True)
class BacktestResult:
    """What a backtest found.

    Attributes:
        protocol: how it was done, as JSON values.
        rows: scores by metric, model and range of horizons: buckets first, then horizons from the first step on.
        ratios: geometric means over count metrics.
        timings: by model.
        unscaled: metrics without MASE, because they do not change from season to season before the first origin.
    """

    protocol: dict[str, Any]
    rows: list[Row]
    ratios: list[Ratio]
    timings: dict[str, Timing]
    unscaled: list[str]

    def to_json(self, graph: str) -> dict[str, Any]:
        """Return JSON values; an undefined score is null."""
        return {
            "graph": graph,
            "protocol": self.protocol,
            "rows": [_json_fields(row) for row in self.rows],
            "ratios": [_json_fields(ratio) for ratio in self.ratios],
            "timings": {model: _json_fields(timing) for model, timing in self.timings.items()},
            "unscaled": self.unscaled,
        }


def backtest(
    history: History,
    models: Sequence[Model[Any]],
    *,
    horizons: Sequence[int] = (1, 24, 168),
    origins: int = 6,
    test_start: int | None = None,
    stride: int | None = None,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> BacktestResult:
    """Forecast from rolling origins and score.

    The windows are as long as the longest horizon. They lie from `test_start` on, or so that the last ends with the
    history.

    Args:
        history: all steps.
        models: what to compare; names must differ.
        horizons: steps ahead; scores are given from step 1 up to each, beside those of `HORIZON_BUCKETS`.
        origins: number of windows.
        test_start: index of the first origin; the steps before it scale MASE.
        stride: steps from origin to origin, at least a window; None for windows that follow one another.
        seed: seed of the sample paths of totals.
        on_progress: called with windows done and to do, all models together.

    Raises:
        UsageError: the history is too short, or a horizon, the origins, the start or the names make no sense.
    """
    window = _window(horizons)
    stride = window if stride is None else stride
    first_origin = _first_origin(history, window, origins, stride, test_start)
    _check_names(models)
    season = season_steps(history.step_us)
    scale_M = mase_scale(history.values[:first_origin], season)
    ranges = _ranges(horizons, window)
    origin_steps = range(first_origin, first_origin + origins * stride, stride)
    rows: list[Row] = []
    timings: dict[str, Timing] = {}
    for index, model in enumerate(models):
        tallies = [Tally(first, last) for first, last in ranges]

        def tell(done: int, before: int = index * origins) -> None:
            if on_progress is not None:
                on_progress(before + done, len(models) * origins)

        timings[model.name] = _run(model, history, window, origin_steps, seed, tallies, tell)
        for tally in tallies:
            rows += _rows(model.name, bucket_name(tally.first, tally.last), tally.scores(scale_M))
    floors = [model.name for model in models if isinstance(model, Floor)]
    return BacktestResult(
        protocol={
            "step": format_duration(history.step_us),
            "steps": len(history),
            "season_steps": season,
            "origins": origins,
            "first_origin": format_time(history.start_us + first_origin * history.step_us),
            "window_steps": window,
            "stride_steps": stride,
            "horizons": list(horizons),
            "mase_scale": f"mean |y[t] - y[t - {season}]| over the {first_origin} steps before the first origin",
            "point": "median",
            "seed": seed,
        },
        rows=rows,
        ratios=_ratios(rows, [model.name for model in models], floors),
        timings=timings,
        unscaled=[name for name, scale in zip(METRIC_NAMES, scale_M, strict=True) if math.isnan(scale)],
    )


def _run(
    model: Model[Any],
    history: History,
    window: int,
    origin_steps: Sequence[int],
    seed: int,
    tallies: list[Tally],
    tell: Callable[[int], None],
) -> Timing:
    state, seen = model.start(history.step_us, history.start_us), 0
    update_s = rollout_s = 0.0
    for number, origin in enumerate(origin_steps):
        begin_s = time.perf_counter()
        # A copy, so that no model can reach the steps behind its origin.
        state, seen = model.update(state, history.values[seen:origin].copy()), origin
        update_s += time.perf_counter() - begin_s
        begin_s = time.perf_counter()
        for chunk in model.rollout(state, window, seed=seed):
            rollout_s += time.perf_counter() - begin_s
            at = origin + chunk.first_step
            for tally in tallies:
                tally.add(chunk.first_step, history.values[at : at + len(chunk)], chunk.quantiles)
            begin_s = time.perf_counter()
        tell(number + 1)
    return Timing(update_s, rollout_s)


def origin_stride(window: int, season: int) -> int:
    """Return steps from origin to origin that spread a few origins over all positions of the season.

    Origins a whole number of seasons apart would only ever forecast from, say, Monday at noon. Past the window, the
    stride is the golden section of a season, moved to a number without a common divisor with the season.
    """
    shift = max(1, round(season * (3 - math.sqrt(5)) / 2))
    while math.gcd(shift, season) > 1:
        shift += 1
    return -(-window // season) * season + shift


def _window(horizons: Sequence[int]) -> int:
    if not horizons or min(horizons) < 1 or max(horizons) > MAX_HORIZON_STEPS:
        raise UsageError(f"horizons must lie between 1 and {MAX_HORIZON_STEPS:,} steps, not {list(horizons)}")
    return max(horizons)


def _first_origin(history: History, window: int, origins: int, stride: int, test_start: int | None) -> int:
    if origins < 1:
        raise UsageError(f"a backtest needs at least one origin, not {origins}")
    if stride < window:
        raise UsageError(f"windows of {window} steps would overlap with origins {stride} steps apart")
    tested = (origins - 1) * stride + window
    first_origin = len(history) - tested if test_start is None else test_start
    if first_origin < 1 or first_origin + tested > len(history):
        raise UsageError(
            f"{origins} windows of {window} steps do not fit into {len(history)} steps of history"
            + (" with steps before the first" if test_start is None else f" from step {test_start} on"),
            fix="take fewer origins or a shorter horizon, or ingest more history",
        )
    return first_origin


def _check_names(models: Sequence[Model[Any]]) -> None:
    names = [model.name for model in models]
    if not names or len(set(names)) < len(names):
        raise UsageError(f"a backtest needs models with different names, not {names}")


def _ranges(horizons: Sequence[int], window: int) -> list[tuple[int, int]]:
    buckets = [bucket for bucket in HORIZON_BUCKETS if bucket[0] <= window]
    cumulative = [(1, horizon) for horizon in sorted(set(horizons))]
    return list(dict.fromkeys(buckets + cumulative))


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


def _ratios(rows: list[Row], models: list[str], floors: list[str]) -> list[Ratio]:
    table = {(row.metric, row.model, row.bucket): row for row in rows}
    ratios = []
    for bucket in dict.fromkeys(row.bucket for row in rows):
        for score in ("mase", "wql"):
            scores = {
                model: np.array([getattr(table[metric, model, bucket], score) for metric in _COUNTS])
                for model in models
            }
            references = {REFERENCE: scores[REFERENCE]} if REFERENCE in scores else {}
            if floors:
                references[BEST_FLOOR] = np.fmin.reduce([scores[floor] for floor in floors])
            for model in models:
                for against, reference in references.items():
                    ratio, count = geometric_mean_ratio(scores[model], reference)
                    ratios.append(Ratio(model, bucket, score, against, ratio, count))
    return ratios


def _json_fields(item: Any) -> dict[str, Any]:
    fields = {name: getattr(item, name) for name in item.__slots__}
    return {name: None if isinstance(v, float) and math.isnan(v) else v for name, v in fields.items()}
