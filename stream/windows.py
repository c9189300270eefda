"""Event time: the step of an event, watermarks, late events, up to where steps close and up to where they are final.

Whether an event is late is a function of the log alone: it is judged against the watermark that its own partition
had *before* it, event by event, so neither the cut into batches nor the interleaving of partitions matters. Steps close
by the minimum over the partitions that are not idle, so an event that is not late can still find its step closed: its
partition was idle, or lateness is allowed. It then revises the step, until the step is final.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

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


class Hand(NamedTuple):
    """A partition's clock, and whether the partition is idle."""

    clock: Clock
    idle: bool


def step_starts_us(ts_us: IntArray, step_us: int) -> IntArray:
    """Return the start of the step that holds each of `ts_us` [n]; the array form of `infra.steps.step_start_us`."""
    return ts_us - (ts_us - step_origin_us(step_us)) % step_us


def judge_late(
    ts_us: IntArray, step_us: int, clock: Clock, out_of_orderness_us: int, allowed_lateness_us: int = 0
) -> tuple[npt.NDArray[np.bool_], Clock]:
    """Return which events of one partition are late, and the clock after them.

    An event is late when its step ended by more than the allowed lateness before the watermark (largest event time −
    out-of-orderness bound) that the partition had before the event.

    Args:
        ts_us: [n] event times in the order of the log.
        step_us: step size.
        clock: the partition's clock before the first of them.
        out_of_orderness_us: how far behind the largest event time an event may come.
        allowed_lateness_us: how long after its step an event still counts.
    """
    if not len(ts_us):
        return np.zeros(0, dtype=np.bool_), clock
    reached = np.maximum.accumulate(np.concatenate(([clock.watermark_us + out_of_orderness_us], ts_us)))
    watermark_us = reached - out_of_orderness_us
    late = step_starts_us(ts_us, step_us) + (step_us + allowed_lateness_us) <= watermark_us[:-1]
    return late, Clock(int(watermark_us[-1]), max(clock.max_ts_us, int(ts_us.max())))


def closing_time_us(hands: Collection[Hand], step_us: int, *, end: bool, close_last: bool = True) -> int:
    """Return the time up to which steps close: the minimum watermark, at the end of the source its last step's end.

    Without `close_last` that is the last step's start: the source ends where its log was cut off.

    Idle partitions are not waited for; where all are idle, the one that came furthest counts. Every graph of an ended
    source closes up to the source's last event, so a graph that fell silent earlier ends with empty steps: the log
    says that nothing happened there.
    """
    active = [hand.clock.watermark_us for hand in hands if not hand.idle]
    closing_us = min(active) if active else max((hand.clock.watermark_us for hand in hands), default=NEVER_US)
    last_us = max((hand.clock.max_ts_us for hand in hands), default=NEVER_US)
    if end and last_us > NEVER_US:
        closing_us = max(closing_us, step_start_us(last_us, step_us) + (step_us if close_last else 0))
    return closing_us


def final_time_us(hands: Collection[Hand], *, allowed_lateness_us: int, idle_hold_us: int) -> int:
    """Return the time before which no event can come that counts: steps that end by then are final.

    It is the minimum watermark over all partitions, less the allowed lateness. An idle partition holds it back by at
    most `idle_hold_us` of event time behind the others; older events of its, should it come back, find their step
    final. A partition that never had an event and is idle holds nothing back.
    """
    active = [hand.clock.watermark_us for hand in hands if not hand.idle]
    idle = [hand.clock.watermark_us for hand in hands if hand.idle and hand.clock.watermark_us > NEVER_US]
    if not active and not idle:
        return NEVER_US
    reached_us = min(active) if active else max(idle)
    if reached_us <= NEVER_US:
        return NEVER_US
    held_us = max(min(idle, default=reached_us), reached_us - idle_hold_us)
    return min(reached_us, held_us) - allowed_lateness_us
