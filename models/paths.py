"""Dependent ranks for sample paths: which quantile of each metric a path follows at each step.

Ranks follow a Gaussian copula with a slow and a fast first-order autoregressive component, so that a path that is high
stays high for a while: sums over time then spread as they do in reality. The innovations of all metrics share one
factor, so that a busy hour is busy in every metric. Randomness is counter-based (Philox, Salmon et al. 2011, "Parallel
random numbers: as easy as 1, 2, 3"): the numbers of a step depend on the key and the step alone.

Shape suffixes: H steps, K fields (one a metric), P paths; 2 stands for the slow and the fast component.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.special import ndtr

from models.contract import FloatArray

# Steps whose numbers come from one counter: the ziggurat uses a varying number of words.
_STEPS_PER_COUNTER = 16


@dataclass(frozen=True, slots=True)
class RankDynamics:
    """How the rank of a sample path moves in time.

    Attributes:
        rho_slow, rho_fast: autocorrelation from step to step of the two components, in [0, 1).
        weight_slow: share of the variance that is slow, in [0, 1], where no other is given step by step.
    """

    rho_slow: float
    rho_fast: float
    weight_slow: float

    def __post_init__(self) -> None:
        if not (0 <= self.rho_slow < 1 and 0 <= self.rho_fast < 1 and 0 <= self.weight_slow <= 1):
            raise ValueError(f"no stationary ranks with {self}")

    def rescaled(self, factor: float) -> "RankDynamics":
        """Return the same dynamics in time where a step is `factor` as long."""
        return RankDynamics(self.rho_slow**factor, self.rho_fast**factor, self.weight_slow)


@dataclass(frozen=True, slots=True)
class RankStructure:
    """How the ranks of several fields hang together.

    Attributes:
        dynamics: [K] how each moves in time.
        loadings: [K] correlation of the innovations of each with those of the factor that all share, in [-1, 1].
    """

    dynamics: tuple[RankDynamics, ...]
    loadings: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.dynamics) != len(self.loadings) or not all(abs(loading) <= 1 for loading in self.loadings):
            raise ValueError(f"{len(self.dynamics)} dynamics need as many loadings in [-1, 1], not {self.loadings}")

    def rescaled(self, factor: float) -> "RankStructure":
        """Return the same structure in time where a step is `factor` as long."""
        return RankStructure(tuple(one.rescaled(factor) for one in self.dynamics), self.loadings)

    @classmethod
    def one(cls, dynamics: RankDynamics) -> "RankStructure":
        """Return the structure of a single field."""
        return cls((dynamics,), (1.0,))


class RankPaths:
    """Ranks of `n_paths` sample paths, drawn chunk by chunk.

    Args:
        structure: how ranks move in time and together.
        key: what the randomness depends on, such as (seed, graph, purpose).
        n_paths: number of paths.
    """

    def __init__(self, structure: RankStructure, *, key: Sequence[int | str], n_paths: int = 256) -> None:
        self.n_paths = n_paths
        self._next_step = 0
        digest = hashlib.blake2b(repr(tuple(key)).encode(), digest_size=16).digest()
        self._key = int.from_bytes(digest, "little")
        dynamics = structure.dynamics
        self._rho_2K1 = np.array([[d.rho_slow for d in dynamics], [d.rho_fast for d in dynamics]])[..., None]
        weight_K = np.array([d.weight_slow for d in dynamics])
        self._weight_2K1 = np.sqrt([weight_K, 1 - weight_K])[..., None]
        self._loading_K1 = np.array(structure.loadings)[:, None]
        self._last_2KP = np.zeros((2, len(dynamics), n_paths))
        self._block: tuple[int, FloatArray] | None = None

    def draw(self, n_steps: int, slow_HK: FloatArray | None = None) -> FloatArray:
        """Return the ranks [H, K, P] of the next `n_steps` steps, uniform on (0, 1) at each of them.

        `slow_HK` is the share of the variance that is slow, step by step; that of the dynamics if None. Shares [H, K]
        of a single field give K ranks a path that differ in nothing else.
        """
        if slow_HK is None:
            weights_H2K1 = np.broadcast_to(self._weight_2K1, (n_steps, *self._weight_2K1.shape))
        else:
            weights_H2K1 = np.sqrt(np.stack([slow_HK, 1 - slow_HK], axis=1))[..., None]
        ranks_HKP = np.empty((n_steps, weights_H2K1.shape[2], self.n_paths))
        done = 0
        # Block by block: what a block takes stays in the processor's cache.
        while done < n_steps:
            number, within = divmod(self._next_step, _STEPS_PER_COUNTER)
            components_B2KP = self._innovations(number)[within : within + n_steps - done].copy()
            # The first step of all is drawn from the stationary distribution.
            components_B2KP[int(self._next_step == 0) :] *= np.sqrt(1 - self._rho_2K1**2)
            decayed_2KP, last_2KP = np.empty_like(self._last_2KP), self._last_2KP
            for b in range(len(components_B2KP)):
                np.multiply(last_2KP, self._rho_2K1, out=decayed_2KP)
                last_2KP = components_B2KP[b]
                last_2KP += decayed_2KP
            self._last_2KP = last_2KP.copy()
            upto = done + len(components_B2KP)
            scores_BKP = components_B2KP[:, 0] * weights_H2K1[done:upto, 0]
            scores_BKP += components_B2KP[:, 1] * weights_H2K1[done:upto, 1]
            ndtr(scores_BKP, out=ranks_HKP[done:upto])
            self._next_step += upto - done
            done = upto
        return ranks_HKP

    def _innovations(self, block: int) -> FloatArray:
        """Return standard normals [_STEPS_PER_COUNTER, 2, K, P] of a block of steps."""
        if self._block is None or self._block[0] != block:
            # A block has 2^64 counters of its own.
            generator = np.random.Generator(np.random.Philox(key=self._key, counter=block << 64))
            n_fields = self._last_2KP.shape[1]
            n_drawn = n_fields + 1 if n_fields > 1 else 1
            drawn = generator.standard_normal((_STEPS_PER_COUNTER, 2, n_drawn, self.n_paths))
            if n_fields > 1:
                own = np.sqrt(1 - self._loading_K1**2) * drawn[:, :, 1:]
                drawn = own + self._loading_K1 * drawn[:, :, :1]
            self._block = block, drawn
        return self._block[1]


def add_up(values: FloatArray) -> None:
    """Put running sums along the first axis in the place of values: `cumsum`, to the bit, in a tenth of its time."""
    for before, value in pairwise(values):
        np.add(value, before, out=value)


def quantile_values(quantiles: FloatArray, levels: FloatArray, ranks: FloatArray) -> FloatArray:
    """Return the values [H, T, P] at `ranks` [H, T or 1, P] of distributions given by quantiles [H, T, Q] at `levels`.

    The quantile function is piecewise linear; its tails go on with the slope of the outermost pieces.
    """
    piece = np.zeros(ranks.shape, dtype=np.int8)
    for level in levels[1:-1]:
        # Faster than a search: there are few levels, and comparisons are made several at once.
        piece += ranks >= level
    slopes = np.diff(quantiles, axis=-1) / np.diff(levels)
    starts = quantiles[..., :-1] - slopes * levels[:-1]
    shape = (*quantiles.shape[:-1], ranks.shape[-1])
    at = np.arange(starts[..., 0].size).reshape(starts[..., :1].shape) * starts.shape[-1]
    places = (at + np.broadcast_to(piece, shape)).ravel()
    values = slopes.ravel()[places].reshape(shape)
    values *= ranks
    values += starts.ravel()[places].reshape(shape)
    return np.asarray(values)


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
