"""`graphtide demo`: from nothing to a page with forecasts, in one folder."""

import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from forecasting.cli.call import Call, console, interruptible, say
from forecasting.cli.progress import progress
from infra.errors import UsageError

if TYPE_CHECKING:
    from forecasting.demo import DemoResult
    from forecasting.reports.standing import Score, Standing

FOLDER = "graphtide-demo"
# With ingestion, scores and forecasts a few minutes on two slow cores.
BUDGET_S = "100"
YEARS = 4.0


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(demo)


def demo(
    ctx: typer.Context,
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", metavar="NAME", help="A public log instead: see graphtide datasets list."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help=f"Where everything goes; else {FOLDER}[-NAME]."),
    ] = None,
    years: Annotated[
        float | None, typer.Option("--years", metavar="N", help=f"Length of the simulated log; else {YEARS:g}.")
    ] = None,
    seed: Annotated[
        str, typer.Option("--seed", metavar="N", help="Seed of the simulation, the training and the forecasts.")
    ] = "0",
    budget_s: Annotated[
        str, typer.Option("--budget-s", "--budget", metavar="SECONDS", help="Time for the training.")
    ] = BUDGET_S,
) -> None:
    """Show the whole way: events, snapshots, a model scored against the floors, forecasts, and a page to look at.

    Simulates a social network by the hour, or takes a public log. Runs in a few minutes; a second run finds what the
    first left and is quick.

    Example: graphtide demo --dataset sx-mathoverflow
    """
    call: Call = ctx.obj
    if dataset is not None and years is not None:
        raise UsageError("--years is for the simulated network, not for a data set", fix="leave out one of the two")
    folder = output or Path(FOLDER if dataset is None else f"{FOLDER}-{dataset.lower()}")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output cannot be {folder}: it is no folder", fix="name a folder, there or not")
    from forecasting.demo import demo_settings, next_commands, run_demo  # noqa: PLC0415 - imports torch
    from forecasting.demo_data import public_data, simulated_data  # noqa: PLC0415

    settings = call.load(
        {
            **{key: ("--output", value) for key, value in demo_settings(folder).items()},
            "training.budget_s": ("--budget-s", budget_s),
            "training.seed": ("--seed", seed),
            "forecast.seed": ("--seed", seed),
        }
    ).values
    with interruptible("What was ingested and trained is kept; the same command goes on from there."):
        if dataset is None:
            data = simulated_data(YEARS if years is None else years, settings.training.seed)
        else:
            data = public_data(dataset, settings, progress)
        say(f"{data.about}, in {folder}")
        result = run_demo(data, folder, settings, stage=progress, say=say)
    _show(result)
    program = "graphtide" if shutil.which("graphtide") else shlex.quote(sys.argv[0])
    out = console()
    out.print("\nWritten", style="bold")
    for path in result.files:
        out.print(f"  {path}")
    out.print("\nTry next", style="bold")
    for what, command in next_commands(result.graph, folder, program):
        out.print(f"  # {what}\n  {command}")
    out.print(f"\nOpen {result.files[0].resolve()} in a browser.", style="bold")


def _show(result: "DemoResult") -> None:
    out = console()
    where = result.standing
    out.print("\nScores on steps that the model never saw; lower is better.")
    out.print("Geometric mean over all count metrics, seasonal naive = 1, * the best:")
    out.print(_by_model(where))
    out.print(f"\n{where.model} beside the floor that turned out best; coverage should be near 80 and 95 %:")
    out.print(_by_metric(where))
    for sentence in where.sentences():
        out.print(sentence)
    took = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in result.seconds.items())
    out.print(f"{sum(result.seconds.values()):.0f} s: {took}.")


def _by_model(where: "Standing") -> Table:
    table = Table(box=None)
    table.add_column("model", no_wrap=True)
    columns = [(horizon, score) for horizon in where.horizons for score in ("mase", "wql")]
    for horizon, score in columns:
        table.add_column(f"{score.upper()}\n{_steps(horizon)}", justify="right")
    for name in where.models:
        cells = [
            f"{where.ratios[name, horizon, score]:.3f}{'*' if where.best(horizon, score) == name else ' '}"
            for horizon, score in columns
        ]
        table.add_row(name, *cells)
    return table


def _by_metric(where: "Standing") -> Table:
    table = Table(box=None)
    table.add_column("metric", no_wrap=True)
    for title in ("steps", "MASE", "best floor", "WQL", "best floor", "in 80 %", "in 95 %", "better"):
        table.add_column(title, justify="left" if title == "better" else "right", no_wrap=True)
    for row in where.comparisons:
        verdict = {True: where.model, False: row.wql.floor_name, None: "-"}[row.wql.is_better]
        table.add_row(
            row.metric,
            _steps(row.horizon),
            *_score(row.mase),
            *_score(row.wql),
            f"{100 * row.coverage_80:.0f} %",
            f"{100 * row.coverage_95:.0f} %",
            verdict,
        )
    return table


def _steps(horizon: int) -> str:
    return "1" if horizon == 1 else f"1-{horizon}"


def _score(score: "Score") -> tuple[str, str]:
    return f"{score.model:.3f}", f"{score.floor:.3f} {score.floor_name}"
