"""`graphtide train --general`: the model that comes with the package, made anew from the public logs."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forecasting.cli.progress import Phase
from forecasting.cli.trainings import TrainingReport, say_once, tell_trained
from infra.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forecasting.general_training import GeneralTraining
    from infra.settings import Settings
    from models.checkpoint import Checkpoint
    from models.optimisation import TrainingProgress

SIMULATED_NETWORKS = 24
# Below the folder of the model that learns from them.
_TEACHERS_NAME = "teachers"


def excluded(names: str) -> list[str]:
    """Return the public logs that are left out.

    Raises:
        UsageError: there is no such log: a name with a mistake would let its log be learned from.
    """
    from stream.sources.datasets import DATASETS  # noqa: PLC0415

    found = [name.strip() for name in names.split(",") if name.strip()]
    for name in found:
        if name not in DATASETS:
            raise UsageError(
                f"there is no public log {name!r}", place="--exclude", fix=f"name one of {', '.join(DATASETS)}"
            )
    return found


def teachers_of(said: str) -> tuple[str | None, list[Path]]:
    """Return what `--teachers` says: how many to train, None where it does not say; or in which folders they are."""
    if not said or said.isdecimal():
        return said or None, []
    return "0", [Path(name) for name in said.split(",") if name]


def make_general(
    settings: "Settings",
    folder: Path,
    teachers: "Sequence[Path]",
    *,
    simulated: int | None,
    exclude: "Sequence[str]",
    restart: bool,
) -> dict[str, Any]:
    """Train the general model, and before it the teachers that the settings ask for; return its card.

    Args:
        settings: how.
        folder: where it goes, its teachers below it.
        teachers: where trained teachers are that it learns from.
        simulated: how many networks to simulate; None for the usual number.
        exclude: public logs that none of them shall see.
        restart: make all of them anew.

    Raises:
        UsageError: there is no model where a teacher should be, or it has another architecture.
        GraphtideError: as `forecasting.general_training.GeneralTraining.run`.
    """
    from forecasting.general_training import GeneralTraining, taught_config, teacher_config  # noqa: PLC0415 - torch
    from forecasting.resuming import forget  # noqa: PLC0415
    from forecasting.training import forecaster_config  # noqa: PLC0415

    count = settings.general.teachers
    alone = GeneralTraining(
        settings.data.folders(),
        folder,
        forecaster_config(settings),
        teacher_config(settings),
        SIMULATED_NETWORKS if simulated is None else simulated,
        tuple(exclude),
    )
    found = _loaded(teachers) or _trained_teachers(settings, alone, count, restart=restart)
    training = replace(alone, config=taught_config(settings, count), teachers=found) if found else alone
    kept = None if restart else training.kept()
    if kept is not None:
        say_once(f"the general model: up to date: the same training made {folder}")
        return kept.card
    if restart:
        forget(folder)
    with ExitStack() as shown:
        saved = training.run(TrainingReport(shown, "Training the general model"))
    tell_trained("the general model", saved.card, folder)
    return saved.card


def _loaded(places: "Sequence[Path]") -> "list[Checkpoint]":
    from models import checkpoint  # noqa: PLC0415 - imports torch

    found = []
    for place in places:
        teacher = checkpoint.load(place)
        if teacher is None:
            raise UsageError(f"there is no model in {place}", fix="graphtide train --general FOLDER makes one")
        found.append(teacher)
    return found


def _trained_teachers(
    settings: "Settings", alone: "GeneralTraining", count: int, *, restart: bool
) -> "list[Checkpoint]":
    """Return teachers, trained where they are not yet: side by side, or one after the other below torchrun.

    Args:
        settings: how they are trained.
        alone: the training that they do with seeds and folders of their own.
        count: how many.
        restart: make all of them anew.
    """
    from forecasting.general_training import teacher_config  # noqa: PLC0415 - imports torch
    from forecasting.resuming import forget  # noqa: PLC0415
    from forecasting.teachers import train_side_by_side  # noqa: PLC0415
    from infra.cores import allowed_cores  # noqa: PLC0415
    from models.distributed import n_workers, of_the_first, worker_number  # noqa: PLC0415

    trainings = []
    for number in range(count):
        config = teacher_config(settings, number)
        trainings.append(replace(alone, folder=alone.folder / _TEACHERS_NAME / f"seed-{config.seed}", config=config))
    missing = []
    for one in trainings:
        if not restart and one.kept() is not None:
            say_once(f"{_name(one.config.seed)}: up to date: the same training made {one.folder}")
            continue
        if restart:
            forget(one.folder)
        missing.append(one)
    workers = min(allowed_cores(), len(missing))
    if n_workers() == 1 and workers > 1:
        with ExitStack() as shown:
            train_side_by_side(missing, workers, _SideBySide(shown, len(missing)))
    else:
        for one in missing:
            with ExitStack() as shown:
                one.run(TrainingReport(shown, f"Training {_name(one.config.seed)}"))
    # Below torchrun the first process writes them; the others may be here before.
    found = of_the_first([] if worker_number() else _loaded([one.folder for one in trainings]))
    for one, teacher in zip(trainings, found, strict=True):
        if one in missing:
            tell_trained(_name(one.config.seed), teacher.card, one.folder)
    return found


def _name(seed: int) -> str:
    return f"the teacher of seed {seed}"


class _SideBySide:
    """Shows where several trainings stand together."""

    def __init__(self, shown: ExitStack, count: int) -> None:
        self._count = count
        self._phase = Phase(shown, f"Training {count} teachers")

    def __call__(self, states: "list[TrainingProgress]") -> None:
        elapsed_s = max(state.elapsed_s for state in states)
        done_share = sum(state.done_share for state in states) / self._count
        iterations = " and ".join(f"{state.iteration}" for state in states)
        losses = " and ".join(f"{state.validation_loss:.4f}" for state in states)
        text = f"s, iterations {iterations}, validation losses {losses}"
        self._phase(elapsed_s, elapsed_s / done_share if done_share else None, text)
