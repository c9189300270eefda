"""Event times: numbers in seconds, milliseconds, microseconds or nanoseconds, or ISO 8601 text, to microseconds UTC."""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import ROUND_FLOOR, Context, Decimal
from typing import Any

import numpy as np

from infra.steps import format_time
from stream.decoders.compact import day_us, may_hold_dates, moment_us
from stream.decoders.iso import iso_column_us
from stream.decoders.text import TextColumn
from stream.events import EventRules, IntArray, InvalidEventError, shown

# Microseconds of one unit, from the coarsest to the finest.
UNIT_US: dict[str, Decimal] = {
    "s": Decimal(1_000_000),
    "ms": Decimal(1000),
    "us": Decimal(1),
    "ns": Decimal("0.001"),
}
UNIT_WORDS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}

# 2200-01-01. Numbers beyond it, or a thousand times below it, have another unit; whatever range is valid.
_PLAUSIBLE_US = 7_258_118_400_000_000
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
_MAX_TIME_CHARS = 64
_DAY_DIGITS = len("20240131")
_EXACT = Context(prec=90)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def parse_number(text: str) -> int | Decimal | None:
    """Return the number that a short ASCII text holds, exactly; None if it holds none."""
    if len(text) > _MAX_TIME_CHARS or _NUMBER.fullmatch(text) is None:
        return None
    return int(text) if text.isdigit() else Decimal(text)


