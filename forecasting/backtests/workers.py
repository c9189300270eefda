"""Runs the parts of backtests that are not kept yet, in this process or in several.

A worker takes a few successive origins of one model on one graph and keeps each part when it is done, so that nothing
that was finished is lost however the run ends.
"""

import hashlib
import json
import math
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forecasting.backtests.kept import keep
from forecasting.backtests.parts import Part, run_parts
from forecasting.backtests.plan import Plan
from forecasting.child_process import begin_child
from forecasting.training import forecaster_of
from infra.errors import GraphtideError, ModelError
from models import checkpoint
from models.contract import History, Model
from models.floor_names import named_floors

POLL_S = 0.5
# So many shares of the work a worker; less would leave some idle at the end, more would fit models more often.
SHARES_A_WORKER = 3


@dataclass(frozen=True, slots=True)
class Entrant:
    """A model that takes part, so that another process can load it.

    Attributes:
        name: its name.
        digest: what makes it this model: `checkpoint_digest`, or a floor's libraries.
        folder: its checkpoint; None for a floor.
    """

    name: str
    digest: str
    folder: Path | None = None

    def load(self) -> Model[Any]:
        """Return the model.

        Raises:
            ModelError: its checkpoint is gone, or its library is not installed.
        """
        found = self.checkpoint()
        if found is None:
            (floor,) = named_floors([self.name])
            return floor
        return forecaster_of(found)

    def checkpoint(self) -> checkpoint.Checkpoint | None:
        """Return its checkpoint; None for a floor.

        Raises:
            ModelError: it is gone.
        """
        if self.folder is None:
            return None
        found = checkpoint.load(self.folder)
        if found is None or checkpoint_digest(found) != self.digest:
            raise ModelError(f"the model in {self.folder} was changed while it was backtested", fix="run it again")
        return found


def checkpoint_digest(found: checkpoint.Checkpoint) -> str:
    """Return a digest of all of a checkpoint that its forecasts depend on: the weights, and what the card adds."""
    added = {name: found.card[name] for name in ("name", "ranks", "season_steps", "calibration")}
    added["calibrations"] = found.card.get("calibrations")
    said = json.dumps([found.digest, found.precision, added], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Task:
    """Successive origins of one model on one graph.

    Attributes:
        paths: by number of the origin, where its part is kept.
    """

    graph: str
    history: History
    plan: Plan
    entrant: Entrant
    paths: dict[int, Path]


def shared_out(tasks: Sequence[Task], workers: int) -> list[Task]:
    """Return the tasks cut into runs of successive origins, so that each worker gets several."""
    cuts = 1 if workers == 1 or not tasks else math.ceil(SHARES_A_WORKER * workers / len(tasks))
    found = []
    for task in tasks:
        numbers = sorted(task.paths)
        size = math.ceil(len(numbers) / cuts)
        for begin in range(0, len(numbers), size):
            paths = {number: task.paths[number] for number in numbers[begin : begin + size]}
            found.append(Task(task.graph, task.history, task.plan, task.entrant, paths))
    return found


def run_tasks(tasks: Sequence[Task], workers: int, on_progress: Callable[[int], None]) -> None:
    """Make and keep all parts of the tasks.

    Args:
        tasks: what to do.
        workers: how many processes; 1 for this one.
        on_progress: called with how many parts are done.

    Raises:
        GraphtideError: a model failed, a part cannot be kept, or a worker was ended from outside.
    """
    if workers == 1 or not tasks:
        done = 0
        for task in tasks:
            before = done

            def count(parts: int, before: int = before) -> None:
                on_progress(before + parts)

            run_task(task, count)
            done += len(task.paths)
        return
    tasks = shared_out(tasks, workers)
    before_us = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(min(workers, len(tasks)), context, initializer=begin_child)
    try:
        _wait([executor.submit(run_task, task) for task in tasks], tasks, on_progress)
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - before_us:
            child.terminate()
            child.join()
        raise
    executor.shutdown()


def run_task(task: Task, on_parts: Callable[[int], None] | None = None) -> None:
    """Make and keep the parts of one task; `on_parts` is told how many are done.

    Raises:
        GraphtideError: the model failed or a part cannot be kept.
    """
    done = 0

    def finish(number: int, part: Part) -> None:
        nonlocal done
        keep(task.paths[number], part)
        done += 1
        if on_parts is not None:
            on_parts(done)

    try:
        run_parts(task.history, task.entrant.load(), task.plan, task.paths, finish)
    except GraphtideError as error:
        error.place = error.place or f"{task.entrant.name} on graph {task.graph}, after {done} of its origins here"
        raise


def _wait(futures: Sequence[Future[None]], tasks: Sequence[Task], on_progress: Callable[[int], None]) -> None:
    pending = set(futures)
    missing = {path for task in tasks for path in task.paths.values()}
    total = len(missing)
    while pending:
        finished, pending = wait(pending, timeout=POLL_S, return_when=FIRST_COMPLETED)
        missing = {path for path in missing if not path.exists()}
        on_progress(total - len(missing))
        for future in finished:
            try:
                future.result()
            except BrokenProcessPool as error:
                raise GraphtideError(
                    "a worker of the backtest was ended from outside",
                    fix="if memory ran out, take fewer --workers; what was finished is kept, so run the command again",
                ) from error
