"""The size of errors around the anchor and the spread of residuals, drawn to what is usual while little was observed.

A *residual* is an error divided by the scale: by what errors of the metric have been of late.
"""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

SCALE_FLOOR = 0.05
RESIDUAL_LIMIT = 8.0
# A residual below none is so by more than rounding, which would else tell where a metric that never moves lies.
_BELOW_NONE = -1e-9
# A usual scale and spread count as so many observations.
_SCALE_PRIOR, _PRIOR_OBSERVATIONS = 0.5, 10.0
# How residuals have been spread: their mean within one scale; the shares below and above one scale and below none, and
# that of zeros, each against what would be a usual one.
_USUAL_SPREAD = np.array([0.0, 0.16, 0.16, 0.5, 0.3])[:, None]
N_SPREAD = len(_USUAL_SPREAD)


def error_scale(square_sum: FloatArray, weight: FloatArray) -> FloatArray:
    """Return the typical size of errors, in transformed units, of the decayed sums of their squares."""
    variance = (square_sum + _PRIOR_OBSERVATIONS * _SCALE_PRIOR**2) / (weight + _PRIOR_OBSERVATIONS)
    return np.maximum(np.sqrt(variance), SCALE_FLOOR)


def residual_spread(residual: FloatArray, values: FloatArray) -> FloatArray:
    """Return what each step says about the spread of residuals, [n, N_SPREAD, M]; `values` [n, M] are as observed."""
    shares = [residual < -1.0, residual > 1.0, residual < _BELOW_NONE, values == 0.0]
    return np.stack([np.clip(residual, -1.0, 1.0), *(share.astype(np.float64) for share in shares)], axis=1)


def against_usual(spread_sum: FloatArray, weight: FloatArray) -> FloatArray:
    """Return how far decayed sums of `residual_spread` [..., N_SPREAD, M] are from those of a usual graph."""
    return np.asarray((spread_sum - weight * _USUAL_SPREAD) / (weight + _PRIOR_OBSERVATIONS))
