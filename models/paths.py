"""Dependent ranks for sample paths: which quantile each path follows at each step.

Ranks follow a Gaussian copula with a slow and a fast first-order autoregressive component, so that a path that is high
stays high for a while: sums over time then spread as they do in reality. Randomness is counter-based (Philox, Salmon et
al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): the numbers of a step depend on the key and the step alone.

Shape suffixes: H steps, P paths; 2 stands for the slow and the fast component.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.contract import FloatArray

_PER_COUNTER = 4  # 64-bit words that Philox4x64 makes of one counter


@dataclass(frozen=True, slots=True)
class RankDynamics:
    """How the rank of a sample path moves in time.

    Attributes:
        rho_slow, rho_fast: autocorrelation from step to step of the two components, in [0, 1).
        weight_slow: share of the variance that is slow, in [0, 1].
    """

    rho_slow: float
    rho_fast: float
    weight_slow: float

    def __post_init__(self) -> None:
        if not (0 <= self.rho_slow < 1 and 0 <= self.rho_fast < 1 and 0 <= self.weight_slow <= 1):
            raise ValueError(f"no stationary ranks with {self}")

    @classmethod
    def from_half_lives(cls, slow_steps: float, fast_steps: float, weight_slow: float) -> "RankDynamics":
        """Return the dynamics whose components lose half of their correlation after so many steps."""
        return cls(0.5 ** (1 / slow_steps), 0.5 ** (1 / fast_steps), weight_slow)


class RankPaths:
    """Ranks of `n_paths` sample paths, drawn chunk by chunk.

    Args:
        dynamics: how ranks move in time.
        key: what the randomness depends on, such as (seed, graph, purpose).
        n_paths: number of paths.
    """

    def __init__(self, dynamics: RankDynamics, *, key: Sequence[int | str], n_paths: int = 256) -> None:
        self.n_paths = n_paths
        self._next_step = 0
        digest = hashlib.blake2b(repr(tuple(key)).encode(), digest_size=16).digest()
        self._key = int.from_bytes(digest, "little")
        self._rho_21 = np.array([[dynamics.rho_slow], [dynamics.rho_fast]])
        self._weight_slow = dynamics.weight_slow
        self._last_2P = np.zeros((2, n_paths))

    def draw(self, n_steps: int) -> FloatArray:
        """Return the ranks [H, P] of the next `n_steps` steps, uniform on (0, 1) at each of them."""
        components_H2P = self._innovations(n_steps)
        # The first step of all is drawn from the stationary distribution.
        components_H2P[int(self._next_step == 0) :] *= np.sqrt(1 - self._rho_21**2)
        decayed_2P = np.empty_like(self._last_2P)
        last_2P = self._last_2P
        for h in range(n_steps):
            np.multiply(last_2P, self._rho_21, out=decayed_2P)
            last_2P = components_H2P[h]
            last_2P += decayed_2P
        self._last_2P = last_2P.copy()
        self._next_step += n_steps
        slow_HP, fast_HP = components_H2P[:, 0], components_H2P[:, 1]
        return _normal_cdf(np.sqrt(self._weight_slow) * slow_HP + np.sqrt(1 - self._weight_slow) * fast_HP)

    def _innovations(self, n_steps: int) -> FloatArray:
        """Return standard normals [H, 2, P] by Box and Muller, which always uses one 64-bit word for two numbers."""
        words = -(-self.n_paths // _PER_COUNTER) * _PER_COUNTER
        counter = self._next_step * (words // _PER_COUNTER)
        raw = np.random.Philox(key=self._key, counter=counter).random_raw(n_steps * words)
        raw_HP = np.asarray(raw).reshape(n_steps, words)[:, : self.n_paths]
        radius_HP = np.sqrt(-2 * np.log(((raw_HP >> np.uint64(32)) + 0.5) * 2.0**-32))
        angle_HP = (raw_HP & np.uint64(0xFFFFFFFF)) * (2 * np.pi * 2.0**-32)
        normals_H2P = np.empty((n_steps, 2, self.n_paths))
        np.multiply(radius_HP, np.cos(angle_HP), out=normals_H2P[:, 0])
        np.multiply(radius_HP, np.sin(angle_HP), out=normals_H2P[:, 1])
        return normals_H2P


def quantile_values(quantiles: FloatArray, levels: FloatArray, ranks: FloatArray) -> FloatArray:
    """Return the values [H, T, P] at `ranks` [H, P] of distributions given by quantiles [H, T, Q] at `levels` [Q].

    The quantile function is piecewise linear; its tails go on with the slope of the outermost pieces.
    """
    ranks = ranks[:, None]
    piece = np.searchsorted(levels[1:-1], ranks, side="right")
    slopes = np.diff(quantiles, axis=-1) / np.diff(levels)
    starts = quantiles[..., :-1] - slopes * levels[:-1]
    return np.asarray(np.take_along_axis(starts, piece, -1) + np.take_along_axis(slopes, piece, -1) * ranks)


def floored_mean(quantiles: FloatArray, levels: FloatArray) -> FloatArray:
    """Return the mean [...] of max(0, x) for x as in `quantile_values`; quantiles [..., Q] are >= 0 and increasing."""
    widths = np.diff(levels)
    slopes = np.diff(quantiles, axis=-1) / widths
    inner = ((quantiles[..., 1:] + quantiles[..., :-1]) / 2 * widths).sum(axis=-1)
    low, high = float(levels[0]), 1 - float(levels[-1])
    lowest = quantiles[..., 0]
    # From the lowest quantile down to rank 0, or to where the line meets 0.
    reach = np.minimum(low, np.divide(lowest, slopes[..., 0], out=np.full_like(lowest, low), where=slopes[..., 0] > 0))
    tails = reach * (lowest - slopes[..., 0] * reach / 2) + high * (quantiles[..., -1] + slopes[..., -1] * high / 2)
    return np.asarray(inner + tails)


def _normal_cdf(z: FloatArray) -> FloatArray:
    """Standard normal distribution function to 1e-7 (Abramowitz and Stegun 1964, formula 26.2.17)."""
    size = np.abs(z)
    t = 1 / (1 + 0.2316419 * size)
    poly = t * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))))
    tail = poly * np.exp(-0.5 * size * size) * 0.3989422804014327
    return np.where(z > 0, 1 - tail, tail)
