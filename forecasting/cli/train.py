"""`graphtide train`: a model for each graph named, or for all graphs of the store."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forecasting.cli.all_graphs import all_long_enough
from forecasting.cli.call import Call, interruptible
from forecasting.cli.engines import Engine, EngineOption, RayAddressOption, check_engine, ray_cluster
from forecasting.cli.general import SIMULATED_NETWORKS, excluded, make_general, teachers_of
from forecasting.cli.progress import progress
from forecasting.cli.store import StoreOption
from forecasting.cli.trainings import TrainingReport, say_once, tell_trained
from infra.errors import ModelError, UsageError
from infra.file_lock import file_lock_if_free

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forecasting.backtests.engine import Recipe, Training
    from infra.settings import Settings
    from models.checkpoint import Checkpoint
    from models.contract import History


# While a model of a graph is trained, beside its checkpoint.
_LOCK_NAME = ".training.lock"


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(train)


def train(
    ctx: typer.Context,
    graphs: Annotated[list[str] | None, typer.Argument(help="Names of graphs; else all.", show_default=False)] = None,
    budget_s: Annotated[
        str | None,
        typer.Option(
            "--budget",
            metavar="SECONDS",
            help="Time for each graph, or training of --general; else [training] or [general] budget_s.",
        ),
    ] = None,
    seed: Annotated[str | None, typer.Option("--seed", metavar="N", help="Seed of weights and samples.")] = None,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Start from random weights, not from the general model.")
    ] = False,
    general: Annotated[
        Path | None,
        typer.Option("--general", metavar="FOLDER", help="Train the general model on the public logs instead."),
    ] = None,
    iterations: Annotated[
        str | None,
        typer.Option(
            "--iterations",
            metavar="N",
            help="Of each training at most, else [training] or [general]; 0: no limit but time (not with --general).",
        ),
    ] = None,
    simulated: Annotated[
        int | None,
        typer.Option(
            help=f"With --general: networks to simulate; else {SIMULATED_NETWORKS}.",
            min=0,
            max=1000,
            show_default=False,
        ),
    ] = None,
    exclude: Annotated[str, typer.Option(metavar="LOG,…", help="With --general: logs that it shall not see.")] = "",
    teachers: Annotated[
        str,
        typer.Option(
            "--teachers",
            metavar="N|FOLDER,…",
            help="With --general: learn from so many models that are trained first, else [general] teachers; "
            "or from those in these folders.",
        ),
    ] = "",
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew with the newest steps, also where a training was killed.")
    ] = False,
    distributed: Annotated[bool, typer.Option("--distributed", help="Train in all processes of torchrun.")] = False,
    engine: EngineOption = Engine.LOCAL,
    ray_address: RayAddressOption = None,
    store: StoreOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the cards as one JSON array.")] = False,
) -> None:
    """Train a model on the history of each graph and keep it as the graph's checkpoint.

    Training goes on from the general model that comes with graphtide, and stops early when the latest part of the
    history, kept aside, is not forecast better any more. Killed, the same command goes on from the last validation,
    with the steps that it began with: those that have closed since are left to the next training. It begins anew, and
    says why, if late events have changed its steps, or if more than a tenth as many, or a season, have closed since. A
    model that the same training made of the same steps is left as it is; graphs whose models are the oldest come first.
    Graphs that are too young to learn from are left out, with a note, where none is named.

    With --general it makes the general model anew: teachers from random weights, whose seeds are --seed and those that
    follow it, side by side, then the model, with the seed behind theirs, which learns from them and the data. What is
    trained already is left as it is.

    Example: graphtide train mathoverflow --budget 120

    Example: graphtide train --general build/general
    """
    check_engine(engine, ray_address)
    if engine is Engine.RAY and (distributed or general is not None):
        raise UsageError(
            "--engine ray trains a model for each of many graphs, not one model in many processes",
            fix="leave out --distributed and --general, or --engine ray",
        )
    call: Call = ctx.obj
    settings = call.load(
        {
            **_limits(budget_s, iterations, general=general is not None),
            "training.seed": ("--seed", seed),
            "general.teachers": ("--teachers", teachers_of(teachers)[0]),
            "ray.address": ("--ray-address", ray_address),
            "store.url": ("--store", store),
        }
    ).values
    with ExitStack() as stack:
        stack.enter_context(
            interruptible("Checkpoints of graphs that were finished are kept, older ones stand; run it again to go on.")
        )
        if distributed:
            from models.distributed import training_together  # noqa: PLC0415 - imports torch

            stack.enter_context(training_together())
        for option, value in (("--teachers", teachers), ("--exclude", exclude), ("--simulated", simulated is not None)):
            if value and general is None:
                raise UsageError(
                    f"{option} goes with --general", fix="leave it out: a graph learns from its own history"
                )
        if general is not None:
            if graphs:
                raise UsageError("--general trains on the public logs, not on graphs", fix="leave the graphs out")
            _, taught_by = teachers_of(teachers)
            cards = [
                make_general(
                    settings, general, taught_by, simulated=simulated, exclude=excluded(exclude), restart=restart
                )
            ]
        else:
            cards = _graphs(settings, graphs, engine, from_scratch=from_scratch, restart=restart)
        if as_json:
            _print(cards)


def _limits(budget_s: str | None, iterations: str | None, *, general: bool) -> dict[str, tuple[str, object]]:
    """Return the settings that say when a training ends at the latest, as flags set them."""
    if general:
        named = ("general.iterations", "general.teacher_iterations")
        return {"general.budget_s": ("--budget", budget_s), **dict.fromkeys(named, ("--iterations", iterations))}
    return {"training.budget_s": ("--budget", budget_s), "training.max_iterations": ("--iterations", iterations)}


def _print(cards: list[dict[str, Any]]) -> None:
    """Print the cards once, and not in each of the processes that train together."""
    import msgspec  # noqa: PLC0415

    from models.distributed import worker_number  # noqa: PLC0415 - imports torch

    if not worker_number():
        sys.stdout.write(msgspec.json.encode(cards).decode() + "\n")


def _graphs(
    settings: "Settings", graphs: list[str] | None, engine: Engine, *, from_scratch: bool, restart: bool
) -> list[dict[str, Any]]:
    from forecasting.backtests.engine import Recipe  # noqa: PLC0415 - imports torch
    from forecasting.training import forecaster_config, start_of  # noqa: PLC0415
    from models.distributed import of_the_first  # noqa: PLC0415

    # All are looked up before the first training, which takes minutes.
    histories = of_the_first(_named(settings, graphs) if graphs else _long_enough(settings))
    start, config = start_of(settings, from_scratch=from_scratch)
    recipe = Recipe(forecaster_config(settings), config, start)
    with ExitStack() as held:
        folders = _folders(settings, histories, held, named=bool(graphs))
        resume = engine is not Engine.RAY
        cards, trainings = _trainings(histories, folders, recipe, restart=restart, resume=resume)
        if engine is not Engine.RAY:
            cards |= _here(trainings, recipe)
        elif trainings:
            cards |= _on_ray(settings, trainings, recipe)
    return [cards[name] for name in folders]


def _folders(settings: "Settings", histories: "dict[str, History]", held: ExitStack, *, named: bool) -> dict[str, Path]:
    """Return the folders of the graphs' checkpoints, for this process alone until `held` is closed.

    Raises:
        UsageError: another process trains a graph that was named.
        GraphtideError: a folder cannot be written to.
    """
    from forecasting.training import checkpoint_folder  # noqa: PLC0415 - imports torch
    from models.distributed import of_the_first, worker_number  # noqa: PLC0415

    found = {}
    for name in histories:
        folder = checkpoint_folder(settings.models.directory, name)
        # The first of the processes of torchrun holds it for all.
        if worker_number() == 0 and not held.enter_context(file_lock_if_free(folder / _LOCK_NAME)):
            if named:
                raise UsageError(
                    f"another process trains a model of graph {name} now",
                    place=str(folder),
                    fix="wait until it is done, or name other graphs",
                )
            say_once(f"{name}: left out: another process trains it now")
            continue
        found[name] = folder
    return of_the_first(found)


def _here(trainings: "Sequence[Training]", recipe: "Recipe") -> dict[str, dict[str, Any]]:
    from forecasting.training import train_graph  # noqa: PLC0415 - imports torch

    cards = {}
    for one in trainings:
        with ExitStack() as shown:
            saved = train_graph(
                one.past,
                one.graph,
                one.folder,
                recipe.forecaster,
                recipe.config,
                start=recipe.start,
                on_progress=TrainingReport(shown, f"Training on {one.graph}"),
            )
        cards[one.graph] = saved.card
        tell_trained(one.graph, saved.card, one.folder)
    return cards


def _trainings(
    histories: "dict[str, History]", folders: dict[str, Path], recipe: "Recipe", *, restart: bool, resume: bool
) -> "tuple[dict[str, dict[str, Any]], list[Training]]":
    """Return the cards of the graphs that are up to date, by graph, and the trainings of the others in their order."""
    from forecasting.backtests.engine import Training  # noqa: PLC0415 - imports torch
    from forecasting.resuming import Steps, forget, steps_to_train_on  # noqa: PLC0415
    from forecasting.training import kept_training  # noqa: PLC0415

    cards: dict[str, dict[str, Any]] = {}
    waiting: list[tuple[bool, int, Training]] = []
    made_by = recipe.forecaster, recipe.config, recipe.start
    for name, folder in folders.items():
        history = histories[name]
        kept = kept_training(folder, history, name, *made_by)
        if kept is not None and not restart:
            say_once(f"{name}: up to date: the same training on these {len(history):,} steps made {folder}")
            cards[name] = kept.card
            continue
        if restart:
            forget(folder)
        steps = steps_to_train_on(history, folder, *made_by) if resume else Steps(history)
        if steps.told:
            say_once(f"{name}: {steps.told}")
        waiting.append((not steps.goes_on, _trained_until_us(folder), Training(name, steps.history, folder)))
    # However often it is killed while steps close, it comes to every graph.
    waiting.sort(key=lambda one: one[:2])
    return cards, [training for _, _, training in waiting]


def _trained_until_us(folder: Path) -> int:
    """Return where the steps end that the model in a folder has seen; 0 where there is none that can be read."""
    from models import checkpoint  # noqa: PLC0415 - imports torch

    try:
        card = checkpoint.read_card(folder)
    except ModelError:
        return 0
    return 0 if card is None else int(card["data"][0].get("until_us", 0))


def _named(settings: "Settings", graphs: list[str]) -> "dict[str, History]":
    """Return the histories of these graphs.

    Raises:
        StoreError: a graph is not in the store, or none of its steps is closed yet.
        ModelError: a history is too short.
    """
    from forecasting.history import read_history  # noqa: PLC0415
    from models.training import check_trainable  # noqa: PLC0415 - imports torch
    from stream.store import open_reader  # noqa: PLC0415

    with open_reader(settings.store.url, settings.influxdb) as reader:
        histories = {name: read_history(reader, name) for name in dict.fromkeys(graphs)}
    for name, history in histories.items():
        check_trainable(history, place=f"graph {name}")
    return histories


def _long_enough(settings: "Settings") -> "dict[str, History]":
    from models.training import check_trainable  # noqa: PLC0415 - imports torch

    return all_long_enough(settings, "train on", lambda history, _graph: check_trainable(history), say_once)


def _on_ray(settings: "Settings", trainings: "Sequence[Training]", recipe: "Recipe") -> dict[str, dict[str, Any]]:
    from forecasting.resuming import forget  # noqa: PLC0415 - imports torch
    from forecasting.scaleout.source import Source  # noqa: PLC0415
    from forecasting.scaleout.trainings import train_all  # noqa: PLC0415

    folders = {one.graph: one.folder for one in trainings}
    cards: dict[str, dict[str, Any]] = {}
    with ray_cluster(settings) as cluster, progress(f"Training on {len(trainings)} graphs") as shown:

        def tell(graph: str, saved: "Checkpoint") -> None:
            cards[graph] = saved.card
            # Of what was killed here, nothing is left that is newer than this model.
            forget(folders[graph])
            tell_trained(graph, saved.card, folders[graph])
            shown(len(cards), len(trainings), "models trained")

        train_all(cluster, Source.of(settings), trainings, recipe, tell)
    return cards
