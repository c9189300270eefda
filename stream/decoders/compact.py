"""Dates that are written with digits alone: 20240131, and 20240131101500 with the time of day, in UTC."""

from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal

from stream.events import IntArray

_FIRST_YEAR, _LAST_YEAR = 1900, 2200
# Eight digits before the time of day.
_OF_DAY = 10**6
_FIRST, _LAST = _FIRST_YEAR * 10**4 * _OF_DAY, (_LAST_YEAR + 1) * 10**4 * _OF_DAY
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def moment_us(number: int | Decimal) -> int | None:
    """Return a date with the time of day in fourteen digits as microseconds since 1970; None if it is none.

    As a count since 1970 such a number lies in 1970 in microseconds, and beyond 2200 in milliseconds: no event of today
    has it in any unit. Digits behind a point are a fraction of the second.
    """
    if not _FIRST <= number < _LAST:
        return None
    whole = int(number)
    date, of_day = divmod(whole, _OF_DAY)
    micros = int(((number - whole) * 10**6).to_integral_value(ROUND_HALF_EVEN)) if isinstance(number, Decimal) else 0
    us = _us(date, of_day)
    return None if us is None else us + micros


def day_us(number: int | Decimal) -> int | None:
    """Return a date in eight digits as microseconds since 1970; None if it is none.

    As seconds it is a time in August or September 1970, which logs that count from their own start do have.
    """
    return _us(number, 0) if isinstance(number, int) and _FIRST <= number * _OF_DAY < _LAST else None


def may_hold_dates(numbers: IntArray) -> bool:
    """Tell whether some number lies where dates of fourteen digits do: microseconds, or seconds times a million."""
    return bool(((numbers >= _FIRST) & (numbers < _LAST)).any())


def _us(date: int, of_day: int) -> int | None:
    try:
        moment = datetime(
            date // 10**4,
            date // 100 % 100,
            date % 100,
            of_day // 10**4,
            of_day // 100 % 100,
            of_day % 100,
            tzinfo=UTC,
        )
    except ValueError:
        return None
    return (moment - _EPOCH) // _MICROSECOND
