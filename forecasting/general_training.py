"""Training of the general forecaster: the public logs and simulated networks in, checkpoint out."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from forecasting.general import DevelopmentLog, NamedSeries, development_logs, log_series, simulated_series
from forecasting.step_calibration import step_calibrations
from forecasting.training import RESUME_NAME, keep_trained, training_config, tuning_config
from infra.errors import ModelError, UsageError
from infra.settings import MAX_SEED, Settings
from infra.steps import HOUR_US, format_time
from models import checkpoint
from models.distributed import worker_number
from models.forecaster import ForecasterConfig
from models.optimisation import TrainingConfig, TrainingProgress
from models.ranks import structure_json
from models.seasons import season_steps
from models.training import train_series
from stream.sources.datasets import DATASETS

_NAME = "mamba2-general"
# Networks that calibration simulates, for each one of training.
_CALIBRATION_NETWORKS = 2
# Iterations between two validations, of which each has hundreds of series.
_TEACHER_VALIDATES_EVERY, _TAUGHT_VALIDATES_EVERY = 200, 100


def teacher_config(settings: Settings, number: int = 0) -> TrainingConfig:
    """Return how the settings ask to train a general forecaster from random weights, the `number`th of several."""
    return _general_config(
        settings, training_config(settings), settings.general.teacher_iterations, _TEACHER_VALIDATES_EVERY, number
    )


def taught_config(settings: Settings, number: int = 0) -> TrainingConfig:
    """Return how the settings ask to train one that learns from others, `number` of which were trained before it."""
    return _general_config(
        settings, tuning_config(settings), settings.general.iterations, _TAUGHT_VALIDATES_EVERY, number
    )


def _general_config(
    settings: Settings, config: TrainingConfig, iterations: int, validate_every: int, number: int
) -> TrainingConfig:
    return replace(
        config,
        budget_s=settings.general.budget_s,
        max_iterations=iterations,
        seed=(settings.training.seed + number) % (MAX_SEED + 1),
        validate_every=validate_every,
        # To the last iteration: what is kept is the best on the validation parts anyway.
        patience=iterations,
    )


@dataclass(frozen=True, slots=True)
class GeneralTraining:
    """A training of the general forecaster on the training parts of the public logs and on simulated networks.

    Attributes:
        folders: where the public logs are.
        folder: where the checkpoint goes, and the file from which a training that was killed goes on.
        forecaster, config: architecture and training.
        simulated: how many networks to simulate.
        exclude: public logs that it shall not see.
        teachers: general forecasters trained before. It begins as the first and learns from what they say in the
            mean, beside the data: what came of the luck of one training averages out.
    """

    folders: Sequence[Path]
    folder: Path
    forecaster: ForecasterConfig
    config: TrainingConfig
    simulated: int
    exclude: Sequence[str] = ()
    teachers: Sequence[checkpoint.Checkpoint] = ()

    def kept(self) -> checkpoint.Checkpoint | None:
        """Return the checkpoint in the folder if the same training made it."""
        try:
            found = checkpoint.load(self.folder)
        except ModelError:
            # Damaged, or from another version: it is made anew.
            return None
        if found is None or "compression" in found.card or found.card["name"] != _NAME:
            return None
        card, (*logs, networks) = found.card, found.card["data"]
        made_by = (card["architecture"], card["scores"]["training"], card["teachers"], networks["networks"])
        asked = (self.forecaster.as_json(), asdict(self.config), self._taught_by(), self.simulated)
        # The public logs are known by their digests: a name says which events.
        shown = [name for name in DATASETS if name not in self.exclude]
        return found if made_by == asked and [log["log"] for log in logs] == shown else None

    def run(self, on_progress: Callable[[TrainingProgress], None] | None = None) -> checkpoint.Checkpoint:
        """Train, and keep the checkpoint in the folder.

        Args:
            on_progress: called after every iteration.

        Raises:
            UsageError: a teacher has another architecture.
            InputError: a log is missing.
            ModelError: the checkpoint cannot be written.
        """
        for teacher in self.teachers:
            if teacher.net.config != self.forecaster:
                raise UsageError(
                    f"the teacher {teacher.digest[:16]} has the architecture {teacher.net.config}, "
                    f"not {self.forecaster}",
                    fix="train it again with the [forecaster] of now, or leave it out",
                )
        seed = self.config.seed
        logs, named = general_series(self.folders, simulated=self.simulated, seed=seed, exclude=self.exclude)
        trained = train_series(
            [one.series for one in named],
            self.forecaster,
            self.config,
            start=self.teachers[0].net if self.teachers else None,
            teachers=[teacher.net for teacher in self.teachers],
            resume_from=self.folder / RESUME_NAME,
            on_progress=on_progress,
        )
        # The first of several processes writes the card.
        networks = 0 if worker_number() else _CALIBRATION_NETWORKS * self.simulated
        calibrations = step_calibrations(trained.net, networks, seed=seed)
        card = {
            "name": _NAME,
            "teachers": self._taught_by(),
            **describe_logs(logs, named, self.simulated),
            "season_steps": season_steps(HOUR_US),
            "seed": seed,
            "scores": trained.scores(),
            "ranks": structure_json(trained.ranks),
            "calibration": trained.calibration.to_json(),
            "calibrations": calibrations.to_json(),
        }
        return keep_trained(self.folder, trained.net, card)

    def _taught_by(self) -> list[str]:
        return [teacher.digest for teacher in self.teachers]


def general_series(
    folders: Sequence[Path], *, simulated: int, seed: int, exclude: Sequence[str] = ()
) -> tuple[list[DevelopmentLog], list[NamedSeries]]:
    """Return the public logs, and the series that the general forecaster is trained on.

    Raises:
        InputError: a log is missing.
    """
    logs = list(development_logs(folders, exclude=exclude))
    named = [series for log in logs for series in log_series(log, seed=seed)]
    return logs, [*named, *simulated_series(simulated, seed=seed)]


def describe_logs(logs: Sequence[DevelopmentLog], named: Sequence[NamedSeries], simulated: int) -> dict[str, Any]:
    """Return what the card of a general model says about the data that it saw, as `general_series` gave it."""
    seen = [{"log": log.name, "events": len(log.training()), "until": format_time(log.train_until_us)} for log in logs]
    return {
        "data": [*seen, {"log": "simulated", "networks": simulated}],
        "series": len(named),
        "steps_us": sorted({one.series.history.step_us for one in named}),
    }
