"""`graphtide backtest`: how good the forecaster would have been, beside the floors."""

import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forecasting.cli.all_graphs import all_long_enough
from forecasting.cli.backtest_tables import show
from forecasting.cli.call import Call, interruptible, say
from forecasting.cli.engines import Engine, EngineOption, RayAddressOption, check_engine, ray_cluster
from forecasting.cli.progress import Phase
from forecasting.cli.store import OutputOption, StoreOption
from forecasting.cli.trainings import TrainingReport
from infra.errors import UsageError
from infra.whole_file import refuse_unwritable, whole_file

if TYPE_CHECKING:
    from infra.settings import Settings
    from models.contract import History
    from models.optimisation import TrainingProgress

_AFTER = (
    "What was finished is kept, trainings and forecasts: run the same command again to go on until the same step, "
    "or with --restart to score until the newest."
)


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(backtest)


def backtest(
    ctx: typer.Context,
    graphs: Annotated[list[str] | None, typer.Argument(help="Names of graphs.", show_default=False)] = None,
    all_graphs: Annotated[bool, typer.Option("--all", help="All graphs of the store.")] = False,
    horizons: Annotated[
        str | None,
        typer.Option("--horizons", metavar="N,…", help="Steps ahead, 1 to 36500; else a step, a day, a week."),
    ] = None,
    origins: Annotated[
        str | None,
        typer.Option("--origins", metavar="N", help="How many times to forecast; else all that fit, up to 24."),
    ] = None,
    floors: Annotated[
        str | None, typer.Option("--floors", metavar="NAME,…", help="simple, all, or names such as lightgbm.")
    ] = None,
    workers: Annotated[
        str | None, typer.Option("--workers", metavar="N", help="Processes that forecast; 0 leaves one core free.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as one JSON object.")] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="PATH", help="Write a page with tables and charts.")
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew with the newest steps, also where a run was ended.")
    ] = False,
    output: OutputOption = None,
    engine: EngineOption = Engine.LOCAL,
    ray_address: RayAddressOption = None,
    store: StoreOption = None,
) -> None:
    """Forecast the latest part of each graph's history from rolling origins and score it against what came.

    mamba2 is trained on the steps before the first origin alone; mamba2-general comes with the package and answers for
    graphs without a model of their own. Of a graph too young for a training, mamba2-general is scored without mamba2.
    Below 1, MASE is better than the seasonal naive forecast was before the first origin; WQL is the weighted quantile
    loss; coverage should be near 80 and 95 %.

    A run that was ended goes on when the same command is run again, with the steps that it began with.

    Example: graphtide backtest mathoverflow --horizons 1,24,168

    Example: graphtide backtest --all --floors all --html scores.html

    Example: graphtide backtest --all --engine ray --ray-address head:6379
    """
    check_engine(engine, ray_address)
    call: Call = ctx.obj
    settings = call.load(
        {
            "backtest.horizons": ("--horizons", horizons),
            "backtest.origins": ("--origins", origins),
            "backtest.floors": ("--floors", floors),
            "ray.workers" if engine is Engine.RAY else "backtest.workers": ("--workers", workers),
            "ray.address": ("--ray-address", ray_address),
            "store.url": ("--store", store),
        }
    ).values
    if bool(graphs) == all_graphs:
        raise UsageError(
            "name the graphs to backtest or give --all, one of the two", fix="see which there are: graphtide graphs"
        )
    for path in filter(None, (output, html)):
        refuse_unwritable(path)
    from forecasting.evaluation import begun, evaluate  # noqa: PLC0415 - imports torch

    with interruptible(_AFTER):
        newest = _histories(graphs, settings)
        beginning = ctx.with_resource(begun(graphs or [], settings).alone())
        histories = newest if restart or beginning is None else beginning.seen(newest)
        _tell_older(histories, newest)
        with ExitStack() as working, ExitStack() as shown:
            training = Phase(shown, "Training before the first origins")
            scoring = Phase(shown, f"Backtesting {_named(list(histories))}")
            trainings: dict[str, TrainingReport] = {}

            def report_training(graph: str, progress: "TrainingProgress") -> None:
                if graph not in trainings:
                    trainings[graph] = TrainingReport(shown, f"Training on {graph} before the first origin")
                trainings[graph](progress)

            engines = None
            if engine is Engine.RAY:
                from forecasting.scaleout.backtests import RayEngine  # noqa: PLC0415
                from forecasting.scaleout.source import Source  # noqa: PLC0415

                cluster = working.enter_context(ray_cluster(settings))
                engines = RayEngine(
                    cluster, Source.of(settings), lambda done, total: training(done, total, "models trained")
                )
            evaluation = evaluate(
                histories,
                settings,
                on_training=report_training,
                on_progress=lambda done, total: scoring(done, total, "forecasts"),
                engine=engines,
                beginning=beginning,
            )
    reused, total = evaluation.reused
    if reused:
        say(f"{reused} of {total} forecasts were kept from an earlier run")
    text = _encode(evaluation.to_json())
    if output is not None:
        with whole_file(output) as temporary:
            temporary.write_text(text, encoding="utf-8")
        say(f"Wrote all scores to {output}")
    if html is not None:
        from forecasting.reports.backtest_page import render  # noqa: PLC0415

        with whole_file(html) as temporary:
            temporary.write_text(render(evaluation, histories), encoding="utf-8")
        say(f"Wrote the page to {html}")
    # Before the tables: whoever reads of these only the first lines has a backtest that ended.
    if beginning is not None:
        beginning.end()
    if as_json:
        sys.stdout.write(text)
    else:
        show(evaluation)


def _histories(graphs: list[str] | None, settings: "Settings") -> "dict[str, History]":
    """Return the histories of these graphs, or of all that are long enough.

    Raises:
        UsageError: one that was named is too short.
    """
    from forecasting.evaluation import make_graph_plan  # noqa: PLC0415 - imports torch
    from forecasting.history import read_history  # noqa: PLC0415
    from stream.store import open_reader  # noqa: PLC0415

    # All are looked up before the first training, which takes minutes.
    if not graphs:
        return all_long_enough(settings, "backtest", partial(make_graph_plan, settings=settings), say)
    with open_reader(settings.store.url, settings.influxdb) as reader:
        found = {name: read_history(reader, name) for name in dict.fromkeys(graphs)}
    for name, history in found.items():
        make_graph_plan(history, name, settings)
    return found


def _tell_older(histories: "dict[str, History]", newest: "dict[str, History]") -> None:
    """Tell which graphs are not scored until their newest step."""
    from infra.steps import format_time  # noqa: PLC0415

    for graph, history in histories.items():
        left = len(newest[graph]) - len(history)
        if left:
            until = format_time(history.start_us + len(history) * history.step_us)
            say(
                f"{graph}: goes on with a run that was ended, and scores until {until}; "
                f"--restart begins with the newest step ({left:,} more)"
            )


def _named(graphs: list[str]) -> str:
    return graphs[0] if len(graphs) == 1 else f"{len(graphs)} graphs"


def _encode(values: object) -> str:
    import msgspec  # noqa: PLC0415

    return msgspec.json.encode(values).decode() + "\n"
