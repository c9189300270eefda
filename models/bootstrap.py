"""Standard errors of averages over successive origins, by the block bootstrap without drawing.

Shape suffixes: O origins, then any.
"""

import math

import numpy as np

from models.contract import FloatArray


def block_length(origins: int) -> int:
    """Return how many successive origins make a block: the cube root of their number (Hall, Horowitz and Jing 1995)."""
    return max(1, round(math.cbrt(origins)))


def block_bootstrap_error(values: FloatArray) -> FloatArray:
    """Return the standard error [...] of the mean over origins of `values` [O, ...].

    Circular block bootstrap (Politis and Romano 1992): means of O / b blocks of b successive origins, drawn with
    replacement from all O. Its standard error without drawing is that of the O block means over the root of O / b. NaN
    for a single origin.
    """
    count = len(values)
    if count < 2:
        return np.full(values.shape[1:], np.nan)
    length = block_length(count)
    blocks = np.mean([np.roll(values, -shift, axis=0) for shift in range(length)], axis=0)
    return np.asarray(np.sqrt(((blocks - values.mean(axis=0)) ** 2).mean(axis=0) / (count / length)))
