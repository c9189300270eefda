"""`graphtide forecast`: the next steps of a graph, as a table or a file."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from forecasting.cli.arguments import parse_metrics, parse_quantiles
from forecasting.cli.call import Call, console, interruptible, say
from forecasting.cli.progress import progress
from forecasting.cli.store import Format, FormatOption, MetricsOption, OutputOption, StoreOption, check_output
from infra.errors import UsageError
from infra.schema import METRIC_INDEX, QUANTILE_LEVELS
from infra.steps import format_duration, format_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from forecasting.engine import ForecastRun
    from models.contract import ForecastChunk, PathChunk

# Width of a step's column and of the metrics' names, in characters.
STEP_WIDTH, NAME_WIDTH = 27, 23
MAX_TABLE_STEPS = 6


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(forecast)


def forecast(
    ctx: typer.Context,
    graph: Annotated[str, typer.Argument(help="Name of the graph.", show_default=False)],
    horizon: Annotated[str | None, typer.Option("--horizon", metavar="N", help="Steps ahead, 1 to 36500.")] = None,
    metrics: MetricsOption = None,
    quantiles: Annotated[
        str | None,
        typer.Option("--quantiles", metavar="Q,…", help="Quantile levels to show, such as 0.1,0.5,0.9; else all."),
    ] = None,
    file_format: FormatOption = Format.TABLE,
    output: OutputOption = None,
    seed: Annotated[str | None, typer.Option("--seed", metavar="N", help="The same seed gives the same file.")] = None,
    paths: Annotated[
        str | None, typer.Option("--paths", metavar="N", help="Sample paths beside the quantiles, in a file; 0 to 100.")
    ] = None,
    store: StoreOption = None,
) -> None:
    """Forecast every metric of a graph: mean and quantiles of each of the next steps.

    The model trained on this graph answers, else the general one, which knows steps of 15m to 1d; else a floor. It says
    which and why. Nothing is trained: graphtide train does that.

    Example: graphtide forecast mathoverflow --horizon 36500 --format parquet --output out.parquet
    """
    call: Call = ctx.obj
    settings = call.load(
        {
            "forecast.horizon": ("--horizon", horizon),
            "forecast.seed": ("--seed", seed),
            "forecast.paths": ("--paths", paths),
            "store.url": ("--store", store),
        }
    ).values
    names, levels = parse_metrics(metrics), parse_quantiles(quantiles)
    check_output(file_format, output)
    if paths is not None and settings.forecast.paths > 0 and file_format is Format.TABLE:
        raise UsageError("--paths: a table does not show sample paths", fix="add --format csv, json or parquet")
    from forecasting.engine import Engine  # noqa: PLC0415 - imports torch

    horizon_steps = settings.forecast.horizon
    with (
        interruptible("Nothing was written; run the same command again."),
        Engine(settings) as engine,
    ):
        n_paths = 0 if file_format is Format.TABLE else settings.forecast.paths
        run = engine.forecast(graph, horizon_steps=horizon_steps, seed=settings.forecast.seed, n_paths=n_paths)
        for note in run.notes:
            say(f"note: {note}")
        if file_format is Format.TABLE:
            _show(run, horizon_steps, names)
        else:
            from forecasting.export import FileFormat, write_forecast  # noqa: PLC0415 - imports Arrow

            write_forecast(
                run,
                _reported(run, horizon_steps),
                output,
                FileFormat(file_format.value),
                horizon_steps=horizon_steps,
                seed=settings.forecast.seed,
                metrics=names,
                levels=levels,
            )
    if output is not None:
        say(f"Wrote {horizon_steps:,} steps of {len(names)} metrics by {run.model_name} to {output}")


def _reported(run: "ForecastRun", horizon_steps: int) -> "Iterator[PathChunk]":
    with progress(f"Forecasting {run.graph}") as report:
        for chunk in run.chunks:
            yield chunk
            report(chunk.first_step + len(chunk), horizon_steps, "steps")


def shown_steps(horizon_steps: int, most: int) -> list[int]:
    """Return at most `most` steps ahead, from the next to the last, each a multiple further away."""
    spread = [round(horizon_steps ** (index / (most - 1))) for index in range(most)]
    return sorted(set(spread))


def _show(run: "ForecastRun", horizon_steps: int, names: "Sequence[str]") -> None:
    out = console()
    wanted = shown_steps(horizon_steps, max(2, min(MAX_TABLE_STEPS, (out.width - NAME_WIDTH) // STEP_WIDTH)))
    cells: dict[int, list[str]] = {}
    for chunk in _reported(run, horizon_steps):
        for ahead in wanted:
            if chunk.first_step < ahead <= chunk.first_step + len(chunk):
                cells[ahead] = _column(chunk.forecast, ahead - 1 - chunk.first_step, names)
    table = Table(box=None, title=f"{run.graph} by {run.model_name}: median [80 % interval]", title_justify="left")
    table.add_column("metric", no_wrap=True)
    for ahead in wanted:
        start = format_time(run.first_step_us + (ahead - 1) * run.step_us)
        table.add_column(f"+{ahead}\n{start}", justify="right", no_wrap=True)
    for index, name in enumerate(names):
        table.add_row(name, *(cells[ahead][index] for ahead in wanted))
    out.print(table)
    if run.calibrated_until_step is not None:
        say(
            f"Found on {run.calibrated_on}: intervals hold up to step"
            f" {run.calibrated_until_step:,}, forecasts beat the climate up to step {run.skill_until_step:,}."
        )
    say(f"{horizon_steps:,} steps of {format_duration(run.step_us)}; all of them with --format csv, json or parquet.")


def _column(chunk: "ForecastChunk", row: int, names: "Sequence[str]") -> list[str]:
    low, middle, high = (QUANTILE_LEVELS.index(level) for level in (0.1, 0.5, 0.9))
    cells = []
    for name in names:
        values = chunk.quantiles[row, METRIC_INDEX[name]]
        cells.append(f"{_number(values[middle])} [{_number(values[low])}-{_number(values[high])}]")
    return cells


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
