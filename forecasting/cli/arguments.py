"""Texts of the command line that become values: times, metric names, quantile levels, lists."""

import difflib
from datetime import UTC, datetime, timedelta

from infra.errors import UsageError
from infra.schema import METRIC_INDEX, METRIC_NAMES, QUANTILE_LEVELS

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def split_list(text: str) -> list[str]:
    """Return the parts of `a,b,c` without blanks."""
    return [part.strip() for part in text.split(",") if part.strip()]


def parse_time_us(flag: str, text: str) -> int:
    """Return the microseconds since the epoch of an ISO 8601 date or time (UTC unless it says otherwise).

    Raises:
        UsageError: the text is no such time.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"{flag} cannot be {text!r}", fix="give a date or a time, such as 2016-03-06 or 2016-03-06T12:00Z"
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1)


def parse_metrics(text: str | None) -> tuple[str, ...]:
    """Return the metrics of `events,new_nodes` in the order given; all of the schema for None.

    Raises:
        UsageError: a metric is unknown, or none is named.
    """
    if text is None:
        return METRIC_NAMES
    names = split_list(text)
    for name in names:
        if name not in METRIC_INDEX:
            near = difflib.get_close_matches(name, METRIC_NAMES, n=1)
            fix = f"did you mean {near[0]}?" if near else f"known metrics: {', '.join(METRIC_NAMES)}"
            raise UsageError(f"--metrics: there is no metric {name!r}", fix=fix)
    if not names:
        raise UsageError("--metrics names no metric", fix=f"known metrics: {', '.join(METRIC_NAMES)}")
    return tuple(dict.fromkeys(names))


def parse_quantiles(text: str | None) -> tuple[float, ...]:
    """Return the levels of `0.1,0.5,0.9`, ascending; all that are forecast for None.

    Raises:
        UsageError: a level is not one that is forecast, or none is named.
    """
    if text is None:
        return QUANTILE_LEVELS
    fix = f"forecast levels: {', '.join(f'{level:g}' for level in QUANTILE_LEVELS)}"
    levels = set()
    for part in split_list(text):
        try:
            level = float(part)
        except ValueError:
            raise UsageError(f"--quantiles: {part!r} is not a number", fix=fix) from None
        if level not in QUANTILE_LEVELS:
            raise UsageError(f"--quantiles: {part} is not a level that is forecast", fix=fix)
        levels.add(level)
    if not levels:
        raise UsageError("--quantiles names no level", fix=fix)
    return tuple(sorted(levels))
