"""Causal statistics of a graph's metrics: everything that the forecaster knows without its core.

They hold the seasonal anchor (profile times level) and the scale of the errors around it. All of it is updated step by
step from the past alone, so the same code serves training, backtesting and live forecasting. `models.outlook` makes the
inputs of the model of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from models.columns import IS_COUNT, N_MODELLED
from models.decay import decayed_sums, weighted
from models.outliers import Heights, without_bulks
from models.outlook import (
    ANCHOR_LEVEL,
    LEVEL_SEASONS,
    MEMORY_SEASONS,
    N_FEATURES,
    Outlook,
    anchor_and_rivals,
    memory_steps,
    positions,
    tokens_of,
)
from models.profiles import LEVEL_PRIOR_COUNT, Profiles, mean
from models.residuals import N_SPREAD, RESIDUAL_LIMIT, against_usual, error_scale, residual_spread
from models.seasons import season_steps
from models.tokens import Tokens, transform

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

SCALE_SEASONS = 8.0


@dataclass(frozen=True, slots=True)
class Observed:
    """A block of steps as they were observed, within one season; all but the first block begin one.

    Attributes:
        tokens: of the n steps.
        level: [n, R, M] and `usual` [n, M]: those of the `Outlook` before each step.
        values: [n, M] what entered the profiles and levels.
    """

    tokens: Tokens
    level: FloatArray
    usual: FloatArray
    values: FloatArray


@dataclass(frozen=True, slots=True)
class CausalStatistics:
    """What the past says about the next steps; a value, never changed in place.

    Shapes: M modelled metrics, R levels, K memories.

    Attributes:
        step_us: step size in microseconds.
        next_us: start of the next step to observe.
        observed: how many steps were observed.
        profiles: means by position of the season and of the day.
        level_sum: [R, M] decayed sums of the values, `level_expected` [R, M] of what the long profile as it is now
            expects of the same steps, `level_weight` [R] their weights.
        square_sum: [M] decayed sum of squared errors around the anchor, `spread_sum` [N_SPREAD, M] of what
            `residual_spread` says of the residuals, `square_weight` the weight of both.
        memory_sum: [K, M] decayed sums of residuals, `memory_weight` [K] their weights.
        heights: how high steps have been, which bounds what enters the sums of values.
        early: [n, M] all steps, until a first season of them is looked back at; none from then on.
    """

    step_us: int
    next_us: int
    observed: int
    profiles: Profiles
    level_sum: FloatArray
    level_expected: FloatArray
    level_weight: FloatArray
    square_sum: FloatArray
    spread_sum: FloatArray
    square_weight: float
    memory_sum: FloatArray
    memory_weight: FloatArray
    heights: Heights
    early: FloatArray

    @classmethod
    def start(cls, step_us: int, start_us: int) -> "CausalStatistics":
        """Return the statistics before anything was observed; the first step starts at `start_us`."""
        season, levels = season_steps(step_us), len(LEVEL_SEASONS)
        return cls(
            step_us=step_us,
            next_us=start_us,
            observed=0,
            profiles=Profiles.start(season),
            level_sum=np.zeros((levels, N_MODELLED)),
            level_expected=np.zeros((levels, N_MODELLED)),
            level_weight=np.zeros(levels),
            square_sum=np.zeros(N_MODELLED),
            spread_sum=np.zeros((N_SPREAD, N_MODELLED)),
            square_weight=0.0,
            memory_sum=np.zeros((len(MEMORY_SEASONS), N_MODELLED)),
            memory_weight=np.zeros(len(MEMORY_SEASONS)),
            heights=Heights.start(season),
            early=np.zeros((0, N_MODELLED)),
        )

    @property
    def season(self) -> int:
        """Steps of one season."""
        return self.profiles.season

    def observe(self, values: FloatArray) -> tuple["CausalStatistics", Tokens]:
        """Return the statistics after the next steps with `values` [n, M], and their observed tokens."""
        after = self
        parts: list[Tokens] = []
        for after, block in self.blocks(values):  # noqa: B007 - the last one is returned
            parts.append(block.tokens)
        if not parts:
            empty = np.zeros((0, N_MODELLED))
            return self, Tokens(np.zeros((0, N_FEATURES), dtype=np.float32), empty, empty)
        return after, Tokens(
            np.concatenate([part.features for part in parts]),
            np.concatenate([part.anchor for part in parts]),
            np.concatenate([part.scale for part in parts]),
        )

    def blocks(self, values: FloatArray) -> Iterator[tuple["CausalStatistics", Observed]]:
        """Yield the statistics after each block of the next steps with `values` [n, M], and the block."""
        # A block ends where a season does: each position occurs at most once in it, so that it needs no loop over its
        # steps, and the shape of the profiles stands still.
        statistics, begin = self, 0
        while begin < len(values):
            end = begin + self.season - statistics._next_position
            statistics, block = statistics._observe_block(values[begin:end])
            if statistics._next_position == 0:
                statistics = statistics._looked_back()
                statistics = replace(statistics, profiles=statistics.profiles.with_shape())
            yield statistics, block
            begin = end

    @property
    def scale(self) -> FloatArray:
        """The unit of residuals of steps ahead."""
        return error_scale(self.square_sum, np.array(self.square_weight))

    def ahead(self, first: int, n: int, reach_steps: int) -> Tokens:
        """Return tokens of the steps `first` ... `first + n - 1` ahead; see `Outlook.tokens`."""
        return self.outlook().tokens(first, n, reach_steps)

    def outlook(self) -> Outlook:
        """Return what the statistics say of the steps ahead."""
        return Outlook(
            step_us=self.step_us,
            next_us=self.next_us,
            profiles=self.profiles,
            level=_level(self.level_sum, self.level_expected, self.level_weight[:, None]),
            usual=mean(self.level_sum[ANCHOR_LEVEL], self.level_weight[ANCHOR_LEVEL]),
            scale=self.scale,
            memory=mean(self.memory_sum, self.memory_weight[:, None]),
            spread=against_usual(self.spread_sum, np.array(self.square_weight)),
        )

    @property
    def _next_position(self) -> int:
        return int(positions(np.array([self.next_us]), self.step_us, self.season)[0])

    def _looked_back(self) -> "CausalStatistics":
        """Return the statistics where a season begins; behind a first one, as they are without the bulks in it."""
        if len(self.early) < self.observed or self.observed < self.season:
            return self
        after, held = replace(self, early=self.early[:0]), without_bulks(self.early)
        if held is self.early:
            return after
        again, _ = CausalStatistics.start(self.step_us, self.next_us - self.observed * self.step_us).observe(held)
        # What was reached may be the beginning of what stays.
        return replace(again, heights=self.heights)

    def _expectation(self, position: IntArray, after: Profiles, decay_R1: FloatArray) -> FloatArray:
        """Return what each step of a block adds [n, R, M] to the decayed sums of expectations of all levels.

        What is expected of the steps so far follows the long profile as it is now. A step that moves its position of
        the profile therefore moves the expectation of all earlier steps at this position with it.
        """
        said = mean(self.profiles.total[0, position], self.profiles.weight[0, position, None])
        says = after.total[0, position] / after.weight[0, position, None]
        season_decay_R1 = decay_R1**self.season
        # Each position occurs once in a block, so that there are two numbers of visits at most.
        visits, of_step = np.unique((self.observed + np.arange(len(position))) // self.season, return_inverse=True)
        earlier = season_decay_R1 * (1 - season_decay_R1 ** visits[:, None, None]) / (1 - season_decay_R1)
        earlier_nR1 = earlier[of_step]
        return np.asarray(says[:, None] * (1 + earlier_nR1) - said[:, None] * earlier_nR1)

    def _observe_block(self, observed: FloatArray) -> tuple["CausalStatistics", Observed]:
        n = len(observed)
        starts_us = self.next_us + np.arange(n) * self.step_us
        position = positions(starts_us, self.step_us, self.season)
        values, heights = self.heights.hold(self.observed, position, observed)
        ones = np.ones(n)
        decay_R1 = np.exp(-1.0 / (np.array(LEVEL_SEASONS)[:, None] * self.season))
        levels = decayed_sums(weighted(self.level_sum, self.level_weight), weighted(values, ones)[:, None], decay_R1)
        level_sum, level_weight = levels[..., :-1], levels[..., -1:]
        usual = mean(level_sum[:-1, ANCHOR_LEVEL], level_weight[:-1, ANCHOR_LEVEL])
        expected, profiles = self.profiles.through(position, values, usual)
        expectation = self._expectation(position, profiles, decay_R1)
        level_expected = decayed_sums(self.level_expected, expectation, decay_R1)
        level = _level(level_sum[:-1], level_expected[:-1], level_weight[:-1])
        anchor, rivals = anchor_and_rivals(expected, level.swapaxes(0, 1))
        error = transform(observed) - anchor
        decay = np.exp(-1.0 / (SCALE_SEASONS * self.season))
        squares = decayed_sums(weighted(self.square_sum, np.array(self.square_weight)), weighted(error**2, ones), decay)
        square_weight = squares[:, -1:]
        scale = error_scale(squares[:-1, :-1], square_weight[:-1])
        residual = np.clip(error / scale, -RESIDUAL_LIMIT, RESIDUAL_LIMIT)
        spreads = decayed_sums(self.spread_sum, residual_spread(residual, observed), decay)
        memory = decayed_sums(
            weighted(self.memory_sum, self.memory_weight),
            weighted(residual, ones)[:, None],
            np.exp(-1.0 / memory_steps(self.season))[:, None],
        )
        tokens = tokens_of(
            starts_us,
            residual,
            anchor,
            rivals,
            scale,
            mean(memory[:-1, :, :-1], memory[:-1, :, -1:]).swapaxes(0, 1),
            against_usual(spreads[:-1], square_weight[:-1, :, None]).swapaxes(0, 1),
            distance=np.zeros(n),
            season=self.season,
            reach_steps=0,
        )
        after = replace(
            self,
            next_us=self.next_us + n * self.step_us,
            observed=self.observed + n,
            profiles=profiles,
            # Copies, as a view would keep the whole block.
            level_sum=level_sum[-1].copy(),
            level_expected=level_expected[-1].copy(),
            level_weight=level_weight[-1, :, 0].copy(),
            square_sum=squares[-1, :-1].copy(),
            spread_sum=spreads[-1].copy(),
            square_weight=float(square_weight[-1, 0]),
            memory_sum=memory[-1, :, :-1].copy(),
            memory_weight=memory[-1, :, -1].copy(),
            heights=heights,
            early=np.concatenate([self.early, observed]) if len(self.early) == self.observed else self.early,
        )
        return after, Observed(tokens, level, usual, values)


def _level(level_sum: FloatArray, level_expected: FloatArray, level_weight: FloatArray) -> FloatArray:
    """Return what the long profile is multiplied by to be at a level [..., M], and for shares what is added to it.

    For counts that is the ratio of what was seen to what the profile expected, for shares their mean difference.
    """
    ratio = (level_sum + LEVEL_PRIOR_COUNT) / (level_expected + LEVEL_PRIOR_COUNT)
    return np.where(IS_COUNT, ratio, mean(level_sum - level_expected, level_weight))
