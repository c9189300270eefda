"""The page of a backtest: one HTML file that needs nothing else, with tables and charts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from bokeh.plotting import figure
from markupsafe import Markup

from forecasting.backtests.ratios import BEST_FLOOR, REFERENCE, Ratio, left_out_note
from forecasting.backtests.scores import BacktestResult, Calibration, Row, SumRow
from forecasting.evaluation import Evaluation
from forecasting.reports import plots
from forecasting.reports.backtest_plots import calibration_figure, ratio_figure
from forecasting.reports.outlook import Fan
from forecasting.reports.page import COLOURS
from forecasting.reports.phrases import label
from forecasting.reports.plots import Panel
from forecasting.reports.rendering import template
from infra.schema import METRIC_NAMES
from models.contract import History
from models.scoring import HORIZON_BUCKETS, bucket_name

FAN_METRICS = ("events", "active_nodes", "new_nodes")
# Shown before the fan, in lengths of the fan.
_SEEN_BEFORE = 1


@dataclass(frozen=True, slots=True)
class _Section:
    """What the page shows of one graph; charts by what they show."""

    graph: str
    key: str
    result: BacktestResult
    charts: dict[str, figure]
    ours: list[str]
    rows: list[tuple[list[Row], float, str]]
    sums: list[SumRow]
    calibration: list[Calibration]
    left_out: str


def render(evaluation: Evaluation, histories: Mapping[str, History]) -> str:
    """Return the page as HTML.

    Args:
        evaluation: backtests of some graphs.
        histories: by graph, what they were backtested on.
    """
    ours = list(evaluation.forecasters)
    sections = [
        _section(number, graph, result, histories[graph], evaluation.forecasters_of(graph))
        for number, (graph, result) in enumerate(evaluation.results.items())
    ]
    summary = evaluation.summary()
    buckets = list(dict.fromkeys(ratio.bucket for ratio in summary))
    against = REFERENCE if REFERENCE in evaluation.floors else BEST_FLOOR
    shown = [bucket for bucket in _bucket_names() if bucket in buckets]
    overall = ratio_figure("overall", _of(summary, "wql", against), shown, ours[0])
    figures = {"overall": overall} | {f"{s.key}-{name}": chart for s in sections for name, chart in s.charts.items()}
    script, elements = plots.embed(list(figures.values()))
    charts = {name: Markup(element) for name, element in zip(figures, elements, strict=True)}
    return template("backtest.html").render(
        forecasters=evaluation.forecasters,
        floors=evaluation.floors,
        sections=sections,
        charts=charts,
        against=against,
        buckets=buckets,
        models=[*ours, *evaluation.floors],
        of_some=_of_some(ours, evaluation),
        references=list(dict.fromkeys(ratio.against for ratio in summary)),
        ratios={(r.model, r.bucket, r.score, r.against): r for r in summary},
        fan_metrics=FAN_METRICS,
        library=Markup(plots.library()),
        script=Markup(script),
        colours=COLOURS,
        version=version("graphtide"),
        label=label,
        score=lambda value: "-" if math.isnan(value) else f"{value:.3f}",
        share=lambda value: "-" if math.isnan(value) else f"{100 * value:.0f} %",
        number=lambda value: "-" if math.isnan(value) else f"{value:,.1f}",
    )


def _of_some(ours: Sequence[str], evaluation: Evaluation) -> dict[str, int]:
    """Return on how many graphs those were scored that were not on all: the means of these are of other graphs."""
    results = evaluation.results.values()
    counts = {model: sum(model in result.timings for result in results) for model in ours}
    return {model: count for model, count in counts.items() if count < len(results)}


def _section(number: int, graph: str, result: BacktestResult, history: History, ours: list[str]) -> _Section:
    key = f"graph-{number}"
    calibration = [row for row in result.calibration if row.model in ours]
    # Charts are of the first alone; tables hold both.
    drawn = [row for row in calibration if row.model == ours[0]]
    charts = {"calibration": calibration_figure(f"{key}-calibration", drawn, _bucket_names())}
    charts |= _fans(key, result, history, ours[0])
    return _Section(
        graph=graph,
        key=key,
        result=result,
        charts=charts,
        ours=ours,
        rows=_rows(result, ours),
        sums=[row for row in result.sums if row.metric in FAN_METRICS],
        calibration=[row for row in calibration if row.metric == "counts"],
        left_out=left_out_note(result.left_out),
    )


def _rows(result: BacktestResult, ours: Sequence[str]) -> list[tuple[list[Row], float, str]]:
    """Return by metric the scores of `ours` over the longest horizon, with the lowest loss of a floor and its name."""
    horizon = max(result.protocol["horizons"])
    bucket = bucket_name(1, horizon)
    found = []
    for metric in METRIC_NAMES:
        rows = {row.model: row for row in result.rows if (row.metric, row.bucket) == (metric, bucket)}
        own = [rows[model] for model in ours]
        floors = [rows[floor] for floor in result.floors if not math.isnan(rows[floor].wql)]
        best = min(floors, key=lambda row: row.wql) if floors else None
        found.append((own, best.wql if best else math.nan, best.model if best else ""))
    return found


def _fans(key: str, result: BacktestResult, history: History, ours: str) -> dict[str, Any]:
    """Return by metric a chart of the forecast from the last origin beside what came."""
    fan_HMC = result.fans[ours]
    protocol = result.protocol
    # The last window ends with the history.
    origin = len(history) - protocol["window_steps"]
    starts_us = history.start_us + (origin + np.arange(len(fan_HMC), dtype=np.int64)) * history.step_us
    fan = Fan(starts_us, fan_HMC[..., 0], fan_HMC[..., 1:])
    shown = history.part(max(0, origin - _SEEN_BEFORE * len(fan)), origin + len(fan))
    seen_us = shown.start_us + np.arange(len(shown), dtype=np.int64) * shown.step_us
    return {
        f"fan-{metric}": plots.panel_figure(Panel(f"{key}-fan-{metric}", seen_us, shown.values, fan), metric)
        for metric in FAN_METRICS
    }


def _of(found: Sequence[Ratio], score: str, against: str) -> list[Ratio]:
    return [ratio for ratio in found if (ratio.score, ratio.against) == (score, against)]


def _bucket_names() -> list[str]:
    return [bucket_name(first, last) for first, last in HORIZON_BUCKETS]