def detect_unit(times: Iterable[Any]) -> str | None:
    """Return the unit of the numeric ones among raw times: seconds, unless their median would lie beyond 2200.

    Then it is the coarsest unit that keeps it before. The median, so that a single absurd time decides nothing.
    None if not one is a time, as a number or as text.
    """
    numbers: list[int | Decimal] = []
    texts = 0
    for raw in times:
        number = parse_number(raw.strip()) if isinstance(raw, str) else raw
        if isinstance(number, int | Decimal) and not isinstance(number, bool):
            numbers.append(number)
        elif isinstance(raw, str) and _is_iso(raw):
            texts += 1
    if not numbers:
        return "s" if texts else None
    median = sorted(numbers)[len(numbers) // 2]
    return next((unit for unit, unit_us in UNIT_US.items() if median <= _PLAUSIBLE_US / unit_us), "s")


def is_time(text: str) -> bool:
    """Tell whether a text is a number, of any size, or an ISO 8601 time."""
    return parse_number(text) is not None or _is_iso(text)


class TimeReader:
    """Raw times of one log to integer microseconds, UTC.

    Times are exact to the microsecond; finer digits are cut off, in numbers as in text: rounded up, an event right
    before the end of a step would count in the next one. ISO 8601 text without an offset is UTC.

    Args:
        unit: what a number counts: `s`, `ms`, `us` or `ns`.
        rules: the valid range.
        detected: the unit was guessed from the first records. Then a number must agree with the guess: one that a
            thousand times coarser unit would also place before 2200 is refused, never misread; and fourteen digits
            that form a date with the time of day are one.
        days: eight digits that form a date are one.
    """

    def __init__(self, unit: str, rules: EventRules, *, detected: bool = False, days: bool = False) -> None:
        self.unit = unit
        self._moments = detected
        self._days = days
        self._rules = rules
        self._unit_us = UNIT_US[unit]
        self._digits = self._unit_us.adjusted()
        self._max_number = Decimal(rules.max_ts_us) / self._unit_us
        self._min_us = rules.min_ts_us
        if detected and unit != "s":
            self._min_us = max(self._min_us, _PLAUSIBLE_US // 1000)

    def column(self, raws: Sequence[Any] | IntArray, *, typed: bool) -> IntArray:
        """Return raw times [n] as microseconds [n].

        Raises:
            InvalidEventError: at least one is invalid; `value` says which and why.
        """
        ts_us = raws.iso_us() if isinstance(raws, TextColumn) else None
        if ts_us is None:
            ts_us = _whole_us(raws, self._digits, typed=typed)
            if ts_us is not None and self._may_hold_dates(ts_us):
                values = raws.tolist() if isinstance(raws, np.ndarray) else raws
                return np.fromiter(map(self.value, values), dtype=np.int64, count=len(values))
        if ts_us is None and (not typed or set(map(type, raws)) == {str}):
            ts_us = iso_column_us(list(raws))
        if ts_us is None:
            return np.fromiter(map(self.value, raws), dtype=np.int64, count=len(raws))
        if len(ts_us) and not (self._min_us <= ts_us.min() and ts_us.max() <= self._rules.max_ts_us):
            raise InvalidEventError("a time lies outside the valid range")
        return ts_us

    def value(self, raw: Any) -> int:
        """Return one raw time as microseconds.

        Raises:
            InvalidEventError: it is no time, or lies outside the valid range.
        """
        if isinstance(raw, str):
            text = raw.strip()
            if not text:
                raise InvalidEventError("ts is empty")
            number = parse_number(text)
            return self._iso(text) if number is None else self._number(number)
        if raw is None:
            raise InvalidEventError("ts is missing")
        if isinstance(raw, bool) or not isinstance(raw, int | Decimal):
            raise InvalidEventError(f"ts {shown(raw)} is neither a number nor text")
        return self._number(raw)

    def _may_hold_dates(self, ts_us: IntArray) -> bool:
        # In other units they lie outside the valid range, where each time is read for itself anyway.
        return (self._days or (self._moments and self.unit == "us")) and may_hold_dates(ts_us)

    def _date_us(self, number: int | Decimal) -> int | None:
        ts_us = moment_us(number) if self._moments else None
        return day_us(number) if ts_us is None and self._days else ts_us

    def _number(self, number: int | Decimal) -> int:
        date_us = self._date_us(number)
        if date_us is not None:
            return self._rules.ts_us(date_us)
        if number < min(0, self._rules.min_ts_us):
            raise InvalidEventError(f"time {_short(number)} is negative")
        if number > self._max_number:
            raise InvalidEventError(self._too_late(number))
        if isinstance(number, int) and self._digits >= 0:
            ts_us = number * 10**self._digits
        else:
            exact = _EXACT.multiply(Decimal(number), self._unit_us)
            ts_us = int(exact.to_integral_value(ROUND_FLOOR, _EXACT))
        if self._rules.min_ts_us <= ts_us < self._min_us:
            raise InvalidEventError(
                f"time {number} would be {format_time(ts_us)} in {UNIT_WORDS[self.unit]}, the unit detected from the "
                "first records; it seems to have another unit (if not, give the unit: --time-unit "
                f"{self.unit})"
            )
        return self._rules.ts_us(ts_us)

    def _too_late(self, number: int | Decimal) -> str:
        reason = f"time {_short(number)} in {UNIT_WORDS[self.unit]} lies after {format_time(self._rules.max_ts_us)}"
        for unit, unit_us in UNIT_US.items():
            if unit_us < self._unit_us and _PLAUSIBLE_US / self._unit_us < number <= _PLAUSIBLE_US / unit_us:
                return f"{reason}; it looks like {UNIT_WORDS[unit]} (use --time-unit {unit})"
        return reason

    def _iso(self, text: str) -> int:
        if _NOT_FINITE.fullmatch(text):
            raise InvalidEventError(f"time {shown(text)} is not finite")
        try:
            ts_us = _iso_us(text)
        except (ValueError, OverflowError):
            raise InvalidEventError(f"time {shown(text)} is neither a number nor ISO 8601") from None
        return self._rules.ts_us(ts_us)


def _whole_us(raws: Sequence[Any] | IntArray, digits: int, *, typed: bool) -> IntArray | None:
    """Return times as microseconds if all are plain: digits, and at most `digits` more behind a point; else None.

    Args:
        raws: [n] times, of a unit of 10 to the power of `digits` microseconds.
        digits: negative where the unit is finer than a microsecond.
        typed: the times come from JSON or Arrow; only then can they be an array.
    """
    factor = 10 ** max(digits, 0)
    try:
        if isinstance(raws, np.ndarray):
            whole = raws
        elif typed and set(map(type, raws)) <= {int}:
            whole = np.array(raws, dtype=np.int64)
        else:
            texts = list(map(str, raws)) if typed and set(map(type, raws)) <= {int, Decimal} else raws
            text = "".join(texts)
            if not text.isascii() or not text.replace(".", "").isdigit():
                return None
            if not text.isdigit():
                return np.array([_decimal_us(each, digits) for each in texts], dtype=np.int64)
            whole = np.fromiter(map(int, texts), dtype=np.int64, count=len(texts))
    except (OverflowError, ValueError, TypeError):
        return None
    if digits < 0:
        cut: IntArray = whole // 10**-digits
        return cut
    limit = _PLAUSIBLE_US * 10 // factor
    # Both ends, and no absolute value: that of the least number is itself.
    if len(whole) and (whole.max() > limit or whole.min() < -limit):
        return None
    microseconds: IntArray = whole * factor
    return microseconds


def _decimal_us(text: str, digits: int) -> int:
    whole, _, fraction = text.partition(".")
    if len(fraction) > digits or not (whole or fraction):
        raise ValueError("finer than a microsecond, or perhaps no number at all")
    return int(whole + fraction.ljust(digits, "0"))


class AnyUnitReader(TimeReader):
    """Raw times whose numbers may have any unit: the coarsest that places them before 2200.

    Each number tells its own unit, so that a time never depends on what came before it: records can be replayed from
    anywhere. Milliseconds before March 1970 would pass for seconds; give the unit where such times occur. Fourteen
    digits that form a date with the time of day are one, eight that form a date only as text.
    """

    def __init__(self, rules: EventRules) -> None:
        super().__init__("s", rules, detected=True, days=True)
        self._by_unit = {unit: TimeReader(unit, rules) for unit in UNIT_US}
        self._whole = [(_LARGEST[unit], int(unit_us)) for unit, unit_us in UNIT_US.items() if unit_us >= 1]

    def column(self, raws: Sequence[Any] | IntArray, *, typed: bool) -> IntArray:
        """Return raw times [n] as microseconds [n]; raises as `TimeReader.column` does."""
        is_text = isinstance(raws, TextColumn)
        if is_text or not (isinstance(raws, np.ndarray) or (typed and set(map(type, raws)) == {int})):
            ts_us = super().column(raws, typed=typed)
            if len(ts_us) and ts_us.max() > _PLAUSIBLE_US:
                raise InvalidEventError("a time may have another unit")
            return ts_us
        whole = np.asarray(raws, dtype=np.int64)
        if not len(whole):
            return whole
        unit = _unit_of(int(whole[0]))
        same = whole[(whole > _smallest(unit)) & (whole <= _LARGEST[unit])]
        if len(same) == len(whole) and not (unit == "us" and may_hold_dates(whole)):
            return self._by_unit[unit].column(whole, typed=typed)
        return np.fromiter(map(self.value, whole.tolist()), dtype=np.int64, count=len(whole))

    def value(self, raw: Any) -> int:
        """Return one raw time as microseconds; raises as `TimeReader.value` does."""
        if isinstance(raw, str):
            text = raw.strip()
            date_us = day_us(int(text)) if len(text) == _DAY_DIGITS and text.isascii() and text.isdigit() else None
            if date_us is not None:
                return self._rules.ts_us(date_us)
        elif type(raw) is int and raw >= 0 and moment_us(raw) is None:
            for largest, unit_us in self._whole:
                if raw <= largest:
                    ts_us = raw * unit_us
                    if self._rules.min_ts_us <= ts_us <= self._rules.max_ts_us:
                        return ts_us
                    break
        return super().value(raw)

    def _number(self, number: int | Decimal) -> int:
        date_us = moment_us(number)
        return self._by_unit[_unit_of(number)]._number(number) if date_us is None else self._rules.ts_us(date_us)


_LARGEST = {unit: int(_PLAUSIBLE_US / unit_us) for unit, unit_us in UNIT_US.items()}


def _smallest(unit: str) -> int:
    """Return the number above which a coarser unit would lie beyond 2200."""
    finer = list(UNIT_US)
    return _LARGEST[finer[finer.index(unit) - 1]] if unit != "s" else -(2**63)


def _unit_of(number: int | Decimal) -> str:
    return next((unit for unit, largest in _LARGEST.items() if number <= largest), "ns")


def _short(number: int | Decimal) -> str:
    return str(number) if -(10**30) < number < 10**30 else "of more than 30 digits"


def _iso_us(text: str) -> int:
    if len(text) > _MAX_TIME_CHARS:
        raise ValueError("too long for a time")
    # RFC 3339 allows the lower case, which Python does not read.
    moment = datetime.fromisoformat(text[:-1] + "Z" if text.endswith("z") else text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MICROSECOND


def _is_iso(text: str) -> bool:
    try:
        _iso_us(text.strip())
    except (ValueError, OverflowError):
        return False
    return True
