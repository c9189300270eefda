"""From where a backtest forecasts, how far, and over which ranges of horizons it averages."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from infra.errors import UsageError
from infra.schema import MAX_HORIZON_STEPS
from infra.steps import DAY_US, format_duration, format_time
from models.contract import History
from models.scoring import HORIZON_BUCKETS
from models.seasons import season_steps
from models.sums import whole_periods

# Steps of the last window that are kept for a chart.
MAX_FAN_STEPS = 336


@dataclass(frozen=True, slots=True)
class Plan:
    """A backtest of one graph.

    Attributes:
        horizons: steps ahead; scores are given from step 1 up to each.
        window: the longest of them.
        stride: steps from origin to origin.
        origins: steps before each origin, increasing.
        ranges: the ranges of horizons that are averaged over, first and last step included.
        periods: steps of each period that is summed over.
        seed: seed of the sample paths of totals.
    """

    horizons: tuple[int, ...]
    window: int
    stride: int
    origins: tuple[int, ...]
    ranges: tuple[tuple[int, int], ...]
    periods: dict[str, int]
    seed: int

    @property
    def first_origin(self) -> int:
        """Steps before the first origin."""
        return self.origins[0]

    def fan_steps(self, origin: int) -> int:
        """Return how many steps of the forecast from `origin` are kept for a chart: some of the last, else none."""
        return min(self.window, MAX_FAN_STEPS) if origin == self.origins[-1] else 0

    def part_key(self, origin: int) -> dict[str, Any]:
        """Return what the scores of one origin depend on, beside history and model, as JSON values."""
        return {
            "origin": origin,
            "window": self.window,
            "ranges": [list(bounds) for bounds in self.ranges],
            "periods": self.periods,
            "seed": self.seed,
            "fan": self.fan_steps(origin),
        }

    def data_digests(self, history: History) -> list[str]:
        """Return by origin a digest of all steps up to the end of its window."""
        running = hashlib.sha256(f"{history.step_us} {history.start_us}".encode())
        digests, done = [], 0
        for origin in self.origins:
            end = origin + self.window
            running.update(history.values[done:end].astype("<f8").tobytes())
            digests.append(running.hexdigest())
            done = end
        return digests

    def protocol(self, history: History) -> dict[str, Any]:
        """Return what was done, as JSON values."""
        season = season_steps(history.step_us)
        return {
            "step": format_duration(history.step_us),
            "steps": len(history),
            "season_steps": season,
            "origins": len(self.origins),
            "first_origin": format_time(history.start_us + self.first_origin * history.step_us),
            "until": format_time(history.start_us + (self.origins[-1] + self.window) * history.step_us),
            "window_steps": self.window,
            "stride_steps": self.stride,
            "horizons": list(self.horizons),
            "mase_scale": f"mean |y[t] - y[t - {season}]| over the {self.first_origin} steps before the first origin",
            "point": "median",
            "seed": self.seed,
        }


def make_plan(
    history: History,
    *,
    horizons: Sequence[int],
    origins: int,
    test_start: int | None = None,
    stride: int | None = None,
    seed: int = 0,
) -> Plan:
    """Return a plan; the windows lie from `test_start` on, or so that the last ends with the history.

    Raises:
        UsageError: the history is too short, or a horizon, the origins or the start make no sense.
    """
    window = _window(horizons)
    stride = window if stride is None else stride
    first = _first_origin(history, window, origins, stride, test_start)
    return Plan(
        horizons=tuple(horizons),
        window=window,
        stride=stride,
        origins=tuple(range(first, first + origins * stride, stride)),
        ranges=_ranges(horizons, window),
        periods=whole_periods(history.step_us),
        seed=seed,
    )


def origin_stride(window: int, season: int) -> int:
    """Return steps from origin to origin that spread a few origins over all positions of the season.

    Origins a whole number of seasons apart would only ever forecast from, say, Monday at noon. The stride is the golden
    section of a season, moved to a number without a common divisor with the season, and so many seasons beside as the
    window needs.
    """
    shift = max(1, round(season * (3 - math.sqrt(5)) / 2))
    while math.gcd(shift, season) > 1:
        shift += 1
    return max(0, -(-(window - shift) // season)) * season + shift


def default_horizons(step_us: int) -> tuple[int, ...]:
    """Return the horizons in steps of a graph for which none were asked: the next step, day and season."""
    day, season = round(DAY_US / step_us), season_steps(step_us)
    return tuple(sorted({1, season} | ({day} if 1 < day < season else set())))


def spread_windows(tested: int, window: int, most: int) -> tuple[int, int]:
    """Return how many windows without overlap are spread over a test part, at most `most`, and how far apart.

    Args:
        tested: steps of the test part, at least a window.
        window: steps of a window.
        most: of them.
    """
    origins = max(1, min(most, tested // window))
    return origins, (tested - window) // (origins - 1) if origins > 1 else window


def _window(horizons: Sequence[int]) -> int:
    if not horizons or min(horizons) < 1 or max(horizons) > MAX_HORIZON_STEPS:
        raise UsageError(f"horizons must lie between 1 and {MAX_HORIZON_STEPS:,} steps, not {list(horizons)}")
    return max(horizons)


def _first_origin(history: History, window: int, origins: int, stride: int, test_start: int | None) -> int:
    if origins < 1:
        raise UsageError(f"a backtest needs at least one origin, not {origins}")
    if stride < window:
        raise UsageError(f"windows of {window} steps would overlap with origins {stride} steps apart")
    tested = (origins - 1) * stride + window
    first_origin = len(history) - tested if test_start is None else test_start
    if first_origin < 1 or first_origin + tested > len(history):
        raise UsageError(
            f"{origins} windows of {window} steps do not fit into {len(history)} steps of history"
            + (" with steps before the first" if test_start is None else f" from step {test_start} on"),
            fix="take fewer origins or a shorter horizon, or ingest more history",
        )
    return first_origin


def _ranges(horizons: Sequence[int], window: int) -> tuple[tuple[int, int], ...]:
    buckets = [bucket for bucket in HORIZON_BUCKETS if bucket[0] <= window]
    cumulative = [(1, horizon) for horizon in sorted(set(horizons))]
    return tuple(dict.fromkeys(buckets + cumulative))
