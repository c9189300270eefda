"""Numbers, names and times as people read them."""

from datetime import UTC, datetime, timedelta

from infra.steps import DAY_US, HOUR_US, MINUTE_US, SECOND_US, WEEK_US, format_duration

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def number(value: float) -> str:
    """Return a number as people read it: whole from 100 on, else with two to four digits."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if 0 < abs(value) < 1:
        return f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.1g}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def in_full(value: float) -> str:
    """Return a number with the digits that it has, as far as they are worth it: `12,345,678`, `0.85`."""
    return f"{value:,.10g}"


def label(metric: str) -> str:
    """Return the name of a metric in words."""
    return metric.replace("_", " ")


def day(time_us: int) -> str:
    """Return the day of a time, such as `6 Mar 2016`."""
    moment = _EPOCH + timedelta(microseconds=time_us)
    return f"{moment.day} {moment:%b %Y}"


def step_words(step_us: int) -> str:
    """Return `an hour`, `a day`, `in 15m`."""
    return {HOUR_US: "an hour", DAY_US: "a day", WEEK_US: "a week"}.get(step_us, f"in {format_duration(step_us)}")


def about(duration_us: int) -> str:
    """Return a duration in its two largest units, such as `290 days 16 hours`; the rest is dropped."""
    left_us, said = duration_us, []
    for unit_us, unit in ((DAY_US, "day"), (HOUR_US, "hour"), (MINUTE_US, "minute"), (SECOND_US, "second")):
        count, left_us = divmod(left_us, unit_us)
        if count:
            said.append(f"{count:,} {unit}{'' if count == 1 else 's'}")
        elif said:
            break
        if len(said) == 2:
            break
    return " ".join(said) or "0 seconds"


def duration_words(duration_us: int) -> str:
    """Return a duration as one says it after "the last" or "each": `8 weeks`, `week`, `36 hours`."""
    for unit_us, unit in ((WEEK_US, "week"), (DAY_US, "day"), (HOUR_US, "hour")):
        count, rest = divmod(duration_us, unit_us)
        if count and not rest:
            return f"{count:,} {unit}s" if count > 1 else unit
    return format_duration(duration_us)
