"""Snapshots at the resolution of a screen: the least, the mean and the largest value of buckets of steps.

Buckets keep both extremes, as M4 does (Jugel et al., VLDB 2014), so that no spike is lost on the way to a pixel. They
are aligned as steps are, weeks to Monday, not to the range asked for: while one pans, a bucket keeps its steps and does
not flicker. Those of hours and more hold whole days or weeks, or the rhythm of these would show as a beat that is not
there.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infra.steps import WEEK_US, step_origin_us
from models.contract import FloatArray
from stream.store.base import SnapshotTable

_DAY_US = WEEK_US // 7


@dataclass(frozen=True, slots=True)
class Buckets:
    """Downsampled snapshots.

    Attributes:
        steps_per_bucket: 1 where every step stands for itself.
        start_us: [B] int64, start of the first step in each bucket.
        steps: [B] int64, how many steps it holds; fewer at both ends of a range.
        least, mean, largest: [B, M] float64; equal where a bucket holds one step.
    """

    steps_per_bucket: int
    start_us: npt.NDArray[np.int64]
    steps: npt.NDArray[np.int64]
    least: FloatArray
    mean: FloatArray
    largest: FloatArray

    def __len__(self) -> int:
        return len(self.start_us)


def steps_per_bucket(steps: int, most: int, step_us: int) -> int:
    """Return how many steps go into a bucket so that at most `most` (≥ 2) aligned buckets hold a range of `steps`."""
    if steps <= most:
        return 1
    size = -(-steps // (most - 1))
    for rhythm_us, from_us in ((WEEK_US, 2 * _DAY_US), (_DAY_US, _DAY_US // 4)):
        if rhythm_us % step_us == 0 and size * step_us > from_us:
            period = rhythm_us // step_us
            return -(-size // period) * period
    return size


def downsample(table: SnapshotTable, most: int) -> Buckets:
    """Return at most `most` (≥ 2) buckets of a table without a gap; exactly its steps where it has no more."""
    size = steps_per_bucket(len(table), most, table.step_us)
    if size == 1:
        ones = np.ones(len(table), dtype=np.int64)
        return Buckets(1, table.step_start_us, ones, table.values, table.values, table.values)
    size_us = size * table.step_us
    number = (table.step_start_us - step_origin_us(size_us)) // size_us
    first = np.flatnonzero(np.diff(number, prepend=number[0] - 1))
    steps = np.diff(first, append=len(table))
    return Buckets(
        steps_per_bucket=size,
        start_us=table.step_start_us[first],
        steps=steps,
        least=np.minimum.reduceat(table.values, first),
        mean=np.add.reduceat(table.values, first) / steps[:, None],
        largest=np.maximum.reduceat(table.values, first),
    )
