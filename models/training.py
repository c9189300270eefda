"""Training of the forecaster: quantile loss on forecasts from many origins, early stopping on the latest history."""

import math
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from infra.errors import ModelError
from infra.schema import QUANTILE_LEVELS
from models.contract import History
from models.forecaster import ForecasterConfig, ForecasterNet
from models.mamba2.state import Mamba2State
from models.paths import RankStructure
from models.ranks import fit_structure, rank_scores
from models.samples import Batch, Plan, SampleSource
from models.seasons import season_steps

# A graph needs this many seasons before anything can be learned that a floor does not know.
MIN_SEASONS = 4
# Gradient of a forecast outside its metric's range, against 1 inside.
OUTSIDE_SLOPE = 0.02


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How a forecaster is trained.

    Attributes:
        budget_s: wall time after which training ends with the best weights so far.
        max_iterations: end after so many iterations at the latest; 0 for no limit but time. Two trainings with one
            seed, the same limit and time enough are equal.
        seed: seed of the initial weights and of the samples.
        learning_rate, weight_decay: of AdamW; the rate rises, then falls along a cosine over the budget.
        validation_share: the latest share of the history is kept for early stopping.
        validate_every: iterations between two validations.
        patience: validations without a better score before training ends.
        tokens_per_batch: tokens of steps ahead in one batch; the batch shrinks as its horizon grows.
        checkpoint_tokens: batches with sequences above this length recompute activations (gradient checkpointing).
    """

    budget_s: float = 150.0
    max_iterations: int = 0
    seed: int = 0
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    validation_share: float = 0.12
    validate_every: int = 25
    patience: int = 12
    tokens_per_batch: int = 6144
    checkpoint_tokens: int = 8192


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """Where a training stands; `validation_loss` is the best so far, `done_share` the share of the budget used."""

    iteration: int
    loss: float
    validation_loss: float
    elapsed_s: float
    done_share: float


@dataclass(frozen=True, slots=True)
class TrainedForecaster:
    """The best weights of a training and what is known about them.

    Attributes:
        net: the weights, in evaluation mode.
        validation_loss, untrained_loss: quantile loss on the validation part, of `net` and of the net before training.
        stopped: why the training ended.
        ranks: how the errors hang together in time and across metrics, measured on the validation part.
    """

    net: ForecasterNet
    iterations: int
    validation_loss: float
    untrained_loss: float
    stopped: str
    elapsed_s: float
    config: TrainingConfig
    ranks: RankStructure

    def scores(self) -> dict[str, Any]:
        """Return what the card of a checkpoint says about the training."""
        return {
            "validation_loss": self.validation_loss,
            "untrained_validation_loss": self.untrained_loss,
            "iterations": self.iterations,
            "stopped": self.stopped,
            "elapsed_s": round(self.elapsed_s, 1),
            "training": asdict(self.config),
        }


def pinball(residual_quantiles_NHMQ: Tensor, target_NHM: Tensor, weight_NHM: Tensor) -> Tensor:
    """Return the mean quantile (pinball) loss over all levels (Koenker and Bassett, 1978)."""
    levels = torch.tensor(QUANTILE_LEVELS, dtype=target_NHM.dtype, device=target_NHM.device)
    error = target_NHM.unsqueeze(-1) - residual_quantiles_NHMQ
    loss = torch.maximum(levels * error, (levels - 1) * error).mean(dim=-1)
    return (loss * weight_NHM).mean()


def batch_quantiles(net: ForecasterNet, batch: Batch, *, checkpoint_blocks: bool = False) -> Tensor:
    """Return residual quantiles [N, H, M, Q]: encode each stretch once, forecast from the state at every cut."""
    state: Mamba2State | None = None
    at_cuts: list[Mamba2State] = []
    begin = 0
    for cut in batch.cuts.tolist():
        state = net.encode(batch.history_BLF[:, begin:cut], state, checkpoint_blocks=checkpoint_blocks)
        at_cuts.append(state)
        begin = cut
    quantiles_NHMQ: Tensor = net(batch.ahead_NHF, Mamba2State.stack(at_cuts), checkpoint_blocks=checkpoint_blocks)[0]
    return quantiles_NHMQ


def batch_loss(net: ForecasterNet, batch: Batch, *, checkpoint_blocks: bool = False) -> Tensor:
    """Return the quantile loss of the forecasts of a batch, brought into the range of each metric as forecasts are.

    Many a quantile of a sparse metric is exactly 0. A forecast below the range costs nearly nothing, so that it can be
    safely there; a little slope brings it back where it has to be.
    """
    quantiles_NHMQ = batch_quantiles(net, batch, checkpoint_blocks=checkpoint_blocks)
    inside_NHMQ = torch.clamp(quantiles_NHMQ, batch.low_NHM.unsqueeze(-1), batch.high_NHM.unsqueeze(-1))
    return pinball(torch.lerp(inside_NHMQ, quantiles_NHMQ, OUTSIDE_SLOPE), batch.target_NHM, batch.weight_NHM)


def horizons(season: int, length: int, reach_steps: int) -> tuple[int, ...]:
    """Return the training horizons of a graph: about a season, four of them, and as far as its history allows."""
    middle, far = min(4 * season, reach_steps, length // 4), min(reach_steps, length // 3)
    return tuple(sorted({near_horizon(season, length), middle, far}))


def near_horizon(season: int, length: int) -> int:
    """Return the shortest training horizon: a season and a seventh, or a quarter of a history that is too short."""
    return min(season + max(1, season // 7), max(1, length // 4))


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


class _Sampler:
    """Draws plans from the part of a history that training may see."""

    def __init__(self, source: SampleSource, end: int, config: TrainingConfig, horizons: tuple[int, ...]) -> None:
        self._source, self._end, self._config, self._horizons = source, end, config, horizons

    def draw(self, generator: np.random.Generator) -> Batch:
        """Return a batch: mostly short horizons, some long."""
        shares = np.array([0.7, 0.2, 0.1][: len(self._horizons)])
        horizon = int(generator.choice(self._horizons, p=shares / shares.sum()))
        length = max(2, min(2 * self._source.season, self._end // 4))
        n_origins = max(1, self._config.tokens_per_batch // horizon)
        places = np.arange(length // 4, length) + 1
        n_cuts = min(max(1, min(6, n_origins // 4)), len(places))
        cuts = np.sort(generator.choice(places, size=n_cuts, replace=False))
        room = self._end - int(cuts[-1]) - horizon
        begins = generator.integers(0, max(1, room + 1), size=max(1, n_origins // n_cuts))
        return self._source.batch(Plan(begins, cuts, horizon))


def _validation_batches(source: SampleSource, begin: int, horizons: tuple[int, ...], seed: int) -> list[Batch]:
    """Return fixed forecasts whose targets all lie in the validation part."""
    generator = np.random.default_rng(seed)
    batches = []
    for horizon, wanted in zip(horizons, (24, 6, 2), strict=False):
        room = len(source) - begin - horizon
        if room < 0:
            continue
        length = max(1, min(2 * source.season, begin))
        origins = begin + np.unique(np.linspace(0, room, num=min(wanted, room + 1)).astype(np.int64))
        jitter = generator.integers(0, max(1, min(source.season, room // max(1, len(origins)))), size=len(origins))
        origins = np.minimum(origins + jitter, len(source) - horizon)
        batches.append(source.batch(Plan(origins - length, np.array([length]), horizon)))
    return batches


def check_trainable(history: History) -> None:
    """Make sure that a history is long enough to learn from.

    Raises:
        ModelError: it is shorter than `MIN_SEASONS` seasons; a floor should answer instead.
    """
    season = season_steps(history.step_us)
    if len(history) < MIN_SEASONS * season:
        raise ModelError(
            f"a history of {len(history)} steps is too short to train on",
            fix=f"wait for {MIN_SEASONS * season} steps ({MIN_SEASONS} seasons of {season}), or use a smaller step",
        )


def train(
    histories: Sequence[History],
    forecaster: ForecasterConfig,
    config: TrainingConfig,
    *,
    on_progress: Callable[[TrainingProgress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> TrainedForecaster:
    """Train a forecaster on one or more graphs.

    Args:
        histories: one per graph; the latest `validation_share` of each is used for early stopping alone.
        forecaster: the architecture.
        config: how to train.
        on_progress: called after every iteration.
        cancelled: asked after every iteration; True ends the training with the best weights so far.

    Raises:
        ModelError: no history, one too short, or the loss is not finite.
    """
    if not histories:
        raise ModelError("no history to train on", fix="ingest a log first")
    for history in histories:
        check_trainable(history)
    started = time.monotonic()
    net = ForecasterNet(forecaster, seed=config.seed)
    generator = np.random.default_rng(config.seed)
    torch.manual_seed(config.seed)
    samplers, validation = [], []
    for history in histories:
        source = SampleSource(history, reach_steps=forecaster.reach_steps)
        # The shortest horizon has to fit into the validation part, however short the history.
        validated = max(math.ceil(len(history) * config.validation_share), near_horizon(source.season, len(history)))
        split = len(history) - validated
        reach = horizons(source.season, split, forecaster.reach_steps)
        samplers.append(_Sampler(source, split, config, reach))
        validation += _validation_batches(source, split, reach, config.seed)

    if not config.max_iterations:
        # A fixed number of iterations promises equal trainings, and the order of sums hangs on the threads.
        set_faster_threads(net, samplers[0].draw(np.random.default_rng(config.seed)))
    loop = _Loop(net, config, validation, started)
    while not loop.stopped:
        loop.iterate(samplers[int(generator.integers(len(samplers)))].draw(generator))
        if on_progress is not None:
            on_progress(loop.progress())
        if cancelled is not None and cancelled():
            loop.stopped = "cancelled"
    return loop.result(season_steps(histories[0].step_us))


def _fit_ranks(net: ForecasterNet, batches: list[Batch], season: int) -> RankStructure:
    """Return the rank structure of the errors over the longest horizon that has several forecasts."""
    several = [batch for batch in batches if len(batch.target_NHM) >= 4]
    batch = max(several or batches, key=lambda batch: batch.target_NHM.shape[1])
    with torch.inference_mode():
        quantiles = torch.maximum(batch_quantiles(net, batch), batch.low_NHM.unsqueeze(-1))
    return fit_structure(rank_scores(quantiles.double().numpy(), batch.target_NHM.double().numpy()), season)


class _Loop:
    """One training: optimiser, averaged weights, and the best of them so far by validation."""

    def __init__(self, net: ForecasterNet, config: TrainingConfig, validation: list[Batch], started_s: float) -> None:
        self._net, self._config, self._validation, self._started_s = net, config, validation, started_s
        self._optimizer = torch.optim.AdamW(
            net.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.95)
        )
        self._averaged = deepcopy(net).requires_grad_(False).eval()
        self._untrained_loss = self._validate()
        self._best_loss, self._best = self._untrained_loss, deepcopy(self._averaged.state_dict())
        self._iteration, self._loss, self._without_gain = 0, math.nan, 0
        self.stopped = ""

    def progress(self) -> TrainingProgress:
        """Return where the training stands."""
        elapsed_s = time.monotonic() - self._started_s
        return TrainingProgress(self._iteration, self._loss, self._best_loss, elapsed_s, self._done_share())

    def iterate(self, batch: Batch) -> None:
        """Take one step of the optimiser, then validate when it is time."""
        config = self._config
        for group in self._optimizer.param_groups:
            group["lr"] = config.learning_rate * self._rate()
        self._net.train()
        longest = max(batch.history_BLF.shape[1], batch.ahead_NHF.shape[1])
        loss = batch_loss(self._net, batch, checkpoint_blocks=longest > config.checkpoint_tokens)
        self._loss = float(loss.detach())
        if not math.isfinite(self._loss):
            raise ModelError("the training loss is not finite", fix="lower [training] learning_rate")
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._net.parameters(), 1.0)
        self._optimizer.step()
        self._iteration += 1
        self._average()
        done = self._done_share() >= 1.0
        if self._iteration % config.validate_every == 0 or done:
            self._keep_if_better()
        if done:
            self.stopped = "budget"
        elif self._without_gain >= config.patience:
            self.stopped = "no gain on the validation part"

    def result(self, season: int) -> TrainedForecaster:
        """Return the best weights; `season` is that of the graphs, in steps."""
        self._averaged.load_state_dict(self._best)
        return TrainedForecaster(
            net=self._averaged,
            iterations=self._iteration,
            validation_loss=self._best_loss,
            untrained_loss=self._untrained_loss,
            stopped=self.stopped,
            elapsed_s=time.monotonic() - self._started_s,
            config=self._config,
            ranks=_fit_ranks(self._averaged, self._validation, season),
        )

    def _done_share(self) -> float:
        share = (time.monotonic() - self._started_s) / self._config.budget_s
        if self._config.max_iterations:
            share = max(share, self._iteration / self._config.max_iterations)
        return min(share, 1.0)

    def _rate(self) -> float:
        warm = min(1.0, (self._iteration + 1) / 20)
        # Under a limit on iterations the rate must not hang on the clock, or two trainings would differ.
        limit = self._config.max_iterations
        share = self._iteration / limit if limit else self._done_share()
        return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))

    def _average(self) -> None:
        keep = min(0.98, self._iteration / (self._iteration + 10))
        with torch.no_grad():
            for mean, value in zip(self._averaged.parameters(), self._net.parameters(), strict=True):
                mean.lerp_(value, 1 - keep)

    def _validate(self) -> float:
        with torch.inference_mode():
            losses = [float(batch_loss(self._averaged, batch)) for batch in self._validation]
        return float(np.mean(losses))

    def _keep_if_better(self) -> None:
        loss = self._validate()
        if loss < self._best_loss:
            self._best_loss, self._best = loss, deepcopy(self._averaged.state_dict())
            self._without_gain = 0
        else:
            self._without_gain += 1
