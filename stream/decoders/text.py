"""Columns of short texts as they lie in a buffer, looked up and converted a batch at a time, without an object a text.

Only the compiled part of the package makes such columns.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from stream.events import IntArray
from stream.native import native


class TextColumn(Sequence[Any]):
    """n UTF-8 texts of a buffer.

    Attributes:
        data: the buffer.
        begin, length: [n] where each begins, and its bytes.
    """

    __slots__ = ("begin", "data", "length")

    def __init__(self, data: bytes, begin: IntArray, length: IntArray) -> None:
        self.data = data
        self.begin = begin
        self.length = length

    def whole_numbers(self) -> IntArray | None:
        """Return the numbers that the texts are: whole, not negative, below 2**63, as JSON writes them; else None."""
        assert native is not None
        numbers: IntArray | None = native.whole_numbers(self.data, self.begin, self.length)
        return numbers

    def iso_us(self) -> IntArray | None:
        """Return times [n] as microseconds since the epoch if all are `YYYY-MM-DDTHH:MM:SS[.f…]`, else None.

        Behind it may stand nothing, Z or +00:00; the fraction may have 1 to 6 digits. What this reads, it reads as
        `datetime.fromisoformat` does, without an offset as UTC.
        """
        assert native is not None
        ts_us: IntArray | None = native.iso_us(self.data, self.begin, self.length)
        return ts_us

    def texts(self, rows: IntArray | slice) -> list[str]:
        """Return the texts of some rows as strings."""
        data, begin = self.data, self.begin[rows]
        return [
            str(data[a:b], "utf-8") for a, b in zip(begin.tolist(), (begin + self.length[rows]).tolist(), strict=True)
        ]

    def __len__(self) -> int:
        return len(self.begin)

    def __getitem__(self, row: Any) -> Any:
        return self.texts(np.array([row]))[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self.texts(slice(None)))


class TextIndex:
    """Texts to whole numbers, remembered in a hash table.

    Args:
        values_of: the values of distinct texts that are not remembered. What it raises is passed on.
        limit: how many texts are remembered before all are forgotten.
    """

    def __init__(self, values_of: Callable[[list[str]], Sequence[int] | IntArray], *, limit: int = 1_000_000) -> None:
        assert native is not None
        self._values_of = values_of
        self._limit = limit
        self._numbers = native.TextNumbers()
        # By number; more than there are numbers.
        self._values: IntArray = np.zeros(1024, dtype=np.int64)

    def values(self, column: TextColumn) -> IntArray:
        """Return the value of each text [n]; new texts are asked for in their order."""
        if len(self._numbers) > self._limit:
            self._numbers.clear()
        held = len(self._numbers)
        number, first_rows = self._numbers.number(column.data, column.begin, column.length)
        if len(first_rows):
            try:
                new = self._values_of(column.texts(first_rows))
            except BaseException:
                self._numbers.clear()  # they have no values
                raise
            if len(self._numbers) > len(self._values):
                self._values = np.pad(self._values, (0, 2 * len(self._numbers) - len(self._values)))
            self._values[held : len(self._numbers)] = new
        values: IntArray = self._values[number]
        return values
