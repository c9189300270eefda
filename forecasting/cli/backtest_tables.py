"""How `graphtide backtest` shows what it found, as tables."""

import math
from textwrap import wrap
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
    if len(evaluation.results) == 1:
        _show_one(out, evaluation, horizons)
        return
    for horizon in horizons:
        out.print(_graphs_table(evaluation, _bucket(horizon)))
        out.print()
    for horizon in horizons:
        out.print(_models_table(evaluation.summary(), _bucket(horizon), f"all {len(evaluation.results)} graphs"))
        out.print()
    _tell_models(out, evaluation)
    for graph, result in evaluation.results.items():
        _tell_notes(out, graph, result, evaluation.forecasters_of(graph), horizons)
    out.print("Scores by metric, calibration, daily sums and costs: --json or --html")


def _show_one(out: Console, evaluation: "Evaluation", horizons: list[int]) -> None:
    ((graph, result),) = evaluation.results.items()
    ours, protocol = evaluation.forecasters_of(graph), result.protocol
    out.print(
        f"{graph}: {protocol['origins']} origins from {protocol['first_origin']}, windows of "
        f"{protocol['window_steps']} steps of {protocol['step']}, until {protocol['until']}"
    )
    _tell_models(out, evaluation)
    for horizon in horizons:
        bucket = _bucket(horizon)
        out.print()
        out.print(_table(result, ours, bucket))
        out.print()
        out.print(_models_table(result.ratios, bucket, "geometric means over count metrics"))
    _tell_notes(out, "note", result, ours, horizons)
    out.print()
    out.print(_costs_table(result))


def _tell_models(out: Console, evaluation: "Evaluation") -> None:
    out.print("; ".join(f"{name} {how}" for name, how in evaluation.forecasters.items()))


def _tell_notes(out: Console, whose: str, result: "BacktestResult", ours: list[str], horizons: list[int]) -> None:
    from forecasting.backtests.ratios import left_out_note  # noqa: PLC0415 - imports numpy

    buckets = [_bucket(horizon) for horizon in horizons]
    left_out = left_out_note(one for one in result.left_out if one.model in ours and one.bucket in buckets)
    for note in [*result.notes, *([left_out] if left_out else [])]:
        out.print(f"{whose}: {note}")


def _table(result: "BacktestResult", ours: list[str], bucket: str) -> Table:
    rows = {(row.metric, row.model): row for row in result.rows if row.bucket == bucket}
    floors = result.floors
    naive = "seasonal_naive" in floors
    title = f"steps {bucket} ahead; observations inside intervals of {ours[0]}"
    table = Table(box=None, title=title, title_justify="left")
    table.add_column("metric", no_wrap=True)
    for score in ("MASE", "WQL"):
        for model in (*ours, *(["naive"] if naive else []), "floor"):
            table.add_column("\n".join([score, *model.split("-")]), justify="right", no_wrap=True)
    for share in ("80 %", "95 %"):
        table.add_column(f"inside\n{share}", justify="right", no_wrap=True)
    table.add_column("best floor", overflow="fold")
    for metric in METRIC_NAMES:
        row = rows[metric, ours[0]]
        cells: list[str] = []
        best: list[str] = []
        for score in ("mase", "wql"):
            scored = {floor: getattr(rows[metric, floor], score) for floor in floors}
            defined = {floor: value for floor, value in scored.items() if not math.isnan(value)}
            best += [min(defined, key=lambda floor: defined[floor])] if defined else []
            cells += [_score(getattr(rows[metric, model], score)) for model in ours]
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
    table = Table(box=None, title=f"steps {bucket} ahead, geometric means over count metrics", title_justify="left")
    table.add_column("graph", no_wrap=True)
    table.add_column("model", no_wrap=True)
    against = list(dict.fromkeys(ratio.against for result in evaluation.results.values() for ratio in result.ratios))
    _add_ratios(table, against)
    table.add_column("best single floor", overflow="fold")
    for graph, result in evaluation.results.items():
        for model in evaluation.forecasters_of(graph):
            found = _by_reference(result.ratios, model, bucket)
            if not found:
                continue  # its steps are of another size, and so its horizons
            cells = [
                _score(found[score, name].ratio if (score, name) in found else math.nan)
                for score in ("mase", "wql")
                for name in against
            ]
            best = dict.fromkeys(ratio.floor for (_, name), ratio in found.items() if name == "best_single_floor")
            table.add_row(graph, model, *cells, ", ".join(best))
    return table


def _models_table(found: "list[Ratio]", bucket: str, title: str) -> Table:
    shown = [ratio for ratio in found if ratio.bucket == bucket]
    against = list(dict.fromkeys(ratio.against for ratio in shown))
    table = Table(box=None, title=f"{title}, steps {bucket} ahead", title_justify="left")
    table.add_column("model", no_wrap=True)
    _add_ratios(table, against)
    # A model that was not trained on every graph is not compared on every graph.
    by_graphs = len({ratio.n_graphs for ratio in shown if ratio.score == "wql"} - {0}) > 1
    if by_graphs:
        table.add_column("graphs", justify="right", no_wrap=True)
    for model in dict.fromkeys(ratio.model for ratio in shown):
        own = _by_reference(shown, model, bucket)
        cells = [
            _score(own[score, name].ratio if (score, name) in own else math.nan)
            for score in ("mase", "wql")
            for name in against
        ]
        counts = [str(max(ratio.n_graphs for ratio in own.values()))] if by_graphs else []
        table.add_row(model, *cells, *counts)
    return table


def _add_ratios(table: Table, against: "Iterable[str]") -> None:
    for score in ("MASE", "WQL"):
        for name in against:
            head = "\n".join([f"{score} against", *wrap(name.replace("_", " "), 14)])
            table.add_column(head, justify="right", no_wrap=True)


def _by_reference(found: "Iterable[Ratio]", model: str, bucket: str) -> "dict[tuple[str, str], Ratio]":
    return {(r.score, r.against): r for r in found if (r.model, r.bucket) == (model, bucket)}


def _bucket(horizon: int) -> str:
    return "1" if horizon == 1 else f"1-{horizon}"


def _score(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:,.1f}"
