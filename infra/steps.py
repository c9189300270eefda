"""Step sizes and their alignment: half-open intervals of event time, aligned to the epoch, weeks to Monday (UTC).

All times are integer microseconds since 1970-01-01 UTC. Standard library only.
"""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from infra.errors import UsageError

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US
WEEK_US = 7 * DAY_US
# 1970-01-05 was the first Monday of the epoch.
MONDAY_US = 4 * DAY_US

_UNITS_US = {"s": SECOND_US, "m": MINUTE_US, "min": MINUTE_US, "h": HOUR_US, "d": DAY_US, "w": WEEK_US}
# Far beyond any step or wait, and its microseconds fit 64 bits many times over.
MAX_DURATION_US = 9_999 * WEEK_US
# The end of the year 9999, the last that has four digits: behind it there is no ISO 8601 time of ours.
LAST_US = 253_402_300_799 * SECOND_US
# Python reads no number of more than 4,300 digits.
_DURATION = re.compile(r"(\d{1,4000})\s*(s|min|m|h|d|w)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_duration_us(text: str) -> int:
    """Return the microseconds of a duration such as `30s`, `15m`, `1h`, `1d` or `1w`.

    Raises:
        UsageError: the text is not a positive whole number followed by a unit, or longer than `MAX_DURATION_US`.
    """
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None or int(match[1]) == 0:
        raise UsageError(f"not a duration: {text!r}", fix="write a whole number and a unit: 30s, 15m, 1h, 1d or 1w")
    duration_us = int(match[1]) * _UNITS_US[match[2]]
    if duration_us > MAX_DURATION_US:
        raise UsageError(
            f"{text[:40]!r} is too long a duration", fix=f"write at most {format_duration(MAX_DURATION_US)}"
        )
    return duration_us


def format_duration(duration_us: int) -> str:
    """Return the shortest text that `parse_duration_us` reads back, such as `1h` for 3,600,000,000."""
    for unit in ("w", "d", "h", "m", "s"):
        if duration_us % _UNITS_US[unit] == 0:
            return f"{duration_us // _UNITS_US[unit]}{unit}"
    return f"{duration_us}us"


def steps_until_last(first_us: int, step_us: int) -> int:
    """Return how many steps from one that starts at `first_us` end by `LAST_US`."""
    return max(0, (LAST_US - first_us) // step_us)


def check_end(horizon_steps: int, first_us: int, step_us: int) -> None:
    """Refuse a forecast of so many steps from `first_us` on that ends behind `LAST_US`: its times could not be told.

    Raises:
        UsageError: it does; the fix says how many steps do not.
    """
    most = steps_until_last(first_us, step_us)
    if horizon_steps > most:
        raise UsageError(
            f"{horizon_steps:,} steps of {format_duration(step_us)} end behind the year 9999",
            fix=f"ask for at most {most:,} of them" if most else "look at the times of the events: they end too late",
        )


def step_origin_us(step_us: int) -> int:
    """Return the instant that steps are aligned to: a Monday for whole weeks, else the epoch."""
    return MONDAY_US if step_us % WEEK_US == 0 else 0


def step_start_us(ts_us: int, step_us: int) -> int:
    """Return the start of the step that holds `ts_us`."""
    origin = step_origin_us(step_us)
    return ts_us - (ts_us - origin) % step_us


# The same few are written in every answer.
@lru_cache(maxsize=256)
def format_time(ts_us: int) -> str:
    """Return an ISO 8601 time in UTC, seconds only where that loses nothing: `2009-09-29T02:00:00Z`."""
    moment = _EPOCH + timedelta(microseconds=ts_us)
    return moment.replace(tzinfo=None).isoformat() + "Z"
