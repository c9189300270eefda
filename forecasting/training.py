"""Training on the graphs of a store: history in, checkpoint out."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from forecasting.forms import use_new
from forecasting.general import DevelopmentLog, NamedSeries, development_logs, log_series, simulated_series
from forecasting.step_calibration import step_calibrations
from infra.errors import ModelError, UsageError
from infra.settings import MAX_SEED, Settings
from infra.steps import HOUR_US, format_duration, format_time
from models import checkpoint, general_folder
from models.calibration import Calibration, Calibrations
from models.contract import History
from models.distributed import worker_number
from models.forecaster import ForecasterConfig, ForecasterNet, MambaForecaster
from models.optimisation import TrainingConfig, TrainingProgress
from models.ranks import structure_from_json, structure_json
from models.seasons import season_steps
from models.training import train, train_series
from stream.sources.datasets import DATASETS

GENERAL_NAME = "mamba2-general"
# What a training that was killed goes on from.
RESUME_NAME = "training.pt"
# Networks that calibration simulates, for each one of training.
CALIBRATION_NETWORKS = 2
# Iterations between two validations of a general forecaster, which has hundreds of series to be validated on.
_TEACHER_VALIDATES_EVERY, _TAUGHT_VALIDATES_EVERY = 200, 100


def checkpoint_folder(models: Path, graph: str) -> Path:
    """Return where the checkpoint of a graph is kept under the folder of models."""
    return models / graph


def forecaster_config(settings: Settings) -> ForecasterConfig:
    """Return the architecture that the settings ask for."""
    return ForecasterConfig(**settings.forecaster.model_dump())


def training_config(settings: Settings) -> TrainingConfig:
    """Return how the settings ask to train from the beginning."""
    return TrainingConfig(**settings.training.model_dump(exclude={"tuning_rate"}))


def tuning_config(settings: Settings) -> TrainingConfig:
    """Return how the settings ask to train on from the general forecaster."""
    return replace(training_config(settings), learning_rate=settings.training.tuning_rate)


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


def forecaster_of(found: checkpoint.Checkpoint) -> MambaForecaster:
    """Return the forecaster that a checkpoint holds."""
    card = found.card
    season = int(card["season_steps"])
    return MambaForecaster(
        found.net,
        structure_from_json(card["ranks"], season),
        ranks_season=season,
        calibrations=_calibrations(card),
        name=str(card["name"]),
        precision=found.precision,
    )


def _calibrations(card: Mapping[str, Any]) -> Calibrations:
    # The general forecaster is validated by the hour first; what else there is was validated alone, and counts for all.
    others = Calibrations.from_json(card.get("calibrations", ()))
    return Calibrations({HOUR_US: Calibration.from_json(card["calibration"]), **others.by_step_us})


def general_start(forecaster: ForecasterConfig) -> checkpoint.Checkpoint | None:
    """Return the general forecaster if it is of this architecture, so that training can go on from it; else None.

    Raises:
        ModelError: its checkpoint is damaged.
    """
    found = checkpoint.load(general_folder())
    return None if found is None or found.net.config != forecaster else found


def start_of(settings: Settings, *, from_scratch: bool = False) -> tuple[checkpoint.Checkpoint | None, TrainingConfig]:
    """Return what the training of a graph goes on from, and how it is trained then.

    Raises:
        ModelError: the general forecaster is damaged.
    """
    start = None if from_scratch else general_start(forecaster_config(settings))
    return start, training_config(settings) if start is None else tuning_config(settings)


def kept_training(
    folder: Path,
    history: History,
    graph: str,
    forecaster: ForecasterConfig,
    config: TrainingConfig,
    start: checkpoint.Checkpoint | None,
) -> checkpoint.Checkpoint | None:
    """Return the checkpoint in `folder` if the same training on the same steps made it."""
    try:
        found = checkpoint.load(folder)
    except ModelError:
        # Damaged, or from another version: it is made anew.
        return None
    return found if found is not None and was_made_by(found, history, graph, forecaster, config, start) else None


def was_made_by(
    found: checkpoint.Checkpoint,
    history: History,
    graph: str,
    forecaster: ForecasterConfig,
    config: TrainingConfig,
    start: checkpoint.Checkpoint | None,
) -> bool:
    """Tell whether the same training on the same steps made a checkpoint; a smaller form was made of what it made."""
    card = found.card
    if "compression" in card:
        return False
    made_by = (card["data"], card["architecture"], card["scores"]["training"], card["started_from"])
    started_from = None if start is None else start.digest
    return made_by == ([describe(history, graph)], forecaster.as_json(), asdict(config), started_from)


def describe(history: History, graph: str) -> dict[str, Any]:
    """Return what a card says about the data that a model saw."""
    until_us = history.start_us + len(history) * history.step_us
    return {
        "graph": graph,
        "step": format_duration(history.step_us),
        "step_us": history.step_us,
        "first_step": format_time(history.start_us),
        "until": format_time(until_us),
        "until_us": until_us,
        "steps": len(history),
        "digest": hashlib.sha256(history.values.astype("<f8").tobytes()).hexdigest(),
    }


def describe_logs(logs: Sequence[DevelopmentLog], named: Sequence[NamedSeries], simulated: int) -> dict[str, Any]:
    """Return what the card of a general model says about the data that it saw, as `general_series` gave it."""
    seen = [{"log": log.name, "events": len(log.training()), "until": format_time(log.train_until_us)} for log in logs]
    return {
        "data": [*seen, {"log": "simulated", "networks": simulated}],
        "series": len(named),
        "steps_us": sorted({one.series.history.step_us for one in named}),
    }


def _kept(folder: Path, net: ForecasterNet, card: dict[str, Any]) -> checkpoint.Checkpoint:
    # Processes that trained together hold the same weights; the first writes them.
    return checkpoint.Checkpoint(net, card) if worker_number() else use_new(folder, net, card)


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


def kept_general(
    folder: Path,
    forecaster: ForecasterConfig,
    config: TrainingConfig,
    *,
    simulated: int,
    exclude: Sequence[str] = (),
    teachers: Sequence[checkpoint.Checkpoint] = (),
) -> checkpoint.Checkpoint | None:
    """Return the checkpoint in `folder` if the same training as this one of `train_general` made it."""
    try:
        found = checkpoint.load(folder)
    except ModelError:
        return None
    if found is None or "compression" in found.card or found.card["name"] != GENERAL_NAME:
        return None
    card = found.card
    made_by = (card["architecture"], card["scores"]["training"], card["teachers"], _networks_and_logs(card["data"]))
    # The public logs are known by their digests: a name says which events.
    logs = [name for name in DATASETS if name not in exclude]
    asked = (forecaster.as_json(), asdict(config), [teacher.digest for teacher in teachers], (simulated, logs))
    return found if made_by == asked else None


def _networks_and_logs(data: Sequence[Mapping[str, Any]]) -> tuple[int, list[str]]:
    return data[-1]["networks"], [seen["log"] for seen in data[:-1]]


def train_general(
    folders: Sequence[Path],
    folder: Path,
    forecaster: ForecasterConfig,
    config: TrainingConfig,
    *,
    simulated: int,
    exclude: Sequence[str] = (),
    teachers: Sequence[checkpoint.Checkpoint] = (),
    on_progress: Callable[[TrainingProgress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> checkpoint.Checkpoint:
    """Train the general forecaster on the training parts of the public logs and on simulated networks.

    Args:
        folders: where the public logs are.
        folder: where the checkpoint goes, and the file from which a training that was killed goes on.
        forecaster, config: architecture and training.
        simulated: how many networks to simulate.
        exclude: public logs that it shall not see.
        teachers: general forecasters trained before. It begins as the first and learns from what they say in the
            mean, beside the data: what came of the luck of one training averages out.

    Raises:
        UsageError: a teacher has another architecture.
        InputError: a log is missing.
        ModelError: the checkpoint cannot be written.
    """
    for teacher in teachers:
        if teacher.net.config != forecaster:
            raise UsageError(
                f"the teacher {teacher.digest[:16]} has the architecture {teacher.net.config}, not {forecaster}",
                fix="train it again with the [forecaster] of now, or leave it out",
            )
    logs, named = general_series(folders, simulated=simulated, seed=config.seed, exclude=exclude)
    trained = train_series(
        [one.series for one in named],
        forecaster,
        config,
        start=teachers[0].net if teachers else None,
        teachers=[teacher.net for teacher in teachers],
        resume_from=folder / RESUME_NAME,
        on_progress=on_progress,
        cancelled=cancelled,
    )
    # The first of several processes writes the card.
    networks = 0 if worker_number() else CALIBRATION_NETWORKS * simulated
    calibrations = step_calibrations(trained.net, networks, seed=config.seed)
    card = {
        "name": GENERAL_NAME,
        "teachers": [teacher.digest for teacher in teachers],
        **describe_logs(logs, named, simulated),
        "season_steps": season_steps(HOUR_US),
        "seed": config.seed,
        "scores": trained.scores(),
        "ranks": structure_json(trained.ranks),
        "calibration": trained.calibration.to_json(),
        "calibrations": calibrations.to_json(),
    }
    return _kept(folder, trained.net, card)


def train_graph(
    history: History,
    graph: str,
    folder: Path,
    forecaster: ForecasterConfig,
    config: TrainingConfig,
    *,
    start: checkpoint.Checkpoint | None = None,
    on_progress: Callable[[TrainingProgress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> checkpoint.Checkpoint:
    """Train a forecaster on one graph and save it in `folder`; a training that was killed goes on from there.

    Args:
        history: its steps.
        graph: its name.
        folder: where the checkpoint goes.
        forecaster, config: architecture and training.
        start: a forecaster of the same architecture to go on from, such as `general_start`; random weights if None.
        on_progress: called after every iteration.
        cancelled: asked after every iteration; True keeps the best so far.

    Raises:
        ModelError: the history is too short, or the checkpoint cannot be written.
    """
    trained = train(
        [history],
        forecaster,
        config,
        start=None if start is None else start.net,
        resume_from=folder / RESUME_NAME,
        on_progress=on_progress,
        cancelled=cancelled,
    )
    card = {
        "name": "mamba2",
        "data": [describe(history, graph)],
        "started_from": None if start is None else start.digest,
        "season_steps": season_steps(history.step_us),
        "seed": config.seed,
        "scores": trained.scores(),
        "ranks": structure_json(trained.ranks),
        "calibration": trained.calibration.to_json(),
    }
    return _kept(folder, trained.net, card)
