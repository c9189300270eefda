"""Scores of sums over whole days and weeks of a forecast: hours may miss where the day does not.

Shape suffixes: H steps ahead, M metrics, B blocks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from infra.schema import METRICS, Kind
from infra.steps import DAY_US, WEEK_US
from models.contract import FloatArray

_IS_COUNT = np.array([metric.kind is Kind.COUNT for metric in METRICS])


def whole_periods(step_us: int) -> dict[str, int]:
    """Return the periods that hold several steps, day and week, and how many each; only those that steps divide."""
    periods = {"day": DAY_US, "week": WEEK_US}
    return {name: us // step_us for name, us in periods.items() if us > step_us and us % step_us == 0}


@dataclass(slots=True)
class SumTally:
    """Absolute errors of sums over blocks of steps, counted from the first step ahead; a last part block is left out.

    What is compared is the sum of the means and the sum of the medians. The mean of a sum is the sum of the means; the
    median of a sum is not that of the medians, so the second says only what a reader of medians would get.

    Attributes:
        steps: steps of a block.
    """

    steps: int
    _blocks: int = 0
    _seen: FloatArray = field(default_factory=lambda: np.zeros((3, len(METRICS))))
    _rest: FloatArray = field(default_factory=lambda: np.zeros((3, 0, len(METRICS))))

    def add(self, observed_HM: FloatArray, mean_HM: FloatArray, median_HM: FloatArray) -> None:
        """Add the next steps of a window; its first comes first."""
        rows = np.concatenate([self._rest, np.stack([observed_HM, mean_HM, median_HM])], axis=1)
        count = rows.shape[1] // self.steps
        sums_3BM = rows[:, : count * self.steps].reshape(3, count, self.steps, rows.shape[2]).sum(axis=2)
        self._rest = rows[:, count * self.steps :].copy()
        self._blocks += count
        self._seen[0] += np.abs(sums_3BM[0]).sum(axis=0)
        self._seen[1:] += np.abs(sums_3BM[1:] - sums_3BM[0]).sum(axis=1)

    def wape(self) -> tuple[FloatArray, FloatArray, int]:
        """Return the errors [M] of the mean's and the median's sums over the sums themselves, and of how many blocks.

        NaN where nothing happened, and for metrics that are not counts: sums of shares or totals mean nothing.
        """
        size_M, mean_M, median_M = self._seen
        usable_M = _IS_COUNT & (size_M > 0)
        ratios = [
            np.divide(error_M, size_M, out=np.full_like(size_M, np.nan), where=usable_M)
            for error_M in (mean_M, median_M)
        ]
        return ratios[0], ratios[1], self._blocks

    def arrays(self) -> dict[str, FloatArray]:
        """Return what whole blocks gave, to be kept; see `of`."""
        return {"blocks": np.array([self.steps, self._blocks], dtype=np.float64), "seen": self._seen}

    @classmethod
    def of(cls, arrays: Mapping[str, FloatArray]) -> "SumTally":
        """Invert `arrays`."""
        steps, blocks = (int(value) for value in arrays["blocks"])
        return cls(steps, blocks, arrays["seen"])

    @classmethod
    def merged(cls, tallies: "list[SumTally]") -> "SumTally":
        """Return the sum of tallies of the same blocks, each of a window of its own."""
        seen = np.sum([tally._seen for tally in tallies], axis=0)
        return cls(tallies[0].steps, sum(tally._blocks for tally in tallies), seen)
