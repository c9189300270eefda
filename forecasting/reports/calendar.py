"""Calendar periods in UTC: days, weeks from Monday, months, years. A step belongs to the period that it starts in."""

from enum import StrEnum

import numpy as np
import numpy.typing as npt

from infra.steps import DAY_US, MONDAY_US, WEEK_US

Times = npt.NDArray[np.int64]
# Shortest length of each in microseconds.
_SHORTEST_US = {"day": DAY_US, "week": WEEK_US, "month": 28 * DAY_US, "year": 365 * DAY_US}
# Two periods may differ by a step: in years of weeks, whose sums are worth more than none, by no more than this share.
_UNEVEN_SHARE = 0.02


class Scale(StrEnum):
    """How long a period is."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    YEAR = "year"

    def number_of(self, times_us: Times) -> Times:
        """Return the number of the period that holds each time; consecutive periods have consecutive numbers."""
        if self is Scale.DAY:
            return np.asarray(times_us // DAY_US)
        if self is Scale.WEEK:
            return np.asarray((times_us - MONDAY_US) // WEEK_US)
        unit = "M" if self is Scale.MONTH else "Y"
        return np.asarray(times_us.astype("datetime64[us]").astype(f"datetime64[{unit}]").astype(np.int64))

    def start_us(self, numbers: Times) -> Times:
        """Return when each period starts; the next one's start is its end."""
        if self is Scale.DAY:
            return np.asarray(numbers * DAY_US)
        if self is Scale.WEEK:
            return np.asarray(numbers * WEEK_US + MONDAY_US)
        unit = "M" if self is Scale.MONTH else "Y"
        return np.asarray(numbers.astype(f"datetime64[{unit}]").astype("datetime64[us]").astype(np.int64))

    def holds_steps_of(self, step_us: int) -> bool:
        """Tell whether a period holds more than one step, so that there is something to aggregate."""
        return 2 * step_us <= _SHORTEST_US[self]

    def is_even(self, step_us: int) -> bool:
        """Tell whether all periods hold as many steps, give or take 2 %, so that their sums can be compared."""
        if self is Scale.MONTH:
            return False
        # A leap day moves the steps against the years, whatever divides the others.
        is_divided = self is not Scale.YEAR and _SHORTEST_US[self] % step_us == 0
        return is_divided or step_us <= _UNEVEN_SHARE * _SHORTEST_US[self]


def scales_of(step_us: int) -> list[Scale]:
    """Return the scales that steps of this length can be aggregated to, the shortest first."""
    return [scale for scale in Scale if scale.holds_steps_of(step_us)]
