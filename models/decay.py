"""Sums in which the past fades, for many steps at a time."""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

# Floats reach down to e to the minus 708 and up as far; values are divided by powers of the decay.
_LOG_RANGE = 600.0


def decayed_sums(initial: FloatArray, x: FloatArray, decay: FloatArray) -> FloatArray:
    """Return s[0..n] with s[0] = initial and s[i + 1] = decay * s[i] + x[i], along axis 0: shape [n + 1, ...].

    `decay` has the axes of `initial`, or 1 in their place.
    """
    n, longest = len(x), max(1, int(_LOG_RANGE / -np.log(np.min(decay))))
    sums = np.empty((n + 1, *initial.shape))
    sums[0] = initial
    for begin in range(0, n, longest):
        _go_on(sums[begin : begin + longest + 1], x[begin : begin + longest], decay)
    return sums


def _go_on(sums: FloatArray, x: FloatArray, decay: FloatArray) -> None:
    """Fill in the sums behind the first, as many as powers of the decay do not leave the range of floats for."""
    powers = decay ** np.arange(len(x) + 1.0).reshape(-1, *([1] * (sums.ndim - 1)))
    np.divide(x, powers[1:], out=sums[1:])
    np.cumsum(sums, axis=0, out=sums)
    sums *= powers


def weighted(sums: FloatArray, weight: FloatArray) -> FloatArray:
    """Return decayed sums [..., M] and their weights [...] side by side, [..., M + 1]."""
    return np.concatenate([sums, weight[..., None]], axis=-1)
