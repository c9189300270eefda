"""`graphtide compress`: a smaller form of a model, used where a backtest says that it costs nothing."""

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forecasting.cli.call import Call, interruptible, say
from forecasting.cli.progress import Phase
from forecasting.cli.store import StoreOption
from forecasting.cli.trainings import TrainingReport
from infra.errors import ModelError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from forecasting.compression import Method
    from infra.settings import Settings
    from models.checkpoint import Checkpoint
    from models.sampling import TrainingSeries


# What a training that was killed goes on from; one of `graphtide train` has a file of its own.
_RESUME_NAME = "compression.pt"


class Weights(StrEnum):
    """What weights are stored and run in."""

    BF16 = "bf16"
    INT8 = "int8"


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(compress)


def compress(
    ctx: typer.Context,
    graph: Annotated[str | None, typer.Argument(help="Whose own model.", show_default=False)] = None,
    weights: Annotated[
        Weights | None, typer.Option("--weights", help="Store and run the weights in this.", show_default=False)
    ] = None,
    prune: Annotated[
        float, typer.Option("--prune", metavar="SHARE", help="Share of the parameters to prune.", show_default=False)
    ] = 0.0,
    distil: Annotated[
        bool, typer.Option("--distil", help="Train a student of half the layers; of half the width if there is one.")
    ] = False,
    general: Annotated[
        Path | None,
        typer.Option("--general", metavar="FOLDER", help="The general model instead; the smaller form goes to FOLDER."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Use it even if the backtest says that it costs accuracy.")
    ] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Let the full model answer again.")] = False,
    budget_s: Annotated[
        str | None, typer.Option("--budget", metavar="SECONDS", help="Time to train on; else [training] budget_s.")
    ] = None,
    iterations: Annotated[str | None, typer.Option("--iterations", metavar="N", help="At most; 0: no limit.")] = None,
    simulated: Annotated[int, typer.Option(help="With --general: networks to train on.", min=0, max=1000)] = 24,
    store: StoreOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the card as one JSON object.")] = False,
) -> None:
    """Make a smaller form of a model, and let it answer if it forecasts as well.

    It is compared with the full model on the latest part of the history, which neither learned from. Where its weighted
    quantile loss is higher by more than [compression] tolerance, nothing changes but with --force. The full model is
    kept: --undo brings it back.

    Example: graphtide compress town --weights int8

    Example: graphtide compress town --prune 0.5 --weights int8 --budget 300

    Example: graphtide compress town --undo
    """
    call: Call = ctx.obj
    settings = call.load(
        {
            "training.budget_s": ("--budget", budget_s),
            "training.max_iterations": ("--iterations", iterations),
            "store.url": ("--store", store),
        }
    ).values
    if (graph is None) == (general is None):
        raise UsageError(
            "compress needs a graph, or --general and a folder",
            fix="graphtide compress GRAPH --weights int8, or graphtide compress --general FOLDER --weights int8",
        )
    if undo:
        if graph is None or weights or prune or distil or force:
            raise UsageError("--undo goes with a graph alone", fix="graphtide compress GRAPH --undo")
        _undo(settings, graph)
        return
    from forecasting.compression import Method  # noqa: PLC0415 - imports torch

    method = Method(precision=weights or "fp32", prune_share=prune, distil=distil)
    with interruptible("The model that answered before still does; run it again to go on."):
        if graph is not None:
            target = _of_graph(settings, graph)
        else:
            # What is only rounded is not trained.
            target = _of_general(settings, Path(str(general)), simulated if method.trains else 0)
        found = _compress(settings, target, method, force=force)
    if as_json:
        import msgspec  # noqa: PLC0415

        sys.stdout.write(msgspec.json.encode(found.card).decode() + "\n")


def _undo(settings: "Settings", graph: str) -> None:
    from forecasting.forms import use_full  # noqa: PLC0415 - imports torch
    from forecasting.training import checkpoint_folder  # noqa: PLC0415

    folder = checkpoint_folder(settings.models.directory, graph)
    full = use_full(folder)
    if full is None:
        raise _no_model(graph, folder)
    say(f"{graph}: the full model {full.digest[:16]} answers again")


def _no_model(graph: str, folder: Path) -> ModelError:
    return ModelError(
        f"{graph!r} has no model of its own",
        place=str(folder),
        fix=f"train one: graphtide train {graph}; or compress the general one: graphtide compress --general FOLDER",
    )


@dataclass(frozen=True, slots=True)
class _Target:
    """A model to be made smaller, and what becomes of the smaller form.

    Attributes:
        name: whose model it is.
        full: the model.
        series: what a smaller architecture is trained on.
        judged: those of them on whose validation parts the two are compared.
        seen: what the card of a smaller architecture says about what it was trained on.
        folder: where the smaller form goes.
        use: puts it there, given what writes it.
    """

    name: str
    full: "Checkpoint"
    series: "Sequence[TrainingSeries]"
    judged: "Sequence[TrainingSeries]"
    seen: "Mapping[str, Any]"
    folder: Path
    use: "Callable[[Callable[[Path], Checkpoint]], Checkpoint]"


def _of_graph(settings: "Settings", graph: str) -> _Target:
    from forecasting.forms import full_model, use_smaller  # noqa: PLC0415 - imports torch
    from forecasting.history import read_history  # noqa: PLC0415
    from forecasting.training import checkpoint_folder, describe  # noqa: PLC0415
    from models.sampling import TrainingSeries  # noqa: PLC0415
    from models.training import check_trainable  # noqa: PLC0415
    from stream.store import open_reader  # noqa: PLC0415

    folder = checkpoint_folder(settings.models.directory, graph)
    with open_reader(settings.store.url, settings.influxdb) as reader:
        history = read_history(reader, graph)
    full = full_model(folder)
    if full is None:
        raise _no_model(graph, folder)
    check_trainable(history, place=f"graph {graph}")
    series = [TrainingSeries(history, validation_share=settings.training.validation_share)]
    seen = {"data": [describe(history, graph)], "seed": settings.training.seed}
    return _Target(graph, full, series, series, seen, folder, lambda write: use_smaller(folder, full, write))


def _of_general(settings: "Settings", folder: Path, simulated: int) -> _Target:
    from forecasting.general_training import describe_logs, general_series  # noqa: PLC0415 - imports torch
    from models import checkpoint, general_folder  # noqa: PLC0415

    full = checkpoint.load(general_folder())
    if full is None:
        raise ModelError("the general model is missing", place=str(general_folder()), fix="install graphtide again")
    logs, named = general_series(settings.data.folders(), simulated=simulated, seed=settings.training.seed)
    series = [one.series for one in named]
    judged = [one.series for one in named if one.log != "simulated"]
    seen = describe_logs(logs, named, simulated) | {"seed": settings.training.seed}
    return _Target("the general model", full, series, judged, seen, folder, lambda write: write(folder))


def _compress(settings: "Settings", target: _Target, method: "Method", *, force: bool) -> "Checkpoint":
    from forecasting.compression import compress as compressed  # noqa: PLC0415 - imports torch
    from forecasting.compression import judged_parts, shrunk  # noqa: PLC0415
    from forecasting.forms import standing  # noqa: PLC0415
    from forecasting.training import tuning_config  # noqa: PLC0415

    trained = None
    with ExitStack() as shown:
        if method.trains:
            weighing = Phase(shown, f"Choosing what is left of {target.name}")
            trained = shrunk(
                target.full,
                method,
                target.series,
                tuning_config(settings),
                resume_from=target.folder / _RESUME_NAME,
                on_weighed=lambda done, total: weighing(done, total, "architectures"),
                on_training=TrainingReport(shown, f"Training what is left of {target.name}"),
            )
        scoring = Phase(shown, "Comparing with the full model")
        said, write = compressed(
            target.full,
            method,
            trained,
            judged_parts(target.judged),
            tolerance=settings.compression.tolerance,
            most_windows=settings.compression.windows,
            seed=settings.forecast.seed,
            seen=target.seen,
            on_windows=lambda done, total: scoring(done, total, "forecasts"),
        )
    against = f"{standing(said.to_json())} ({said.windows} windows, {said.graphs} graphs)"
    if not said.holds and not force:
        raise ModelError(
            f"{target.name}, {method}: {against}; nothing was changed",
            fix="choose another form, or take it as it is with --force: its card and every forecast will say so",
        )
    found = target.use(write)
    sizes, parameters = found.card["compression"]["bytes"], found.card["compression"]["parameters"]
    say(
        f"{target.name}, {method}: {against}; {sizes[1]:,} bytes of weights for {sizes[0]:,}, "
        f"{parameters[1]:,} parameters for {parameters[0]:,}; kept in {target.folder}"
        + ("" if said.holds else "; forced")
    )
    return found
