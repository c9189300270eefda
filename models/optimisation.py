"""The loop of a training: optimiser, averaged weights, validation, and the file that a killed training goes on from.

Under `torchrun` each process draws batches of its own and gradients are averaged over all of them
(`DistributedDataParallel`); the clock of the first process counts for all.
"""

import json
import math
import os
import time
from collections.abc import Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from infra.errors import ModelError
from infra.whole_file import whole_file
from models.distillation import DistillationLoss
from models.distributed import n_workers, worker_number
from models.forecaster import ForecasterNet
from models.losses import ForecastLoss, batch_loss
from models.samples import Batch
from models.sampling import Sampler
from models.unfinished import MadeOf, read_state


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
        batches_per_iteration: batches, of a series each, whose gradients are added up in one iteration.
        tokens_per_batch: tokens of steps ahead in one batch; the batch shrinks as its horizon grows.
        checkpoint_tokens: batches with sequences above this length recompute activations (gradient checkpointing).
        device: `cpu`, `cuda`, or `auto` for CUDA where there is one.
        mixed_precision: compute activations in bfloat16; weights and states stay in float32.
    """

    budget_s: float = 150.0
    max_iterations: int = 0
    seed: int = 0
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    validation_share: float = 0.12
    validate_every: int = 25
    patience: int = 12
    batches_per_iteration: int = 3
    tokens_per_batch: int = 2048
    checkpoint_tokens: int = 8192
    device: str = "auto"
    mixed_precision: bool = False

    def torch_device(self) -> torch.device:
        """Return the device to train on.

        Raises:
            ModelError: it is not there.
        """
        if self.device == "cpu" or (self.device == "auto" and not torch.cuda.is_available()):
            return torch.device("cpu")
        if not torch.cuda.is_available():
            raise ModelError("there is no CUDA device to train on", fix="set [training] device to cpu or auto")
        # torchrun tells each process of a machine its number.
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """Where a training stands.

    Attributes:
        validation_loss: the best so far.
        done_share: share of the budget used.
        tokens_per_s: steps ahead that all processes learned from, a second.
    """

    iteration: int
    loss: float
    validation_loss: float
    elapsed_s: float
    done_share: float
    tokens_per_s: float


class Optimisation:
    """One training: optimiser, averaged weights, and the best of them so far by validation.

    Args:
        net: where to start; it is changed.
        sampler: where batches come from.
        config: how to train.
        started_s: when the training began, on the monotonic clock.
        teachers: nets to learn from beside the data.
    """

    def __init__(
        self,
        net: ForecasterNet,
        sampler: Sampler,
        config: TrainingConfig,
        started_s: float,
        *,
        teachers: Sequence[ForecasterNet] = (),
    ) -> None:
        self._config, self._sampler, self._started_s = config, sampler, started_s
        self._device = config.torch_device()
        self._net = net.to(self._device)
        self._validation = [_to(batch, self._device) for batch in sampler.validation()]
        self._loss: nn.Module = (
            DistillationLoss(self._net, [deepcopy(teacher).to(self._device) for teacher in teachers])
            if teachers
            else ForecastLoss(self._net)
        )
        if n_workers() > 1:
            self._loss = DistributedDataParallel(self._loss)
        self._optimizer = torch.optim.AdamW(
            net.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.95)
        )
        self._averaged = deepcopy(net).requires_grad_(False).eval()
        self.untrained_loss = self._validate()
        self.best_loss, self._best = self.untrained_loss, deepcopy(self._averaged.state_dict())
        self.iteration, self._last_loss, self._without_gain, self._tokens = 0, math.nan, 0, 0
        self._elapsed_s = 0.0
        self.stopped = ""

    @property
    def validation(self) -> list[Batch]:
        """The forecasts that are kept for validation."""
        return self._validation

    def progress(self) -> TrainingProgress:
        """Return where the training stands."""
        rate = self._tokens / max(self._elapsed_s, 1e-9)
        return TrainingProgress(
            self.iteration, self._last_loss, self.best_loss, self._elapsed_s, self._done_share(), rate
        )

    def iterate(self) -> None:
        """Take one step of the optimiser, then validate when it is time.

        Raises:
            ModelError: the loss is not finite.
        """
        config, n_batches = self._config, self._config.batches_per_iteration
        for group in self._optimizer.param_groups:
            group["lr"] = config.learning_rate * self._rate()
        self._net.train()
        self._optimizer.zero_grad(set_to_none=True)
        # Dropout depends on the iteration alone, so that a training that was killed goes on as if it had not been.
        torch.manual_seed(_mixed(config.seed, self.iteration, worker_number()))
        total = 0.0
        for number in range(n_batches):
            batch = self._sampler.draw(self.iteration * n_batches + number, worker_number())
            total += self._backward(_to(batch, self._device), last=number == n_batches - 1)
            self._tokens += batch.ahead_NHF.shape[0] * batch.ahead_NHF.shape[1] * n_workers()
        self._last_loss = total / n_batches
        if not math.isfinite(self._last_loss):
            raise ModelError("the training loss is not finite", fix="lower [training] learning_rate")
        nn.utils.clip_grad_norm_(self._net.parameters(), 1.0)
        self._optimizer.step()
        self.iteration += 1
        self._average()
        self._elapsed_s = self._clock_s()
        done = self._done_share() >= 1.0
        if self.iteration % config.validate_every == 0 or done:
            self._keep_if_better()
        if done:
            reached = self.iteration == config.max_iterations
            self.stopped = "the number of iterations" if reached else "the time budget"
        elif self._without_gain >= config.patience:
            self.stopped = "no gain on the validation part"

    def best(self) -> ForecasterNet:
        """Return the best weights, on the CPU and in evaluation mode."""
        self._averaged.load_state_dict(self._best)
        return self._averaged.cpu().eval()

    def validation_losses(self) -> list[float]:
        """Return the loss of the averaged weights on each validation batch."""
        with torch.inference_mode():
            return [float(batch_loss(self._averaged, batch)) for batch in self._validation]

    def save(self, path: Path, made_of: MadeOf) -> None:
        """Write all that a later process needs to go on.

        Raises:
            GraphtideError: the file cannot be written.
        """
        if worker_number():
            return
        state = {
            "made_of": made_of.to_text(),
            "net": self._net.state_dict(),
            "averaged": self._averaged.state_dict(),
            "best": self._best,
            "optimizer": self._optimizer.state_dict(),
            "numbers": json.dumps(
                [self.iteration, self.untrained_loss, self.best_loss, self._without_gain, self._tokens, self._elapsed_s]
            ),
            # Killed behind its last iteration, it shall not take one more.
            "stopped": self.stopped,
        }
        with whole_file(path) as temporary:
            torch.save(state, temporary)

    def resume(self, path: Path, made_of: MadeOf) -> bool:
        """Go on where `save` left off; return whether there was such a file, of a training made of the same."""
        state = read_state(path, self._device)
        if state is None or state.get("made_of") != made_of.to_text():
            return False
        self._net.load_state_dict(state["net"])
        self._averaged.load_state_dict(state["averaged"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._best = state["best"]
        numbers = json.loads(state["numbers"])
        self.iteration, self.untrained_loss, self.best_loss, self._without_gain, self._tokens, elapsed_s = numbers
        self._elapsed_s, self._started_s = elapsed_s, time.monotonic() - elapsed_s
        self.stopped = state["stopped"]
        return True

    def _backward(self, batch: Batch, *, last: bool) -> float:
        n_batches, config = self._config.batches_per_iteration, self._config
        longest = max(batch.history_BLF.shape[1], batch.ahead_NHF.shape[1])
        # Gradients are exchanged once an iteration.
        wait = nullcontext() if last or not isinstance(self._loss, DistributedDataParallel) else self._loss.no_sync()
        autocast = torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=config.mixed_precision)
        with wait, autocast:
            loss: Tensor = self._loss(batch, longest > config.checkpoint_tokens)
            (loss / n_batches).backward()
        return float(loss.detach())

    def _clock_s(self) -> float:
        elapsed_s = time.monotonic() - self._started_s
        if n_workers() == 1:
            return elapsed_s
        told = torch.tensor([elapsed_s], dtype=torch.float64, device=self._device)
        distributed.broadcast(told, src=0)
        return float(told)

    def _done_share(self) -> float:
        share = self._elapsed_s / self._config.budget_s
        if self._config.max_iterations:
            share = max(share, self.iteration / self._config.max_iterations)
        return min(share, 1.0)

    def _rate(self) -> float:
        warm = min(1.0, (self.iteration + 1) / 20)
        # Under a limit on iterations the rate must not hang on the clock, or two trainings would differ.
        limit = self._config.max_iterations
        share = self.iteration / limit if limit else self._done_share()
        return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))

    def _average(self) -> None:
        keep = min(0.98, self.iteration / (self.iteration + 10))
        with torch.no_grad():
            for mean, value in zip(self._averaged.parameters(), self._net.parameters(), strict=True):
                mean.lerp_(value, 1 - keep)

    def _validate(self) -> float:
        losses = self.validation_losses()
        return float(np.mean(losses)) if losses else math.nan

    def _keep_if_better(self) -> None:
        loss = self._validate()
        if loss < self.best_loss:
            self.best_loss, self._best = loss, deepcopy(self._averaged.state_dict())
            self._without_gain = 0
        else:
            self._without_gain += 1


def _to(batch: Batch, device: torch.device) -> Batch:
    if device.type == "cpu":
        return batch
    tensors = {
        field.name: getattr(batch, field.name).to(device)
        for field in fields(batch)
        if isinstance(getattr(batch, field.name), Tensor)
    }
    return replace(batch, **tensors)


def _mixed(*numbers: int) -> int:
    """Return one seed made of several."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def fingerprint(config: TrainingConfig, *others: Any) -> str:
    """Return a text that is the same for the same training."""
    return json.dumps([asdict(config), n_workers(), *others], sort_keys=True, default=str)
