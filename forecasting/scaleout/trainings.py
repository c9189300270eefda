"""Trainings on a Ray cluster: one task a graph, whose checkpoint comes back to the driver, which keeps it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from forecasting.backtests.engine import Training
from forecasting.scaleout.cluster import Cluster
from forecasting.scaleout.source import Seen, Source
from forecasting.training import train_graph
from models import checkpoint
from models.checkpoint import Checkpoint
from models.forecaster import ForecasterConfig
from models.optimisation import TrainingConfig


@dataclass(frozen=True, slots=True)
class _Task:
    seen: Seen
    folder: Path


def train_all(
    cluster: Cluster,
    source: Source,
    trainings: Sequence[Training],
    forecaster: ForecasterConfig,
    config: TrainingConfig,
    start: Checkpoint | None,
    on_trained: Callable[[str, Checkpoint], None],
) -> None:
    """Train on all graphs; each checkpoint is kept when it comes, in any order.

    With a limit of iterations they are those of a training here; with one of time they depend on the workers' speed. A
    training whose worker is lost begins anew.

    Args:
        cluster: where.
        source: the store, which the workers read.
        trainings: of which graphs.
        forecaster, config: architecture and training.
        start: what they go on from, sent to each node once; random weights if None.
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
        shared=(source, forecaster, config, cluster.share(start)),
        named=lambda task: f"the training on {task.seen.graph}",
        gpus=int(config.device == "cuda"),
    )


def _train(
    task: _Task, source: Source, forecaster: ForecasterConfig, config: TrainingConfig, start: Checkpoint | None
) -> Checkpoint:
    history = task.seen.read(source)
    with TemporaryDirectory(prefix="graphtide-training-") as folder:
        return train_graph(history, task.seen.graph, Path(folder), forecaster, config, start=start)
