"""How much of the uncertainty of a step is that of the level, which all steps of a future share.

The spread of a quiet hour is mostly chance: the next hour has its own. The spread of a busy day is mostly that nobody
knows how busy the network will be by then, and so it is with the day after. Sums over months keep the second and lose
the first, so no one share fits networks of all sizes and steps of all lengths. It is read from the forecast itself.

Shape suffixes: H steps, K fields, Q quantile levels.
"""

import numpy as np
from scipy.special import ndtri

from models.columns import LEVELS, N_LEVELS
from models.contract import FloatArray
from models.paths import quantile_values

# The share of the level in the variance of a step whose standard deviation is its mean, and inversely as their ratio:
# the squared error of a level grows with the spread of steps around it. Chosen on simulated networks and on the
# training parts of the development logs: sums of hours and of days over weeks and half a year fall outside of their
# intervals about as often as they should. No one share for all does that.
_LEVEL_SHARE = 0.2
_MOST = 0.95


def _spread_of_quantiles() -> FloatArray:
    """Return [Q]: the weights of quantiles in the slope of a value on its normal score, as paths go through them."""
    rank_N = (np.arange(4096) + 0.5) / 4096
    each_QN = quantile_values(np.eye(N_LEVELS)[None], LEVELS, rank_N[None, None])[0]
    return np.asarray((each_QN * ndtri(rank_N)).mean(axis=-1))


_SPREAD_Q = _spread_of_quantiles()


def level_shares(mean_HK: FloatArray, quantiles_HKQ: FloatArray, least_K: FloatArray) -> FloatArray:
    """Return the share [H, K] of the variance of counts that is their level's, at least `least_K`.

    Args:
        mean_HK: forecast means, at least 0.
        quantiles_HKQ: forecast quantiles at the schema's levels, increasing along Q.
        least_K: what is returned at the least, and for what is rarer than every level.
    """
    # Not by a matrix product, whose last bits may depend on how many steps a chunk has.
    spread_HK = np.einsum("hkq,q->hk", quantiles_HKQ, _SPREAD_Q)
    share_HK = np.divide(_LEVEL_SHARE * mean_HK, spread_HK, out=np.zeros_like(mean_HK), where=spread_HK > 0)
    return np.asarray(np.maximum(np.minimum(share_HK, _MOST), least_K))
