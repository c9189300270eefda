"""`graphtide backtest`: how good the forecaster would have been, beside the floors."""

import math
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from forecasting.cli.call import Call, console, interruptible, say
from forecasting.cli.progress import Phase
from forecasting.cli.store import OutputOption, StoreOption
from forecasting.cli.train import TrainingReport
from infra.schema import METRIC_NAMES
from infra.whole_file import whole_file

if TYPE_CHECKING:
    from forecasting.backtests.scores import BacktestResult
    from forecasting.evaluation import Evaluation


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(backtest)


def backtest(
    ctx: typer.Context,
    graph: Annotated[str, typer.Argument(help="Name of the graph.", show_default=False)],
    horizons: Annotated[str | None, typer.Option("--horizons", metavar="N,…", help="Steps ahead, 1 to 36500.")] = None,
    origins: Annotated[str | None, typer.Option("--origins", metavar="N", help="How many times to forecast.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as one JSON object.")] = False,
    output: OutputOption = None,
    store: StoreOption = None,
) -> None:
    """Forecast the latest part of a graph's history from rolling origins and score it against what came.

    The model is trained on the steps before the first origin alone. Below 1, MASE is better than the seasonal naive
    forecast was in that part; WQL is the weighted quantile loss; coverage should be near 80 and 95 %.

    Example: graphtide backtest mathoverflow --horizons 1,24,168
    """
    call: Call = ctx.obj
    settings = call.load(
        {
            "backtest.horizons": ("--horizons", horizons),
            "backtest.origins": ("--origins", origins),
            "store.url": ("--store", store),
        }
    ).values
    from forecasting.evaluation import evaluate  # noqa: PLC0415 - imports torch
    from forecasting.history import read_history  # noqa: PLC0415
    from stream.store import open_reader  # noqa: PLC0415

    with interruptible("Nothing was scored; run the same command again, a finished training is kept."):
        with open_reader(settings.store.url, settings.influxdb) as reader:
            history = read_history(reader, graph)
        with ExitStack() as shown:
            scoring = Phase(shown, f"Backtesting {graph}")
            evaluation = evaluate(
                history,
                graph,
                settings,
                on_training=TrainingReport(shown, f"Training on {graph} before the first origin"),
                on_progress=lambda done, total: scoring(done, total, "forecasts"),
            )
    text = _json(evaluation, graph)
    if output is not None:
        with whole_file(output) as temporary:
            temporary.write_text(text, encoding="utf-8")
        say(f"Wrote all scores to {output}")
    if as_json:
        sys.stdout.write(text)
    else:
        _show(evaluation, graph, list(settings.backtest.horizons))


def _json(evaluation: "Evaluation", graph: str) -> str:
    import msgspec  # noqa: PLC0415

    return msgspec.json.encode(evaluation.result.to_json(graph)).decode() + "\n"


def _show(evaluation: "Evaluation", graph: str, horizons: list[int]) -> None:
    result, ours = evaluation.result, evaluation.forecaster
    out = console()
    protocol = result.protocol
    out.print(
        f"{graph}: {protocol['origins']} origins from {protocol['first_origin']}, windows of "
        f"{protocol['window_steps']} steps of {protocol['step']}; {ours} saw nothing behind the first origin"
    )
    for horizon in horizons:
        bucket = "1" if horizon == 1 else f"1-{horizon}"
        out.print()
        out.print(_table(result, ours, bucket, f"steps {bucket} ahead"))
        for ratio in result.ratios:
            if ratio.model == ours and ratio.bucket == bucket:
                against = ratio.against.replace("_", " ")
                out.print(
                    f"{ratio.score.upper()} of {ours} against the {against}: {ratio.ratio:.3f} "
                    f"(geometric mean over {ratio.n_metrics} count metrics, below 1 is better)"
                )


def _table(result: "BacktestResult", ours: str, bucket: str, title: str) -> Table:
    from forecasting.backtests.ratios import REFERENCE  # noqa: PLC0415

    rows = {(row.metric, row.model): row for row in result.rows if row.bucket == bucket}
    floors = [model for model in result.timings if model != ours]
    table = Table(box=None, title=title, title_justify="left")
    table.add_column("metric", no_wrap=True)
    for score in ("MASE", "WQL"):
        for model in (ours, "naive", "floor"):
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
            cells += [
                _score(getattr(row, score)),
                _score(scored[REFERENCE]),
                _score(min(defined.values(), default=math.nan)),
            ]
        shares = (f"{100 * share:.0f} %" for share in (row.coverage_80, row.coverage_95))
        table.add_row(metric, *cells, *shares, ", ".join(dict.fromkeys(best)))
    return table


def _score(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
