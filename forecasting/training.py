"""Training on the graphs of a store: history in, checkpoint out."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from forecasting.forms import use_new
from infra.errors import ModelError
from infra.settings import Settings
from infra.steps import HOUR_US, format_duration, format_time
from models import checkpoint, general_folder
from models.calibration import Calibration, Calibrations
from models.contract import History
from models.distributed import worker_number
from models.forecaster import ForecasterConfig, ForecasterNet, MambaForecaster
from models.optimisation import TrainingConfig, TrainingProgress
from models.ranks import structure_from_json, structure_json
from models.seasons import season_steps
from models.training import train

# What a training that was killed goes on from.
RESUME_NAME = "training.pt"


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


def keep_trained(folder: Path, net: ForecasterNet, card: dict[str, Any]) -> checkpoint.Checkpoint:
    """Put a trained model in its folder, and return it with its card."""
    # Processes that trained together hold the same weights; the first writes them.
    return checkpoint.Checkpoint(net, card) if worker_number() else use_new(folder, net, card)


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
    return keep_trained(folder, trained.net, card)
