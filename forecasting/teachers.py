"""The teachers of a general forecaster: trainings that differ by their seed alone, side by side in processes."""

import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from forecasting.child_process import begin_child
from forecasting.general_training import GeneralTraining
from infra.errors import GraphtideError
from models.optimisation import TrainingProgress


def train_side_by_side(
    trainings: Sequence[GeneralTraining], workers: int, on_progress: Callable[[list[TrainingProgress]], None]
) -> None:
    """Do trainings in processes of their own, on a thread each.

    Args:
        trainings: what to do; each keeps its checkpoint when it is done.
        workers: how many processes at a time.
        on_progress: told where those stand that have begun.

    Raises:
        GraphtideError: a training failed, or its process was ended from outside.
    """
    context = multiprocessing.get_context("spawn")
    waiting = list(enumerate(trainings))
    running: dict[Connection, tuple[int, BaseProcess]] = {}
    seen: dict[int, TrainingProgress] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                number, training = waiting.pop(0)
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_train, args=(training, theirs))
                process.start()
                # Theirs alone holds it open, so that it ends with them.
                theirs.close()
                running[ours] = (number, process)
            for connection in wait(list(running)):
                assert isinstance(connection, Connection)
                number, done = running[connection]
                said = _said(connection, trainings[number])
                if said is None:
                    done.join()
                    del running[connection]
                else:
                    seen[number] = said
                    on_progress([seen[key] for key in sorted(seen)])
    finally:
        for _, left in running.values():
            left.terminate()
            left.join()


def _said(connection: Connection, training: GeneralTraining) -> TrainingProgress | None:
    """Return what a process says next, None where it is done.

    Raises:
        GraphtideError: its training failed, or it was ended from outside.
    """
    try:
        said = connection.recv()
    except EOFError:
        raise GraphtideError(
            f"the process that trained {training.folder} was ended from outside",
            fix="if memory ran out, run the command again: it goes on from the last validation; or set [general] "
            "teachers lower",
        ) from None
    if isinstance(said, Exception):
        raise said
    assert said is None or isinstance(said, TrainingProgress)
    return said


def _train(training: GeneralTraining, told: "Connection[TrainingProgress | Exception | None, None]") -> None:
    begin_child()
    try:
        training.run(told.send)
        told.send(None)
    except Exception as error:  # noqa: BLE001 - who waits for it raises it
        told.send(error)
