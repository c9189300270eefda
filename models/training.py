"""Training of the forecaster: quantile loss on forecasts from many origins, early stopping on the latest history."""

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from infra.errors import ModelError
from infra.steps import WEEK_US
from models.calibration import Calibration
from models.conformal import fit_calibration
from models.contract import History
from models.distributed import n_workers
from models.forecaster import ForecasterConfig, ForecasterNet
from models.losses import batch_loss, batch_quantiles
from models.optimisation import Optimisation, TrainingConfig, TrainingProgress, fingerprint
from models.paths import RankStructure
from models.ranks import fit_structure, rank_scores
from models.samples import Batch
from models.sampling import Sampler, TrainingSeries
from models.seasons import season_steps
from models.unfinished import MadeOf

# A graph needs this many seasons before anything can be learned that a floor does not know.
MIN_SEASONS = 4


@dataclass(frozen=True, slots=True)
class TrainedForecaster:
    """The best weights of a training and what is known about them.

    Attributes:
        net: the weights, in evaluation mode.
        validation_loss, untrained_loss: quantile loss on the validation part, of `net` and of the net before training.
        stopped: why the training ended.
        ranks: how the errors hang together in time and across metrics, measured on the validation part.
        calibration: of the forecasts on the validation part.
        tokens_per_s: steps ahead that it learned from, a second.
        workers: processes that trained together.
    """

    net: ForecasterNet
    iterations: int
    validation_loss: float
    untrained_loss: float
    stopped: str
    elapsed_s: float
    config: TrainingConfig
    ranks: RankStructure
    calibration: Calibration
    tokens_per_s: float
    workers: int

    def scores(self) -> dict[str, Any]:
        """Return what the card of a checkpoint says about the training."""
        return {
            "validation_loss": self.validation_loss,
            "untrained_validation_loss": self.untrained_loss,
            "iterations": self.iterations,
            "stopped": self.stopped,
            "elapsed_s": round(self.elapsed_s, 1),
            "tokens_per_s": round(self.tokens_per_s),
            "workers": self.workers,
            "training": asdict(self.config),
        }


def check_trainable(history: History, *, place: str | None = None) -> None:
    """Make sure that a history is long enough to learn from.

    Args:
        history: the steps.
        place: what the error names as the place, where there are several histories.

    Raises:
        ModelError: it is shorter than `MIN_SEASONS` seasons; a floor should answer instead.
    """
    season = season_steps(history.step_us)
    if len(history) < MIN_SEASONS * season:
        # From a week on a season is a year; below it is a week, which shorter steps would take as long to see.
        sooner = ", or use a step below a week" if history.step_us >= WEEK_US else ""
        raise ModelError(
            f"a history of {len(history)} steps is too short to train on",
            place=place,
            fix=f"wait for {MIN_SEASONS * season} steps ({MIN_SEASONS} seasons of {season}){sooner}",
        )


