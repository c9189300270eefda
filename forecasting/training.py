"""Training on the graphs of a store: history in, checkpoint out."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from forecasting.general import development_logs, log_series, simulated_series
from infra.settings import Settings
from infra.steps import HOUR_US, format_duration, format_time
from models import checkpoint, general_folder
from models.calibration import Calibration
from models.contract import History
from models.forecaster import ForecasterConfig, ForecasterNet, MambaForecaster
from models.optimisation import TrainingConfig, TrainingProgress
from models.ranks import structure_from_json, structure_json
from models.seasons import season_steps
from models.training import train, train_series

# What a training that was killed goes on from.
RESUME_NAME = "training.pt"


def checkpoint_folder(models: Path, graph: str) -> Path:
    """Return where the checkpoint of a graph is kept under the folder of models."""
    return models / graph


def forecaster_config(settings: Settings) -> ForecasterConfig:
    """Return the architecture that the settings ask for."""
    return ForecasterConfig(**settings.forecaster.model_dump())


def training_config(settings: Settings) -> TrainingConfig:
    """Return how the settings ask to train."""
    return TrainingConfig(**settings.training.model_dump())


def forecaster_of(found: checkpoint.Checkpoint) -> MambaForecaster:
    """Return the forecaster that a checkpoint holds."""
    card = found.card
    return MambaForecaster(
        found.net,
        structure_from_json(card["ranks"]),
        ranks_season=int(card["season_steps"]),
        calibration=Calibration.from_json(card["calibration"]),
        name=str(card["name"]),
    )


def general_net(forecaster: ForecasterConfig) -> ForecasterNet | None:
    """Return the weights of the general forecaster if they are of this architecture, else None.

    Raises:
        ModelError: its checkpoint is damaged.
    """
    found = checkpoint.load(general_folder())
    return None if found is None or found.net.config != forecaster else found.net


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


def train_general(
    folders: Sequence[Path],
    folder: Path,
    forecaster: ForecasterConfig,
    config: TrainingConfig,
    *,
    simulated: int,
    exclude: Sequence[str] = (),
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

    Raises:
        InputError: a log is missing.
        ModelError: the checkpoint cannot be written.
    """
    logs = list(development_logs(folders, exclude=exclude))
    named = [series for log in logs for series in log_series(log, seed=config.seed)]
    named += simulated_series(simulated, seed=config.seed)
    trained = train_series(
        [one.series for one in named],
        forecaster,
        config,
        resume_from=folder / RESUME_NAME,
        on_progress=on_progress,
        cancelled=cancelled,
    )
    card = {
        "name": "mamba2-general",
        "data": [
            {"log": log.name, "events": len(log.training()), "until": format_time(log.train_until_us)} for log in logs
        ]
        + [{"log": "simulated", "networks": simulated}],
        "series": len(named),
        "steps_us": sorted({one.series.history.step_us for one in named}),
        "season_steps": season_steps(HOUR_US),
        "seed": config.seed,
        "scores": trained.scores(),
        "ranks": structure_json(trained.ranks),
        "calibration": trained.calibration.to_json(),
    }
    return checkpoint.save(folder, trained.net, card)


def train_graph(
    history: History,
    graph: str,
    folder: Path,
    forecaster: ForecasterConfig,
    config: TrainingConfig,
    *,
    start: ForecasterNet | None = None,
    on_progress: Callable[[TrainingProgress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> checkpoint.Checkpoint:
    """Train a forecaster on one graph and save it in `folder`; a training that was killed goes on from there.

    Args:
        history: its steps.
        graph: its name.
        folder: where the checkpoint goes.
        forecaster, config: architecture and training.
        start: weights of the same architecture to start from, such as those of `general_net`.
        on_progress: called after every iteration.
        cancelled: asked after every iteration; True keeps the best so far.

    Raises:
        ModelError: the history is too short, or the checkpoint cannot be written.
    """
    trained = train(
        [history],
        forecaster,
        config,
        start=start,
        resume_from=folder / RESUME_NAME,
        on_progress=on_progress,
        cancelled=cancelled,
    )
    card = {
        "name": "mamba2",
        "data": [describe(history, graph)],
        "season_steps": season_steps(history.step_us),
        "seed": config.seed,
        "scores": trained.scores(),
        "ranks": structure_json(trained.ranks),
        "calibration": trained.calibration.to_json(),
    }
    return checkpoint.save(folder, trained.net, card)
