"""Columns of short texts as they lie in a buffer, looked up and converted a batch at a time, without an object a text.

A text is held as whole 8-byte words, padded with zeros, so that comparing and hashing texts is arithmetic on arrays.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from stream.events import IntArray

WordArray = npt.NDArray[np.uint64]

# Longer texts are not worth the arithmetic: whoever finds them decodes them one by one.
MAX_WORDS = 8
# What has to lie before the first and behind the last text of a buffer, so that whole words can be read.
MARGIN_BYTES = 8 * MAX_WORDS

WORD_BYTES = 8
_SMALLEST = 1024
_HASH_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)
# [9]: keeps the first k bytes of a little-endian word.
_KEEP = np.array([(1 << (8 * k)) - 1 for k in range(9)], dtype=np.uint64)
_ZEROS = np.uint64(0x3030303030303030)
_HIGH_NIBBLES = np.uint64(0xF0F0F0F0F0F0F0F0)
_LOW_NIBBLES = np.uint64(0x0F0F0F0F0F0F0F0F)
_SIXES = np.uint64(0x0606060606060606)
_TENS = np.uint64(0x1010101010101010)
_EVEN_PAIRS = np.uint64(0x000000FF000000FF)
_MAX_INT = np.uint64(2**63 - 1)


class TextBuffer:
    """ASCII or UTF-8 bytes whose 8-byte words can be read at any place.

    Args:
        data: the bytes, with `MARGIN_BYTES` at each end that belong to no text.
    """

    __slots__ = ("_words", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._words: WordArray = np.ndarray((len(data) - 7,), dtype="<u8", buffer=data, strides=(1,))

    def words(self, at: IntArray) -> WordArray:
        """Return the words that begin at the bytes `at` [n]."""
        return self._words[at]

    def texts(self, begin: IntArray, end: IntArray) -> list[str]:
        """Return the texts that begin and end there [n]."""
        data = self.data
        return [str(data[a:b], "utf-8") for a, b in zip(begin.tolist(), end.tolist(), strict=True)]

    def holds(self, text: bytes, at: IntArray) -> bool:
        """Tell whether `text` stands at each of the places `at` [n]."""
        for begin in range(0, len(text), WORD_BYTES):
            piece = text[begin : begin + WORD_BYTES]
            words = self._words[at + begin]
            if len(piece) < WORD_BYTES:
                words &= _KEEP[len(piece)]
            if (words != np.uint64(int.from_bytes(piece, "little"))).any():
                return False
        return True


class TextColumn(Sequence[Any]):
    """n texts of a buffer.

    Attributes:
        begin, length: [n] where each begins, and its bytes; at most `8 * MAX_WORDS`.
    """

    __slots__ = ("_buffer", "begin", "length")

    def __init__(self, buffer: TextBuffer, begin: IntArray, end: IntArray) -> None:
        self._buffer = buffer
        self.begin = begin
        self.length = end - begin

    def words(self) -> WordArray:
        """Return the texts as words [W, n], W as many as the longest needs, at least one."""
        n_words = max(-(-int(self.length.max(initial=0)) // WORD_BYTES), 1)
        words = np.empty((n_words, len(self.begin)), dtype=np.uint64)
        for number in range(n_words):
            left = self.length - number * WORD_BYTES
            kept = _KEEP[np.clip(left, 0, WORD_BYTES)]
            np.bitwise_and(self._buffer.words(self.begin + number * WORD_BYTES), kept, out=words[number])
        return words

    def whole_numbers(self) -> IntArray | None:
        """Return the numbers that the texts are: whole, not negative, below 2**63, as JSON writes them; else None."""
        longest = int(self.length.max(initial=0))
        if longest > 19 or int(self.length.min(initial=1)) < 1:
            return None
        end = self.begin + self.length
        number = np.zeros(len(self.begin), dtype=np.uint64)
        for group in reversed(range(-(-longest // WORD_BYTES))):
            # The eight digits that end `8 * group` before the end; what lies before the text counts as zeros.
            before = np.clip((group + 1) * WORD_BYTES - self.length, 0, WORD_BYTES)
            words = self._buffer.words(end - (group + 1) * WORD_BYTES)
            words = (words & ~_KEEP[before]) | (_ZEROS & _KEEP[before])
            if not _all_digits(words):
                return None
            digits = _eight_digits(words)
            if group == 2 and (digits > np.uint64(922)).any():
                return None  # it would not fit
            number = number * np.uint64(100_000_000) + digits
        leading_zero = ((self._buffer.words(self.begin) & _KEEP[1]) == np.uint64(ord("0"))) & (self.length > 1)
        if leading_zero.any() or (number > _MAX_INT).any():
            return None
        return number.astype(np.int64)

    def __len__(self) -> int:
        return len(self.begin)

    def __getitem__(self, row: Any) -> Any:
        return self.texts(np.array([row]))[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self.texts(slice(None)))

    def texts(self, rows: IntArray | slice) -> list[str]:
        """Return the texts of some rows as strings."""
        begin = self.begin[rows]
        return self._buffer.texts(begin, begin + self.length[rows])


class TextIndex:
    """Texts to whole numbers, remembered as words in a hash table.

    Args:
        values_of: the values of distinct texts that are not remembered. What it raises is passed on.
        limit: how many texts are remembered before all are forgotten.
    """

    def __init__(self, values_of: Callable[[list[str]], Sequence[int] | IntArray], *, limit: int = 1_000_000) -> None:
        self._values_of = values_of
        self._limit = limit
        self._count = 0
        # Entries [W, capacity], [capacity], [capacity]; twice as many slots, with linear probing.
        self._words: WordArray = np.zeros((1, _SMALLEST), dtype=np.uint64)
        self._values: IntArray = np.zeros(_SMALLEST, dtype=np.int64)
        self._hashes: WordArray = np.zeros(_SMALLEST, dtype=np.uint64)
        self._slots: IntArray = np.full(2 * _SMALLEST, -1, dtype=np.int64)

    def values(self, column: TextColumn) -> IntArray:
        """Return the value of each text [n]; new texts are asked for in their order."""
        if self._count > self._limit:
            self._count = 0
            self._words.fill(0)
            self._slots.fill(-1)
        words = column.words()
        if len(words) > len(self._words):
            self._words = np.pad(self._words, ((0, len(words) - len(self._words)), (0, 0)))
        hashes = _hashes(words)
        entry = self._find(words, hashes)
        missing = np.flatnonzero(entry < 0)
        if len(missing):
            self._learn(column, words, hashes, missing)
            entry[missing] = self._find(words[:, missing], hashes[missing])
        values: IntArray = self._values[entry]
        return values

    def _slot(self, hashes: WordArray) -> IntArray:
        return (hashes >> np.uint64(65 - len(self._slots).bit_length())).astype(np.int64)

    def _find(self, words: WordArray, hashes: WordArray) -> IntArray:
        """Return the entry of each text, -1 where there is none."""
        slot = self._slot(hashes)
        entry: IntArray = self._slots[slot]
        rows = np.flatnonzero(self._differ(words, entry))
        while len(rows):
            slot[rows] = (slot[rows] + 1) & (len(self._slots) - 1)
            entry[rows] = self._slots[slot[rows]]
            rows = rows[self._differ(words[:, rows], entry[rows])]
        return entry

    def _differ(self, words: WordArray, entry: IntArray) -> npt.NDArray[np.bool_]:
        """Return which texts meet an entry of another text."""
        other = self._words[0][entry] != words[0]
        for number in range(1, len(self._words)):
            held = self._words[number][entry]
            other |= held != (words[number] if number < len(words) else np.uint64(0))
        met: npt.NDArray[np.bool_] = other & (entry >= 0)
        return met

    def _learn(self, column: TextColumn, words: WordArray, hashes: WordArray, rows: IntArray) -> None:
        row_of = dict(zip(column.texts(rows), rows.tolist(), strict=True))
        values = self._values_of(list(row_of))
        kept = np.fromiter(row_of.values(), dtype=np.int64, count=len(row_of))
        begin, self._count = self._count, self._count + len(row_of)
        self._reserve(begin)
        self._words[: len(words), begin : self._count] = words[:, kept]
        self._values[begin : self._count] = values
        self._hashes[begin : self._count] = hashes[kept]
        self._place(np.arange(begin, self._count))

    def _reserve(self, held: int) -> None:
        """Make room for `_count` entries, of which `held` are there."""
        if self._count <= len(self._values):
            return
        size = 1 << (self._count - 1).bit_length()
        more = size - len(self._values)
        self._words = np.pad(self._words, ((0, 0), (0, more)))
        self._values, self._hashes = np.pad(self._values, (0, more)), np.pad(self._hashes, (0, more))
        self._slots = np.full(2 * size, -1, dtype=np.int64)
        self._place(np.arange(held))

    def _place(self, entries: IntArray) -> None:
        """Give each entry the next free slot from where its hash points."""
        slot = self._slot(self._hashes[entries])
        while len(entries):
            free = self._slots[slot] < 0
            # Of several entries that want a slot the last one written gets it.
            self._slots[slot[free]] = entries[free]
            left = self._slots[slot] != entries
            entries = entries[left]
            slot = (slot[left] + 1) & (len(self._slots) - 1)


def _hashes(words: WordArray) -> WordArray:
    hashes: WordArray = (words[0] ^ (words[0] >> _HALF)) * _HASH_FACTOR
    for more in words[1:]:
        # A text has one hash, whatever longer texts it stands beside.
        hashes = np.where(more == 0, hashes, (hashes ^ (hashes >> _HALF) ^ more) * _HASH_FACTOR)
    return hashes


def _all_digits(words: WordArray) -> bool:
    high = (words & _HIGH_NIBBLES) == _ZEROS
    low = (((words & _LOW_NIBBLES) + _SIXES) & _TENS) == 0
    return bool((high & low).all())


def _eight_digits(words: WordArray) -> WordArray:
    """Return the numbers of eight digits each, the first in the lowest byte."""
    pairs = (words & _LOW_NIBBLES) * np.uint64(10) + ((words & _LOW_NIBBLES) >> np.uint64(8))
    even, odd = pairs & _EVEN_PAIRS, (pairs >> np.uint64(16)) & _EVEN_PAIRS
    # Lane sums of two pairs of pairs, weighted 100**3 and 100, and 100**2 and 1, land in the upper half.
    sums: WordArray = (even * np.uint64((1_000_000 << 32) + 100) + odd * np.uint64((10_000 << 32) + 1)) >> np.uint64(32)
    return sums
