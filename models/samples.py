"""Training samples: stretches of history to encode, and origins in them to forecast from.

A stretch is encoded once and forecast from at several origins, so that most of the work of the core carries loss.
Statistics at an origin are those that a live forecast would have there: nothing of a sample looks ahead of its origin.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.contract import FloatArray, History
from models.features import CausalStatistics
from models.tokens import IS_COUNT, MODELLED, Tokens, transform

# The loss of a step h ahead weighs h to the minus this power.
NEARNESS = 0.5

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Plan:
    """Which stretches to encode and which origins to forecast from.

    Attributes:
        begins: [B] first step of each stretch.
        cuts: [K] steps from the begin of a stretch to its origins, increasing; the same in every stretch.
        horizon_steps: how far to forecast from each origin.
    """

    begins: IntArray
    cuts: IntArray
    horizon_steps: int

    @property
    def reach(self) -> int:
        """Steps from the begin of a stretch to the end of its last forecast."""
        return int(self.cuts[-1]) + self.horizon_steps


@dataclass(frozen=True, slots=True)
class Batch:
    """Tensors of a plan; forecasts are ordered by cut, then by stretch.

    Shapes: B stretches, L steps of a stretch, F features, K cuts, H horizon, M modelled metrics.

    Attributes:
        history_BLF: observed tokens.
        ahead_NHF: tokens of the steps ahead, N = K * B.
        target_NHM: what came, as residuals in the units that the model predicts.
        low_NHM, high_NHM: residuals of the least and the largest value that a metric can take.
        weight_NHM: weight of each error, so that the loss follows errors in the units of the metrics; mean near 1.
    """

    cuts: IntArray
    history_BLF: Tensor
    ahead_NHF: Tensor
    target_NHM: Tensor
    low_NHM: Tensor
    high_NHM: Tensor
    weight_NHM: Tensor


class SampleSource:
    """Observed tokens of one graph, with its causal statistics at the start of every season."""

    def __init__(self, history: History, *, reach_steps: int) -> None:
        self._values = history.values[:, MODELLED]
        self._transformed = transform(self._values)
        self._reach_steps = reach_steps
        statistics = CausalStatistics.start(history.step_us, history.start_us)
        self.season = statistics.season
        self._checkpoints: list[CausalStatistics] = []
        features = []
        for begin in range(0, len(history), self.season):
            self._checkpoints.append(statistics)
            statistics, tokens = statistics.observe(self._values[begin : begin + self.season])
            features.append(tokens.features)
        self._features = np.concatenate(features)

    def __len__(self) -> int:
        return len(self._values)

    def ahead(self, origin: int, horizon_steps: int) -> Tokens:
        """Return tokens of the `horizon_steps` steps from `origin` on, given the steps before it."""
        statistics = self._checkpoints[min(origin // self.season, len(self._checkpoints) - 1)]
        statistics, _ = statistics.observe(self._values[statistics.observed : origin])
        return statistics.ahead(1, horizon_steps, self._reach_steps)

    def batch(self, plan: Plan) -> Batch:
        """Return the tensors of `plan`; every forecast must end within the history."""
        length, horizon = int(plan.cuts[-1]), plan.horizon_steps
        history = np.stack([self._features[begin : begin + length] for begin in plan.begins])
        ahead, target, low, high, weight = [], [], [], [], []
        for origin in (plan.begins[None, :] + plan.cuts[:, None]).ravel():
            tokens = self.ahead(int(origin), horizon)
            ahead.append(tokens.features)
            target.append((self._transformed[origin : origin + horizon] - tokens.anchor) / tokens.scale)
            low.append(-tokens.anchor / tokens.scale)
            high.append(np.where(IS_COUNT, np.inf, (1.0 - tokens.anchor) / tokens.scale))
            weight.append(_weights(tokens))
        return Batch(
            cuts=plan.cuts,
            history_BLF=torch.from_numpy(history),
            ahead_NHF=torch.from_numpy(np.stack(ahead)),
            target_NHM=_tensor(target),
            low_NHM=_tensor(low),
            high_NHM=_tensor(high),
            weight_NHM=_tensor(weight),
        )


def _tensor(arrays: list[FloatArray]) -> Tensor:
    return torch.from_numpy(np.stack(arrays).astype(np.float32))


def _weights(tokens: Tokens) -> FloatArray:
    # d(count) / d(residual) = scale * (1 + count): an error in transformed units costs what it costs in counts.
    slope = tokens.scale * np.where(IS_COUNT, np.exp(np.minimum(tokens.anchor, 60.0)), 1.0)
    # Near steps are few beside far ones; without this, a forecast of one step would hardly be trained at all.
    nearness = np.arange(1, len(slope) + 1)[:, None] ** -NEARNESS
    return np.asarray(slope / slope.mean(axis=0) * (nearness / nearness.mean()))
