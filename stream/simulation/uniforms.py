"""Uniform random numbers that are the same on every platform and with every version of NumPy."""

import numpy as np

from stream.events import FloatArray


class Uniforms:
    """A stream of uniform numbers in [0, 1).

    Made from the raw bits of PCG64, which NumPy keeps stable (NEP 19), unlike the distributions of `Generator`;
    everything else that a simulation draws is made of these by inversion.
    """

    def __init__(self, seed: int, stream: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(entropy=seed, spawn_key=(stream,)))

    def draw(self, n: int) -> FloatArray:
        """Return the next `n` numbers, multiples of 2**-53, shape [n]."""
        raw = np.asarray(self._bits.random_raw(n), dtype=np.uint64)
        return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def exponential(self, n: int) -> FloatArray:
        """Return `n` exponential numbers of mean 1."""
        return -np.log1p(-self.draw(n))

    def normal(self, n: int) -> FloatArray:
        """Return `n` standard normal numbers (Box & Muller 1958)."""
        radius = np.sqrt(2 * self.exponential(n))
        return radius * np.cos(2 * np.pi * self.draw(n))

    def arrivals(self, length: float) -> FloatArray:
        """Return the points of a unit-rate Poisson process on [0, length), ascending."""
        points = np.empty(0)
        last = 0.0
        while last < length:
            expected = length - last
            more = last + np.cumsum(self.exponential(int(expected + 4 * np.sqrt(expected)) + 8))
            points = np.concatenate([points, more])
            last = float(points[-1])
        return points[: int(np.searchsorted(points, length))]
