"""How `graphtide backtest` shows what it found, as tables."""

import math
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from forecasting.cli.call import console
from infra.schema import METRIC_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from forecasting.backtests.ratios import Ratio
    from forecasting.backtests.scores import BacktestResult
    from forecasting.evaluation import Evaluation


def show(evaluation: "Evaluation") -> None:
    """Print one graph metric by metric, several by their geometric means."""
    out = console()
    horizons = sorted({horizon for result in evaluation.results.values() for horizon in result.protocol["horizons"]})
    ours = evaluation.forecaster
    if len(evaluation.results) == 1:
        ((graph, result),) = evaluation.results.items()
        _show_one(out, graph, result, ours, horizons)
        return
    for horizon in horizons:
        out.print(_graphs_table(evaluation, _bucket(horizon)))
        out.print()
    for horizon in horizons:
        out.print(_models_table(evaluation.summary(), _bucket(horizon), f"all {len(evaluation.results)} graphs"))
        out.print()
    for graph, result in evaluation.results.items():
        _tell_left_out(out, graph, result, ours, horizons)
    out.print("Scores by metric, calibration, daily sums and costs: --json or --html")


def _show_one(out: Console, graph: str, result: "BacktestResult", ours: str, horizons: list[int]) -> None:
    protocol = result.protocol
    out.print(
        f"{graph}: {protocol['origins']} origins from {protocol['first_origin']}, windows of "
        f"{protocol['window_steps']} steps of {protocol['step']}; {ours} saw nothing behind the first origin"
    )
    for horizon in horizons:
        bucket = _bucket(horizon)
        out.print()
        out.print(_table(result, ours, bucket, f"steps {bucket} ahead"))
        for ratio in result.ratios:
            if ratio.model == ours and ratio.bucket == bucket:
                against = ratio.against.replace("_", " ")
                named = f", {ratio.floor}" if ratio.floor and ratio.floor != ratio.against else ""
                out.print(
                    f"{ratio.score.upper()} of {ours} against the {against}{named}: {ratio.ratio:.3f} "
                    f"(geometric mean over {ratio.n_metrics} count metrics, below 1 is better)"
                )
    _tell_left_out(out, "note", result, ours, horizons)
    out.print()
    out.print(_costs_table(result))


def _tell_left_out(out: Console, whose: str, result: "BacktestResult", ours: str, horizons: list[int]) -> None:
    from forecasting.backtests.ratios import left_out_note  # noqa: PLC0415 - imports numpy

    buckets = [_bucket(horizon) for horizon in horizons]
    note = left_out_note(one for one in result.left_out if one.model == ours and one.bucket in buckets)
    if note:
        out.print(f"{whose}: {note}")


def _table(result: "BacktestResult", ours: str, bucket: str, title: str) -> Table:
    rows = {(row.metric, row.model): row for row in result.rows if row.bucket == bucket}
    floors = [model for model in result.timings if model != ours]
    naive = "seasonal_naive" in floors
    shown = (ours, "naive", "floor") if naive else (ours, "floor")
    table = Table(box=None, title=title, title_justify="left")
    table.add_column("metric", no_wrap=True)
    for score in ("MASE", "WQL"):
        for model in shown:
            table.add_column(f"{score}\n{model}", justify="right", no_wrap=True)
    for share in ("80 %", "95 %"):
        table.add_column(f"inside\n{share}", justify="right", no_wrap=True)
    table.add_column("best floor", overflow="fold")
    for metric in METRIC_NAMES:
        row = rows[metric, ours]
        cells, best = [], []
        for score in ("mase", "wql"):
            scored = {floor: getattr(rows[metric, floor], score) for floor in floors}
            defined = {floor: value for floor, value in scored.items() if not math.isnan(value)}
            best += [min(defined, key=lambda floor: defined[floor])] if defined else []
            cells.append(_score(getattr(row, score)))
            if naive:
                cells.append(_score(scored["seasonal_naive"]))
            cells.append(_score(min(defined.values(), default=math.nan)))
        shares = (f"{100 * share:.0f} %" for share in (row.coverage_80, row.coverage_95))
        table.add_row(metric, *cells, *shares, ", ".join(dict.fromkeys(best)))
    return table


def _costs_table(result: "BacktestResult") -> Table:
    days = {(row.model, row.metric): row for row in result.sums if row.period == "day"}
    table = Table(box=None, title="all steps of a window", title_justify="left")
    table.add_column("model", no_wrap=True)
    columns = ["update, ms", "forecast, ms", "memory, MB", *(["daily WAPE\nof events"] if days else [])]
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for model, timing in result.timings.items():
        cells = [_number(1e3 * timing.s_per_update), _number(1e3 * timing.s_per_rollout), _number(timing.peak_mb)]
        if days:
            cells.append(_score(days[model, "events"].wape_mean))
        table.add_row(model, *cells)
    return table


def _graphs_table(evaluation: "Evaluation", bucket: str) -> Table:
    ours = evaluation.forecaster
    table = Table(
        box=None, title=f"{ours}, steps {bucket} ahead, geometric means over count metrics", title_justify="left"
    )
    table.add_column("graph", no_wrap=True)
    against = list(dict.fromkeys(ratio.against for result in evaluation.results.values() for ratio in result.ratios))
    for score in ("MASE", "WQL"):
        for name in against:
            table.add_column(f"{score} against\n{name.replace('_', ' ')}", justify="right", no_wrap=True)
    table.add_column("best single floor", overflow="fold")
    for graph, result in evaluation.results.items():
        found = _by_reference(result.ratios, ours, bucket)
        if not found:
            continue  # its steps are of another size, and so its horizons
        cells = [
            _score(found[score, name].ratio if (score, name) in found else math.nan)
            for score in ("mase", "wql")
            for name in against
        ]
        best = dict.fromkeys(ratio.floor for (_, name), ratio in found.items() if name == "best_single_floor")
        table.add_row(graph, *cells, ", ".join(best))
    return table


def _models_table(found: "list[Ratio]", bucket: str, title: str) -> Table:
    shown = [ratio for ratio in found if ratio.bucket == bucket]
    against = list(dict.fromkeys(ratio.against for ratio in shown))
    table = Table(box=None, title=f"{title}, steps {bucket} ahead", title_justify="left")
    table.add_column("model", no_wrap=True)
    for score in ("MASE", "WQL"):
        for name in against:
            table.add_column(f"{score} against\n{name.replace('_', ' ')}", justify="right", no_wrap=True)
    for model in dict.fromkeys(ratio.model for ratio in shown):
        own = _by_reference(shown, model, bucket)
        table.add_row(model, *(_score(own[score, name].ratio) for score in ("mase", "wql") for name in against))
    return table


def _by_reference(found: "Iterable[Ratio]", model: str, bucket: str) -> "dict[tuple[str, str], Ratio]":
    return {(r.score, r.against): r for r in found if (r.model, r.bucket) == (model, bucket)}


def _bucket(horizon: int) -> str:
    return "1" if horizon == 1 else f"1-{horizon}"


def _score(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:,.1f}"
