"""`graphtide train`: a model for each graph named, or for all graphs of the store."""

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forecasting.cli.call import Call, interruptible, say
from forecasting.cli.progress import Phase
from forecasting.cli.store import StoreOption
from infra.errors import StoreError

if TYPE_CHECKING:
    from models.optimisation import TrainingProgress


class TrainingReport:
    """Shows the progress of a training from its first iteration on; closing `shown` ends the display."""

    def __init__(self, shown: ExitStack, title: str) -> None:
        self._phase = Phase(shown, title)

    def __call__(self, state: "TrainingProgress") -> None:
        """Show where the training stands."""
        budget_s = state.elapsed_s / state.done_share if state.done_share else None
        text = f"s, iteration {state.iteration}, validation loss {state.validation_loss:.4f}"
        self._phase(state.elapsed_s, budget_s, text)


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(train)


def train(
    ctx: typer.Context,
    graphs: Annotated[list[str] | None, typer.Argument(help="Names of graphs; else all.", show_default=False)] = None,
    budget_s: Annotated[
        str | None, typer.Option("--budget", metavar="SECONDS", help="Time for each graph; else [training] budget_s.")
    ] = None,
    seed: Annotated[str | None, typer.Option("--seed", metavar="N", help="Seed of weights and samples.")] = None,
    store: StoreOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the cards as one JSON array.")] = False,
) -> None:
    """Train a model on the history of each graph and keep it as the graph's checkpoint.

    Stops early when the latest part of the history, kept aside, is not forecast better any more.

    Example: graphtide train mathoverflow --budget 120
    """
    call: Call = ctx.obj
    settings = call.load(
        {
            "training.budget_s": ("--budget", budget_s),
            "training.seed": ("--seed", seed),
            "store.url": ("--store", store),
        }
    ).values
    from forecasting.history import read_history  # noqa: PLC0415 - imports torch
    from forecasting.training import (  # noqa: PLC0415
        checkpoint_folder,
        forecaster_config,
        train_graph,
        training_config,
    )
    from stream.store import open_reader  # noqa: PLC0415

    cards: list[dict[str, Any]] = []
    with (
        interruptible("Checkpoints of graphs that were finished are kept, older ones stand; run it again to go on."),
        open_reader(settings.store.url, settings.influxdb) as reader,
    ):
        names = graphs or [info.name for info in reader.graphs()]
        if not names:
            raise StoreError("the store has no graph to train on", fix="ingest events first: graphtide ingest")
        # All are looked up before the first training, which takes minutes.
        histories = {name: read_history(reader, name) for name in dict.fromkeys(names)}
        for name, history in histories.items():
            folder = checkpoint_folder(settings.models.directory, name)
            with ExitStack() as shown:
                saved = train_graph(
                    history,
                    name,
                    folder,
                    forecaster_config(settings),
                    training_config(settings),
                    on_progress=TrainingReport(shown, f"Training on {name}"),
                )
            cards.append(saved.card)
            scores = saved.card["scores"]
            gain = 1 - scores["validation_loss"] / scores["untrained_validation_loss"]
            say(
                f"{name}: {scores['iterations']} iterations, stopped by {scores['stopped']}; "
                f"validation loss {scores['validation_loss']:.4f}, {gain:.1%} below the untrained; kept in {folder}"
            )
    if as_json:
        import msgspec  # noqa: PLC0415

        sys.stdout.write(msgspec.json.encode(cards).decode() + "\n")
