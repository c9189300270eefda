"""Backtests on a Ray cluster: a graph, or some origins of one model on it, is a task; parts come back and are kept."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from forecasting.backtests.engine import OnTraining, Recipe, Training
from forecasting.backtests.kept import keep, packed
from forecasting.backtests.parts import run_parts
from forecasting.backtests.plan import Plan
from forecasting.backtests.workers import SHARES_A_WORKER, Entrant, Task, shared_out
from forecasting.scaleout.cluster import Cluster
from forecasting.scaleout.source import Seen, Source
from forecasting.scaleout.trainings import train_all
from forecasting.training import forecaster_of
from infra.errors import GraphtideError
from models.checkpoint import Checkpoint
from models.contract import History

# Told how many trainings are done, and of how many.
OnTrained = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class _Runs:
    """What one task does: runs of origins of models on one graph.

    Attributes:
        seen: the graph.
        plan: its backtest.
        runs: model, its checkpoint if it has one, and the numbers of its origins.
    """

    seen: Seen
    plan: Plan
    runs: tuple[tuple[Entrant, Checkpoint | None, tuple[int, ...]], ...]


class RayEngine:
    """Workers of a Ray cluster, which read the store themselves.

    Args:
        cluster: where.
        source: the store.
        on_trained: told how many trainings are done.
    """

    def __init__(self, cluster: Cluster, source: Source, on_trained: OnTrained) -> None:
        self._cluster = cluster
        self._source = source
        self._on_trained = on_trained

    def train(
        self, trainings: Sequence[Training], recipe: Recipe, on_training: OnTraining | None
    ) -> dict[str, Checkpoint]:
        """Train on all graphs at once; see `train_all`. Workers tell when they are done, and nothing before."""
        made: dict[str, Checkpoint] = {}

        def count(graph: str, found: Checkpoint) -> None:
            made[graph] = found
            self._on_trained(len(made), len(trainings))

        train_all(self._cluster, self._source, trainings, recipe, count)
        return made

    def run(self, tasks: Sequence[Task], on_progress: Callable[[int], None]) -> None:
        """Make the parts on the cluster and keep each here when it comes, so that an ended run goes on from them."""
        done = 0
        paths = {(task.graph, task.entrant.name, n): path for task in tasks for n, path in task.paths.items()}

        def finish(runs: _Runs, parts: list[tuple[str, int, bytes]]) -> None:
            nonlocal done
            for model, number, part in parts:
                keep(paths[runs.seen.graph, model, number], part)
            done += len(parts)
            on_progress(done)

        self._cluster.each(
            _run,
            (_runs(group) for group in _grouped(tasks, self._cluster.cores())),
            finish,
            shared=(self._source,),
            named=lambda runs: f"the backtest of {runs.seen.graph}",
        )


def _grouped(tasks: Sequence[Task], cores: int) -> list[list[Task]]:
    """Return the tasks by graph, so that its history is read once; cut finer where there are few graphs."""
    by_graph: dict[str, list[Task]] = {}
    for task in tasks:
        by_graph.setdefault(task.graph, []).append(task)
    if len(by_graph) >= SHARES_A_WORKER * cores:
        return list(by_graph.values())
    return [[task] for task in shared_out(tasks, cores)]


def _runs(tasks: Sequence[Task]) -> _Runs:
    first = tasks[0]
    return _Runs(
        seen=Seen.of(first.graph, first.history),
        plan=first.plan,
        runs=tuple((task.entrant, task.entrant.checkpoint(), tuple(task.paths)) for task in tasks),
    )


def _run(runs: _Runs, source: Source) -> list[tuple[str, int, bytes]]:
    history = runs.seen.read(source)
    return [part for run in runs.runs for part in _parts(history, runs, *run)]


def _parts(
    history: History, runs: _Runs, entrant: Entrant, found: Checkpoint | None, numbers: tuple[int, ...]
) -> list[tuple[str, int, bytes]]:
    # Packed there: where one process keeps what many workers make, its time is what they wait for.
    made: list[tuple[str, int, bytes]] = []
    model = entrant.load() if found is None else forecaster_of(found)
    try:
        run_parts(
            history,
            model,
            runs.plan,
            numbers,
            lambda number, part: made.append((entrant.name, number, packed(part))),
        )
    except GraphtideError as error:
        error.place = error.place or f"{entrant.name} on graph {runs.seen.graph}, after {len(made)} of its origins here"
        raise
    return made
