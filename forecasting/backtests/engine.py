"""What trains the models of a backtest and makes its parts: the processes of this machine, or something of many."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from forecasting.backtests.workers import Task, run_tasks
from forecasting.training import train_graph
from infra.cores import allowed_cores
from models.checkpoint import Checkpoint
from models.contract import History
from models.forecaster import ForecasterConfig
from models.optimisation import TrainingConfig, TrainingProgress

# Told the graph and how its training goes.
OnTraining = Callable[[str, TrainingProgress], None]


@dataclass(frozen=True, slots=True)
class Training:
    """A forecaster that is to be trained.

    Attributes:
        graph: its name.
        past: the steps that it may see.
        folder: where the checkpoint is kept.
    """

    graph: str
    past: History
    folder: Path


@dataclass(frozen=True, slots=True)
class Recipe:
    """How forecasters are trained.

    Attributes:
        forecaster: their architecture.
        config: the training.
        start: what they go on from; random weights if None.
    """

    forecaster: ForecasterConfig
    config: TrainingConfig
    start: Checkpoint | None


class Engine(Protocol):
    """Trains and forecasts; what comes of it does not depend on which one does."""

    def train(
        self, trainings: Sequence[Training], recipe: Recipe, on_training: OnTraining | None
    ) -> dict[str, Checkpoint]:
        """Train, keep and return the forecasters by graph.

        Args:
            trainings: of which graphs.
            recipe: how.
            on_training: told how each goes.

        Raises:
            ModelError: a history is too short, or a checkpoint cannot be written.
        """
        ...

    def run(self, tasks: Sequence[Task], on_progress: Callable[[int], None]) -> None:
        """Make and keep all parts of the tasks; `on_progress` is told how many are done.

        Raises:
            GraphtideError: a model failed, a part cannot be kept, or a worker was lost.
        """
        ...


class LocalEngine:
    """The processes of this machine.

    Args:
        workers: how many forecast; 0 for one less than there are cores.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers or max(1, allowed_cores() - 1)

    def train(
        self, trainings: Sequence[Training], recipe: Recipe, on_training: OnTraining | None
    ) -> dict[str, Checkpoint]:
        """Train one after the other; each goes on from where it was killed."""
        made = {}
        for one in trainings:

            def tell(progress: TrainingProgress, graph: str = one.graph) -> None:
                if on_training is not None:
                    on_training(graph, progress)

            made[one.graph] = train_graph(
                one.past,
                one.graph,
                one.folder,
                recipe.forecaster,
                recipe.config,
                start=recipe.start,
                on_progress=tell,
            )
        return made

    def run(self, tasks: Sequence[Task], on_progress: Callable[[int], None]) -> None:
        """Make the parts in worker processes, or in this one if there is to be one."""
        run_tasks(tasks, self._workers, on_progress)
