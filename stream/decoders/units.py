"""What the first times of a log tell: the unit of its numbers, or that they are dates."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from stream.decoders.compact import day_us, moment_us
from stream.decoders.times import TimeReader, detect_unit, is_time, parse_number
from stream.events import EventRules

# As a unit: times are texts, so that eight digits that form a date are one; other numbers are seconds.
DATES = "date"
# As a unit: no number was large enough to tell; small ones are seconds until one is.
OPEN = "auto"

# Unix seconds since 1973. Smaller numbers may count anything, from 1970 or from the start of a log.
_TELLING = 10**8


@dataclass(frozen=True, slots=True)
class Told:
    """What times tell.

    Attributes:
        unit: `s`, `ms`, `us`, `ns` or `DATES`; None if not one is a time.
        sure: more times would hardly tell anything else.
        day: the first of them where all are dates in eight digits, else None.
    """

    unit: str | None
    sure: bool = True
    day: int | None = None


def tell_unit(times: Iterable[Any]) -> Told:
    """Return what raw times tell, by their median, so that a single absurd one decides nothing."""
    numbers: list[int | Decimal] = []
    texts = 0
    for raw in times:
        number = parse_number(raw.strip()) if isinstance(raw, str) else raw
        if isinstance(number, int | Decimal) and not isinstance(number, bool):
            if moment_us(number) is None:
                numbers.append(number)
            else:
                texts += 1
        elif isinstance(raw, str) and is_time(raw.strip()):
            texts += 1
    days = [number for number in numbers if isinstance(number, int) and day_us(number) is not None]
    if texts > len(numbers) - len(days):
        return Told(DATES)
    if not numbers:
        return Told(None, sure=False)
    if len(days) == len(numbers):
        return Told("s", day=days[0])
    return Told(detect_unit(numbers), sure=sorted(numbers)[len(numbers) // 2] >= _TELLING)


def reader_of(unit: str, rules: EventRules, *, detected: bool) -> TimeReader:
    """Return a reader of times in `unit`, which may be `DATES` or `OPEN`."""
    seconds = "s" if unit in (DATES, OPEN) else unit
    return TimeReader(seconds, rules, detected=detected, days=unit == DATES)
