"""What a page needs of a forecast, gathered chunk by chunk at a memory that does not grow with the horizon.

Quantiles of sums are not sums of quantiles, so nothing here adds quantiles up: a block of steps is described by its
typical step (the mean over the block of each step's quantile), a total by its value at the end of the block.

Shape suffixes: T steps, B blocks, M metrics, C columns (the mean, then `SHOWN_LEVELS`).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infra.schema import METRICS, QUANTILE_LEVELS, Kind
from infra.steps import WEEK_US
from models.contract import FloatArray, ForecastChunk, History

SHOWN_LEVELS = (0.025, 0.1, 0.5, 0.9, 0.975)
# Blocks of history and forecast together; more would not be told apart on a screen and make the file large.
MAX_BLOCKS = 800

_LEVELS = [QUANTILE_LEVELS.index(level) for level in SHOWN_LEVELS]
_IS_TOTAL = np.array([metric.kind is Kind.TOTAL for metric in METRICS])


@dataclass(frozen=True, slots=True)
class Fan:
    """A forecast at some times.

    Attributes:
        start_us: [N] int64, start of each step or block.
        mean: [N, M].
        quantiles: [N, M, 5] at `SHOWN_LEVELS`.
    """

    start_us: npt.NDArray[np.int64]
    mean: FloatArray
    quantiles: FloatArray

    def __len__(self) -> int:
        return len(self.mean)


def block_length(step_us: int, steps: int) -> int:
    """Return how many steps make a block: a week, or as many whole weeks as keep `steps` within `MAX_BLOCKS`."""
    week_steps = max(1, WEEK_US // step_us)
    return week_steps * max(1, -(-steps // (week_steps * MAX_BLOCKS)))


def block_values(history: History, block_steps: int) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Return starts [B] and values [B, M] of the whole blocks that end with the history: means, and totals at the end.

    What is left over at the beginning is no whole block and is left out.
    """
    count = len(history) // block_steps
    begin = len(history) - count * block_steps
    blocks_BTM = history.values[begin:].reshape(count, block_steps, len(METRICS))
    starts_us = history.start_us + (begin + np.arange(count, dtype=np.int64) * block_steps) * history.step_us
    return starts_us, np.where(_IS_TOTAL, blocks_BTM[:, -1], blocks_BTM.mean(axis=1))


class Outlook:
    """Gathers a forecast: its first steps one by one, all of it by blocks, and its last step.

    Args:
        first_us: start of forecast step 0.
        step_us: step size.
        near_steps: how many of the first steps are kept one by one.
        block_steps: steps of a block.
    """

    def __init__(self, *, first_us: int, step_us: int, near_steps: int, block_steps: int) -> None:
        self.first_us = first_us
        self.step_us = step_us
        self.block_steps = block_steps
        self.steps = 0
        self._near_steps = near_steps
        self._near: list[FloatArray] = []
        self._blocks: list[FloatArray] = []
        self._rest_TMC = np.zeros((0, len(METRICS), 1 + len(SHOWN_LEVELS)))
        self._last_MC = np.zeros(self._rest_TMC.shape[1:])

    def add(self, chunk: ForecastChunk) -> None:
        """Take the next chunk."""
        columns_TMC = np.concatenate([chunk.mean[..., None], chunk.quantiles[..., _LEVELS]], axis=-1)
        # Copies: a view would keep the whole chunk alive.
        self._near.append(columns_TMC[: max(0, self._near_steps - self.steps)].copy())
        self.steps += len(chunk)
        self._last_MC = columns_TMC[-1]
        rows_TMC = np.concatenate([self._rest_TMC, columns_TMC])
        whole = len(rows_TMC) // self.block_steps * self.block_steps
        self._rest_TMC = rows_TMC[whole:].copy()
        blocks_BTMC = rows_TMC[:whole].reshape(-1, self.block_steps, *rows_TMC.shape[1:])
        self._blocks.append(np.where(_IS_TOTAL[:, None], blocks_BTMC[:, -1], blocks_BTMC.mean(axis=1)))

    @property
    def until_us(self) -> int:
        """End of the last step."""
        return self.first_us + self.steps * self.step_us

    def near(self) -> Fan:
        """Return the first steps, one by one."""
        return self._fan(np.concatenate([self._rest_TMC[:0], *self._near]), self.step_us)

    def far(self) -> Fan:
        """Return the whole blocks: the mean over the block of each column, totals at its end."""
        return self._fan(np.concatenate([self._rest_TMC[:0], *self._blocks]), self.step_us * self.block_steps)

    def rest(self) -> Fan:
        """Return the steps behind the last whole block, one by one: all of them where no block is whole."""
        fan = self._fan(self._rest_TMC, self.step_us)
        return Fan(fan.start_us + (self.steps - len(fan)) * self.step_us, fan.mean, fan.quantiles)

    def last(self) -> Fan:
        """Return the last step alone."""
        fan = self._fan(self._last_MC[None], self.step_us)
        return Fan(fan.start_us + (self.steps - 1) * self.step_us, fan.mean, fan.quantiles)

    def _fan(self, columns_NMC: FloatArray, spacing_us: int) -> Fan:
        starts_us = self.first_us + np.arange(len(columns_NMC), dtype=np.int64) * spacing_us
        return Fan(starts_us, columns_NMC[..., 0], columns_NMC[..., 1:])
