"""When the events of a simulated network happen, and which event each one answers.

A self-exciting point process (Hawkes 1971) in its cluster form (Hawkes & Oakes 1974): threads are opened by a Poisson
process whose rate follows the calendar, and every event draws responses, which draw responses in turn. Responses wait
in the network's own time, which runs slowly at night, so that the branching ratio is exact at every hour.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from infra.steps import HOUR_US
from stream.events import FloatArray, IntArray
from stream.simulation.config import HOURS_PER_YEAR, SimulationConfig
from stream.simulation.uniforms import Uniforms

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOLIDAYS = frozenset({(1, 1), (5, 1), (12, 24), (12, 25), (12, 26), (12, 31)})  # (month, day)
_ATTENTION_HOURS = 48.0  # e-folding time of the news cycle
_FAST_SHARE, _FAST_HOURS = 0.65, 0.2  # responses at once: exponential delay
_SLOW_HOURS, _SLOW_TAIL = 2.0, 1.0  # responses in due course: power law (Crane & Sornette 2008)
_LONGEST_HOURS = 24.0 * 28
_MOST_VIRAL = 60.0  # times the smallest expected number of responses


@dataclass(frozen=True, slots=True)
class Occurrences:
    """Events in time order.

    Attributes:
        ts_us: [n] UTC microseconds, whole seconds, ascending.
        parent: [n] the event that this one answers, always an earlier row; -1 for one that opens a thread.
    """

    ts_us: IntArray
    parent: IntArray

    def __len__(self) -> int:
        return len(self.ts_us)


def simulate_times(config: SimulationConfig) -> Occurrences:
    """Draw all event times and the trees of responses."""
    uniforms = Uniforms(config.seed, stream=1)
    rhythm = calendar_rhythm(config)
    hours = np.arange(config.hours + 1, dtype=np.float64)
    network_time = np.concatenate([[0.0], np.cumsum(rhythm / rhythm.mean())])
    threads = _open_threads(config, rhythm, uniforms)

    generations = [np.interp(threads, network_time, hours)]
    parents = [np.full(len(threads), -1, dtype=np.int64)]
    moments, first = threads, 0
    while len(moments):
        index, delays = _responses(config, len(moments), uniforms)
        next_moments = moments[index] + delays
        inside = next_moments < network_time[-1]
        parents.append(first + index[inside])
        first += len(moments)
        moments = next_moments[inside]
        generations.append(np.interp(moments, network_time, hours))

    # Whole seconds: sums and logarithms may differ in the last bit between platforms, the events must not.
    seconds = np.floor(np.concatenate(generations) * 3600).astype(np.int64)
    order = np.argsort(seconds, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    parent = np.concatenate(parents)[order]
    parent[parent >= 0] = rank[parent[parent >= 0]]
    return Occurrences(ts_us=config.start_us + seconds[order] * 1_000_000, parent=parent)


def calendar_rhythm(config: SimulationConfig) -> FloatArray:
    """Return the relative activity of each hour [hours]: time of day, day of the week, season and holidays."""
    hour = np.arange(config.hours) + config.start_us / HOUR_US
    angle = 2 * np.pi * (hour % 24) / 24
    day = np.exp(0.9 * np.cos(angle - 2 * np.pi * 15 / 24) + 0.25 * np.cos(2 * angle - 4 * np.pi * 20 / 24))
    epoch_day = (hour // 24).astype(np.int64)
    weekday = (epoch_day + 3) % 7  # 1970-01-01 was a Thursday
    week = np.where(weekday >= 5, config.weekend_activity, 1.0)
    season = 1 + config.yearly_swing * np.cos(2 * np.pi * (hour / HOURS_PER_YEAR - 30 / 365.25))
    days, day_index = np.unique(epoch_day, return_inverse=True)
    dates = [_EPOCH + timedelta(days=int(number)) for number in days]
    holiday = np.array([(date.month, date.day) in _HOLIDAYS for date in dates])[day_index]
    return np.asarray(day * week * season * np.where(holiday, config.holiday_activity, 1.0), dtype=np.float64)


def _open_threads(config: SimulationConfig, rhythm: FloatArray, uniforms: Uniforms) -> FloatArray:
    """Draw the moments, in network time, at which threads are opened.

    The points of a unit-rate process are mapped through the inverse of the integrated rate (Çinlar 1975). In network
    time the rhythm is already contained, so that only growth and attention are left in the rate.
    """
    hours = config.hours
    growth = (1 + config.growth_per_year) ** (np.arange(hours) / HOURS_PER_YEAR)
    rate = config.events_per_hour * (1 - config.branching) * growth * _attention(config, uniforms)
    passed = np.cumsum(rhythm / rhythm.mean())
    integrated = np.cumsum(rate * rhythm / rhythm.mean())
    arrivals = uniforms.arrivals(float(integrated[-1]))
    moments = np.interp(arrivals, np.concatenate([[0.0], integrated]), np.concatenate([[0.0], passed]))
    return np.asarray(moments, dtype=np.float64)


def _attention(config: SimulationConfig, uniforms: Uniforms) -> FloatArray:
    """Draw the slow noise of the rate [hours], of mean 1: the exponential of an autoregressive process of order 1."""
    memory = float(np.exp(-1 / _ATTENTION_HOURS))
    shocks = uniforms.normal(config.hours) * config.attention_sd
    shocks[1:] *= np.sqrt(1 - memory**2)
    level, levels = 0.0, []
    for shock in shocks.tolist():
        level = memory * level + shock
        levels.append(level)
    return np.exp(np.array(levels) - config.attention_sd**2 / 2)


def _responses(config: SimulationConfig, n: int, uniforms: Uniforms) -> tuple[IntArray, FloatArray]:
    """Draw the direct responses to `n` events: whom each answers [m], and its delay in hours of network time [m].

    How many an event draws is Poisson with a mean of its own, truncated Pareto with mean `branching`. The numbers of
    all events at once are the points of one unit-rate process laid over their concatenated means.
    """
    tail = config.virality
    beyond = _MOST_VIRAL**-tail
    marks = (1 - uniforms.draw(n) * (1 - beyond)) ** (-1 / tail)
    mean_mark = tail / (tail - 1) * (1 - _MOST_VIRAL ** (1 - tail)) / (1 - beyond)
    edges = np.cumsum(config.branching / mean_mark * marks)
    arrivals = uniforms.arrivals(float(edges[-1]))
    index = np.minimum(np.searchsorted(edges, arrivals, side="right"), n - 1)

    kind, size = uniforms.draw(len(index)), uniforms.draw(len(index))
    fast = -_FAST_HOURS * np.log1p(-size)
    beyond = (1 + _LONGEST_HOURS / _SLOW_HOURS) ** -_SLOW_TAIL
    slow = _SLOW_HOURS * ((1 - size * (1 - beyond)) ** (-1 / _SLOW_TAIL) - 1)
    return index.astype(np.int64), np.where(kind < _FAST_SHARE, fast, slow)