def train(
    histories: Sequence[History],
    forecaster: ForecasterConfig,
    config: TrainingConfig,
    *,
    start: ForecasterNet | None = None,
    teachers: Sequence[ForecasterNet] = (),
    resume_from: Path | None = None,
    on_progress: Callable[[TrainingProgress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> TrainedForecaster:
    """Train a forecaster on one or more graphs alike; `train_series` tells the rest.

    Raises:
        ModelError: no history, one too short, or the loss is not finite.
    """
    for history in histories:
        check_trainable(history)
    return train_series(
        series_of(histories, config),
        forecaster,
        config,
        start=start,
        teachers=teachers,
        resume_from=resume_from,
        on_progress=on_progress,
        cancelled=cancelled,
    )


def series_of(histories: Sequence[History], config: TrainingConfig) -> list[TrainingSeries]:
    """Return what `train` makes of histories."""
    return [TrainingSeries(history, validation_share=config.validation_share) for history in histories]


def train_series(
    series: Sequence[TrainingSeries],
    forecaster: ForecasterConfig,
    config: TrainingConfig,
    *,
    start: ForecasterNet | None = None,
    teachers: Sequence[ForecasterNet] = (),
    resume_from: Path | None = None,
    on_progress: Callable[[TrainingProgress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> TrainedForecaster:
    """Train a forecaster on series of any length and weight.

    Args:
        series: one of them at least has a validation part.
        forecaster: the architecture.
        config: how to train.
        start: weights to start from; the seed's if None.
        teachers: nets whose forecasts it learns from beside the data, see `models.distillation`.
        resume_from: a file that the training is written to at every validation, and goes on from if it is there. It
            is removed at the end.
        on_progress: called after every iteration.
        cancelled: asked after every iteration; True ends the training with the best weights so far.

    Raises:
        ModelError: there is nothing to train on or to validate with, or the loss is not finite.
        GraphtideError: the file to resume from cannot be written.
    """
    if not any(one.validation_share > 0 for one in series):
        raise ModelError("no history to train on", fix="ingest a log first")
    started_s = time.monotonic()
    net = ForecasterNet(forecaster, seed=config.seed)
    if start is not None:
        net.load_state_dict(start.state_dict())
    sampler = Sampler(
        series, reach_steps=forecaster.reach_steps, tokens_per_batch=config.tokens_per_batch, seed=config.seed
    )
    if config.max_iterations or n_workers() > 1:
        # A fixed number of iterations promises equal trainings, and the order of sums hangs on the threads. Processes
        # that train together have a core each.
        torch.set_num_threads(1)
    elif config.torch_device().type == "cpu":
        set_faster_threads(net, sampler.draw(0))
    loop = Optimisation(net, sampler, config, started_s, teachers=teachers)
    if resume_from is not None:
        made = made_of(series, forecaster, config, start=start, teachers=teachers)
        loop.resume(resume_from, made)
    while not loop.stopped:
        loop.iterate()
        if on_progress is not None:
            on_progress(loop.progress())
        if resume_from is not None and loop.iteration % config.validate_every == 0:
            loop.save(resume_from, made)
        if cancelled is not None and cancelled():
            loop.stopped = "cancelled"
    progress = loop.progress()
    best, validation = loop.best(), sampler.validation()
    trained = TrainedForecaster(
        net=best,
        iterations=loop.iteration,
        validation_loss=loop.best_loss,
        untrained_loss=loop.untrained_loss,
        stopped=loop.stopped,
        elapsed_s=progress.elapsed_s,
        config=config,
        ranks=_fit_ranks(best, validation, sampler.season),
        calibration=fit_calibration(best, validation),
        tokens_per_s=progress.tokens_per_s,
        workers=n_workers(),
    )
    if resume_from is not None and loop.stopped != "cancelled":
        resume_from.unlink(missing_ok=True)
    return trained


def made_of(
    series: Sequence[TrainingSeries],
    forecaster: ForecasterConfig,
    config: TrainingConfig,
    *,
    start: ForecasterNet | None = None,
    teachers: Sequence[ForecasterNet] = (),
) -> MadeOf:
    """Return what tells a training of `train_series` from every other."""
    return MadeOf(
        options=fingerprint(config, forecaster.as_json(), _digest_of(start), *map(_digest_of, teachers)),
        data=_digest(series),
        until_us=max(one.history.start_us + len(one.history) * one.history.step_us for one in series),
    )


def set_faster_threads(net: ForecasterNet, batch: Batch) -> None:
    """Let torch use one thread if all of them are no faster, as they are not on cores that others use too."""
    threads = torch.get_num_threads()
    best_s: dict[int, float] = {}
    for _ in range(2):
        for count in {1, threads}:
            torch.set_num_threads(count)
            started = time.perf_counter()
            batch_loss(net, batch).backward()
            best_s[count] = min(best_s.get(count, math.inf), time.perf_counter() - started)
    net.zero_grad(set_to_none=True)
    torch.set_num_threads(min(best_s, key=lambda count: best_s[count]))


def _fit_ranks(net: ForecasterNet, batches: list[Batch], season: int) -> RankStructure:
    """Return the rank structure of the errors over the longest horizon that has several forecasts."""
    forecasts: dict[int, int] = {}
    for batch in batches:
        horizon = batch.target_NHM.shape[1]
        forecasts[horizon] = forecasts.get(horizon, 0) + len(batch.target_NHM)
    several = [horizon for horizon, count in forecasts.items() if count >= 4]
    chosen = max(several or forecasts)
    scores = []
    with torch.inference_mode():
        for batch in batches:
            if batch.target_NHM.shape[1] == chosen:
                quantiles = torch.maximum(batch_quantiles(net, batch), batch.low_NHM.unsqueeze(-1))
                scores.append(rank_scores(quantiles.double().numpy(), batch.target_NHM.double().numpy()))
    return fit_structure(np.concatenate(scores), season)


def _digest(series: Sequence[TrainingSeries]) -> str:
    digest = hashlib.sha256()
    for one in series:
        digest.update(repr((one.history.step_us, one.history.start_us, one.weight, one.validation_share)).encode())
        digest.update(one.history.values.tobytes())
    return digest.hexdigest()


def _digest_of(net: ForecasterNet | None) -> str:
    digest = hashlib.sha256()
    for tensor in [] if net is None else net.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
