"""Sums in which the past fades, for many steps at a time."""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def decayed_sums(initial: FloatArray, x: FloatArray, decay: FloatArray) -> FloatArray:
    """Return s[0..n] with s[0] = initial and s[i + 1] = decay * s[i] + x[i], along axis 0: shape [n + 1, ...].

    `decay` has the axes of `initial`, or 1 in their place. Callers keep n small against -1 / log(decay), so that the
    powers stay in range.
    """
    steps = np.arange(len(x) + 1.0).reshape(-1, *([1] * initial.ndim))
    powers = decay**steps
    sums = np.empty((len(x) + 1, *initial.shape))
    sums[0] = initial
    np.divide(x, powers[1:], out=sums[1:])
    np.cumsum(sums, axis=0, out=sums)
    sums *= powers
    return sums


def weighted(sums: FloatArray, weight: FloatArray) -> FloatArray:
    """Return decayed sums [..., M] and their weights [...] side by side, [..., M + 1]."""
    return np.concatenate([sums, np.asarray(weight)[..., None]], axis=-1)
