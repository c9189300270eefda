"""ISO 8601 times of one shape, a column at once; many times as fast as `datetime.fromisoformat` each."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from stream.events import IntArray

WordArray = npt.NDArray[np.uint64]
WORD_BYTES = 8

_DAY_US = 86_400_000_000
_DATE_CHARS = len("2026-01-01T00:00:00")
# Separators by their place; the one between date and time may be a space too.
_SEPARATORS = {4: b"-", 7: b"-", 13: b":", 16: b":"}
_BETWEEN = 10
_DAYS_OF_MONTH = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], dtype=np.int64)
_DAYS_BEFORE_MONTH = np.concatenate([[0, 0], np.cumsum(_DAYS_OF_MONTH[1:12])])
_DAYS_TO_1970 = 719_162
_ENDINGS = ("Z", "+00:00")
_LOW = np.uint64(0x0F0F0F0F0F0F0F0F)


def iso_column_us(texts: Sequence[str]) -> IntArray | None:
    """Return times [n] as microseconds since the epoch if all are `YYYY-MM-DDTHH:MM:SS[.f…]` with nothing, Z or +00:00.

    The fraction may have 1 to 6 digits; all texts must be of one length and end alike. None for any other column: then
    each time has to be read for itself, which also tells what is wrong with it. What this reads, it reads as
    `datetime.fromisoformat` does.
    """
    if not len(texts):
        return None
    first = texts[0]
    ending = next((end for end in _ENDINGS if first.endswith(end)), "")
    body = len(first) - len(ending)
    if body - _DATE_CHARS not in (0, 2, 3, 4, 5, 6, 7) or not first.isascii():
        return None
    if len(set(map(len, texts))) != 1:
        return None
    joined = "".join(texts)
    if not joined.isascii():
        return None
    words = _words(joined.encode("ascii"), len(first))
    return _words_us(words, body, ending)


def _words(data: bytes, length: int) -> WordArray:
    """Return texts of one length, one behind the other, as words [W, n]."""
    padded = np.zeros((len(data) // length, -(-length // WORD_BYTES) * WORD_BYTES), dtype=np.uint8)
    padded[:, :length] = np.frombuffer(data, dtype=np.uint8).reshape(-1, length)
    return np.ascontiguousarray(padded.view("<u8").T)


def _words_us(words: WordArray, body: int, ending: str) -> IntArray | None:
    """Return times as microseconds; None if one has another shape, or is no time.

    Args:
        words: [W, n] texts of the length of `body` and `ending`.
        body: characters before the ending.
        ending: what all must end with.
    """
    if not _has_shape(words, body, ending):
        return None
    digits = words & _LOW
    # In each byte the number of two digits that begins there; no sum reaches the next byte.
    pairs = digits * np.uint64(10) + (digits >> np.uint64(8))
    year = _byte(pairs, 0) * 100 + _byte(pairs, 2)
    month, day, hour, minute, second = (_byte(pairs, at) for at in (5, 8, 11, 14, 17))
    if not ((year >= 1) & (month >= 1) & (month <= 12) & (hour <= 23) & (minute <= 59) & (second <= 59)).all():
        return None
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    if not ((day >= 1) & (day <= _DAYS_OF_MONTH[month] + (leap & (month == 2)))).all():
        return None
    before = year - 1
    days = before * 365 + before // 4 - before // 100 + before // 400 - _DAYS_TO_1970
    days += _DAYS_BEFORE_MONTH[month] + (leap & (month > 2)) + day - 1
    ts_us: IntArray = days * _DAY_US + ((hour * 60 + minute) * 60 + second) * 1_000_000
    for at in range(_DATE_CHARS + 1, body):
        ts_us += _byte(digits, at) * 10 ** (_DATE_CHARS + 6 - at)
    return ts_us


def _has_shape(words: WordArray, body: int, ending: str) -> bool:
    """Tell whether all texts have digits and separators where they belong."""
    fixed = {**_SEPARATORS, **{body + at: char.encode() for at, char in enumerate(ending)}}
    if body > _DATE_CHARS:
        fixed[_DATE_CHARS] = b"."
    for number, column in enumerate(words):
        mask, expected, ones = bytearray(WORD_BYTES), bytearray(WORD_BYTES), bytearray(WORD_BYTES)
        for byte in range(WORD_BYTES):
            at = number * WORD_BYTES + byte
            if at in fixed:
                mask[byte], expected[byte] = 0xFF, fixed[at][0]
            elif at < body and at != _BETWEEN:
                mask[byte], expected[byte], ones[byte] = 0xF0, ord("0"), 1
        if ((column & _number(mask)) != _number(expected)).any():
            return False
        # A digit of ten or more would carry into the upper half of its byte.
        unit = _number(ones)
        if ((((column & _LOW) + unit * np.uint64(6)) & (unit * np.uint64(16))) != 0).any():
            return False
    between = _byte(words, _BETWEEN)
    return bool(((between == ord("T")) | (between == ord(" "))).all())


def _number(word: bytearray) -> np.uint64:
    return np.uint64(int.from_bytes(word, "little"))


def _byte(words: WordArray, at: int) -> IntArray:
    """Return the bytes at a place of texts, as numbers."""
    number, byte = divmod(at, WORD_BYTES)
    shifted: IntArray = ((words[number] >> np.uint64(8 * byte)) & np.uint64(0xFF)).astype(np.int64)
    return shifted
