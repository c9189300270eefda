"""Training samples: stretches of history to encode, and origins in them to forecast from.

A stretch is encoded once and forecast from at several origins, so that most of the work of the core carries loss.
Statistics at an origin are those that a live forecast would have there: nothing of a sample looks ahead of its origin.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.columns import IS_COUNT, MODELLED, N_MODELLED
from models.contract import FloatArray, History
from models.features import CausalStatistics
from models.outlook import FADED, LOG_SCALE, SPREAD, Outlook, positions
from models.tokens import Tokens, transform

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

    def part(self, begin: int, end: int) -> "Batch":
        """Return the batch with the steps ahead `begin <= step < end` alone, counted from 0; views."""
        ahead = {
            name: getattr(self, name)[:, begin:end]
            for name in ("ahead_NHF", "target_NHM", "low_NHM", "high_NHM", "weight_NHM")
        }
        return replace(self, **ahead)


class SampleSource:
    """Observed tokens of one graph, and what is known before each of its steps.

    Forecasts begin anywhere, thousands of them in a training. To observe the steps before each of them again would take
    longer than to learn from it. So of each step what is known before it is kept, as far as its token does not tell it;
    profiles are kept where a season begins, and follow from there. What the token tells is rounded to float32.
    """

    def __init__(self, history: History, *, reach_steps: int) -> None:
        self._step_us, self._start_us, self._reach_steps = history.step_us, history.start_us, reach_steps
        self._transformed = transform(history.values[:, MODELLED])
        start = CausalStatistics.start(history.step_us, history.start_us)
        self.season = start.season
        self._profiles, begins, blocks = [start.profiles], [0], []
        for statistics, block in start.blocks(history.values[:, MODELLED]):
            blocks.append(block)
            self._profiles.append(statistics.profiles)
            begins.append(statistics.observed)
        self._begins = np.array(begins)
        self._features = np.concatenate([block.tokens.features for block in blocks])
        self._level = np.concatenate([block.level for block in blocks]).astype(np.float32)
        self._usual = np.concatenate([block.usual for block in blocks]).astype(np.float32)
        self._entered = np.concatenate([block.values for block in blocks])

    def __len__(self) -> int:
        return len(self._features)

    def ahead(self, origin: int, horizon_steps: int) -> Tokens:
        """Return tokens of the `horizon_steps` steps from `origin` on, given the steps before it."""
        number = int(np.searchsorted(self._begins, origin, side="right")) - 1
        season, begin = self._profiles[number], int(self._begins[number])
        steps_us = self._start_us + np.arange(begin, origin) * self._step_us
        known = self._features[origin].astype(np.float64)
        outlook = Outlook(
            step_us=self._step_us,
            next_us=self._start_us + origin * self._step_us,
            profiles=season.after(positions(steps_us, self._step_us, self.season), self._entered[begin:origin]),
            level=self._level[origin].astype(np.float64),
            usual=self._usual[origin].astype(np.float64),
            scale=np.exp(known[LOG_SCALE]),
            memory=known[FADED].reshape(-1, N_MODELLED),
            spread=known[SPREAD].reshape(-1, N_MODELLED),
        )
        return outlook.tokens(1, horizon_steps, self._reach_steps)

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
