"""Trainings on a Ray cluster: one task a graph, whose checkpoint comes back to the driver, which keeps it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from forecasting.backtests.engine import Recipe, Training
from forecasting.scaleout.cluster import Cluster
from forecasting.scaleout.source import Seen, Source
from forecasting.training import train_graph
from models import checkpoint
from models.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class _Task:
    seen: Seen
    folder: Path


def train_all(
    cluster: Cluster,
    source: Source,
    trainings: Sequence[Training],
    recipe: Recipe,
    on_trained: Callable[[str, Checkpoint], None],
) -> None:
    """Train on all graphs; each checkpoint is kept when it comes, in any order.

    With a limit of iterations they are those of a training here; with one of time they depend on the workers' speed. A
    training whose worker is lost begins anew.

    Args:
        cluster: where.
        source: the store, which the workers read.
        trainings: of which graphs.
        recipe: how; with the weights that they go on from, it is sent to each node once.
        on_trained: given graph and checkpoint.

    Raises:
        GraphtideError: a training failed, or its checkpoint cannot be written.
    """

    def finish(task: _Task, made: Checkpoint) -> None:
        on_trained(task.seen.graph, checkpoint.save(task.folder, made.net, made.card))

    cluster.each(
        _train,
        (_Task(Seen.of(one.graph, one.past), one.folder) for one in trainings),
        finish,
        shared=(source, cluster.share(recipe)),
        named=lambda task: f"the training on {task.seen.graph}",
        gpus=int(recipe.config.device == "cuda"),
    )


def _train(task: _Task, source: Source, recipe: Recipe) -> Checkpoint:
    history, graph = task.seen.read(source), task.seen.graph
    with TemporaryDirectory(prefix="graphtide-training-") as folder:
        return train_graph(history, graph, Path(folder), recipe.forecaster, recipe.config, start=recipe.start)
