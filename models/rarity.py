"""What hardly ever happened is expected hardly ever.

The unit of errors has a floor, and above a metric that never moves quantiles of a few floors remain. They say nothing,
but their mean does: 0.04 an hour is 1,500 new nodes in four years of a graph that never met a third stranger. So the
mean above the anchor is held to what was seen: the posterior rate of the last seasons, and the more times that, the
more often it happened.

Shape suffixes: M modelled metrics, Q quantile levels, L steps.
"""

from dataclasses import dataclass, field

import numpy as np

from models.columns import IS_COUNT, LEVELS, N_MODELLED
from models.contract import BLOCK_STEPS, FloatArray
from models.paths import floored_mean

_MEMORY_SEASONS = 4.0
_PRIOR_COUNT = 0.5
# Means up to the first are held, those from the second on are not: so much is no floor, but a series that wakes up.
_FLOOR_MEAN, _REAL_MEAN = 0.1, 0.3


def _zeros() -> FloatArray:
    return np.zeros(N_MODELLED)


@dataclass(frozen=True, slots=True)
class Rarity:
    """How often and how much of each metric was seen, faded; a value.

    Attributes:
        total_M: sum of the values.
        busy_M: number of steps with any.
        weight: number of steps.
    """

    total_M: FloatArray = field(default_factory=_zeros)
    busy_M: FloatArray = field(default_factory=_zeros)
    weight: float = 0.0

    def observe(self, observed: int, transformed_LM: FloatArray, season: int) -> "Rarity":
        """Return the counts after `observed` steps and further ones, with transformed values [L, M].

        Whole blocks give the same bits however many there are in a call.
        """
        decay = float(np.exp(-1.0 / (_MEMORY_SEASONS * season)))
        after = self
        for begin in range(0, len(transformed_LM), BLOCK_STEPS):
            block_LM = transformed_LM[begin : begin + BLOCK_STEPS]
            # To the first step of a graph all is new, and it tells no rate.
            after = after._after_block(block_LM[1 if observed + begin == 0 else 0 :], decay)
        return after

    def _after_block(self, transformed_LM: FloatArray, decay: float) -> "Rarity":
        seen_LM = np.expm1(transformed_LM)
        weight_L = decay ** np.arange(len(seen_LM) - 1.0, -1.0, -1.0)
        kept = decay ** len(seen_LM)
        return Rarity(
            kept * self.total_M + weight_L @ seen_LM,
            kept * self.busy_M + weight_L @ (seen_LM > 0),
            float(kept * self.weight + weight_L.sum()),
        )

    def held(self, residuals_LMQ: FloatArray, scale_M: FloatArray) -> FloatArray:
        """Return residual quantiles [L, M, Q] whose part above the anchor means no more than the rate allows.

        `scale_M` are the units of the residuals.
        """
        rate_M = (self.total_M + _PRIOR_COUNT) / (self.weight + 1.0)
        most_M = np.where(IS_COUNT, rate_M * (1.0 + self.busy_M), np.inf)
        rare = most_M < _REAL_MEAN
        if not rare.any():
            return residuals_LMQ
        above_LRQ = np.maximum(residuals_LMQ[:, rare], 0.0)
        mean_LR = floored_mean(np.expm1(np.sort(above_LRQ * scale_M[rare, None]).clip(max=60.0)), LEVELS)
        share_LR = np.minimum(most_M[rare] / np.maximum(mean_LR, 1e-12), 1.0)
        floor_LR = np.clip((_REAL_MEAN - mean_LR) / (_REAL_MEAN - _FLOOR_MEAN), 0.0, 1.0)
        share_LR = 1.0 - floor_LR * (1.0 - share_LR)
        held_LMQ = residuals_LMQ.copy()
        held_LMQ[:, rare] = np.minimum(residuals_LMQ[:, rare], 0.0) + share_LR[..., None] * above_LRQ
        return held_LMQ
