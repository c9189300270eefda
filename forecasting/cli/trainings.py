"""How a training that runs is shown, and what is told of it when it is done."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forecasting.cli.call import say
from forecasting.cli.progress import Phase

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


def tell_trained(name: str, card: dict[str, Any], folder: Path) -> None:
    """Tell how a training went, and where its model is."""
    scores = card["scores"]
    gain = 1 - scores["validation_loss"] / scores["untrained_validation_loss"]
    workers = f" in {scores['workers']} processes" if scores["workers"] > 1 else ""
    seen = card["data"][0]
    # The general model has seen many logs.
    until = f"trained until {seen['until']}; " if "graph" in seen else ""
    say_once(
        f"{name}: {until}{scores['iterations']} iterations{workers}, stopped by {scores['stopped']}, "
        f"{scores['tokens_per_s']:,} steps a second; validation loss {scores['validation_loss']:.4f}, "
        f"{gain:.1%} below that at the start; kept in {folder}"
    )


def say_once(text: str) -> None:
    """Tell the user once, and not in each of the processes that train together."""
    from models.distributed import worker_number  # noqa: PLC0415

    if not worker_number():
        say(text)
