"""Event time: the step of an event, watermarks, late events, and up to where steps can close.

Whether an event is late is a function of the log alone: it is judged against the watermark that its own partition
had *before* it, event by event, so neither the cut into batches nor the interleaving of partitions matters.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infra.steps import step_origin_us, step_start_us
from stream.events import IntArray

# Before any event time; far enough from the int64 limits that durations can be added and taken away.
NEVER_US = -(2**62)


@dataclass(frozen=True, slots=True)
class Clock:
    """The event time that one partition has reached.

    Attributes:
        watermark_us: no event of an earlier step is expected any more; never falls.
        max_ts_us: the largest event time seen.
    """

    watermark_us: int = NEVER_US
    max_ts_us: int = NEVER_US


def step_starts_us(ts_us: IntArray, step_us: int) -> IntArray:
    """Return the start of the step that holds each of `ts_us` [n]; the array form of `infra.steps.step_start_us`."""
    return ts_us - (ts_us - step_origin_us(step_us)) % step_us


def judge_late(
    ts_us: IntArray, step_us: int, clock: Clock, out_of_orderness_us: int
) -> tuple[npt.NDArray[np.bool_], Clock]:
    """Return which events of one partition are late, and the clock after them.

    An event is late when its step ends at or before the watermark (largest event time − out-of-orderness bound)
    that the partition had before the event.

    Args:
        ts_us: [n] event times in the order of the log.
        step_us: step size.
        clock: the partition's clock before the first of them.
        out_of_orderness_us: how far behind the largest event time an event may come.
    """
    if not len(ts_us):
        return np.zeros(0, dtype=np.bool_), clock
    reached = np.maximum.accumulate(np.concatenate(([clock.watermark_us + out_of_orderness_us], ts_us)))
    watermark_us = reached - out_of_orderness_us
    late = step_starts_us(ts_us, step_us) + step_us <= watermark_us[:-1]
    return late, Clock(int(watermark_us[-1]), max(clock.max_ts_us, int(ts_us.max())))


def closing_time_us(clocks: Iterable[Clock], step_us: int, *, end: bool) -> int:
    """Return the time up to which steps close: the minimum watermark, at the end of the source its last step's end.

    Every graph of an ended source closes up to the source's last event, so a graph that fell silent earlier ends
    with empty steps: the log says that nothing happened there.
    """
    clocks = list(clocks)
    closing_us = min(clock.watermark_us for clock in clocks)
    last_us = max(clock.max_ts_us for clock in clocks)
    if end and last_us > NEVER_US:
        closing_us = max(closing_us, step_start_us(last_us, step_us) + step_us)
    return closing_us
