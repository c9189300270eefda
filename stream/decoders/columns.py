"""Columns that come encoded: a dictionary of values and an index into it for each row."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from stream.events import IntArray


@dataclass(frozen=True, slots=True)
class DictionaryColumn(Sequence[Any]):
    """n values, of which only the distinct ones are converted.

    Attributes:
        values: the distinct values.
        at: [n] index into them.
    """

    values: list[Any]
    at: IntArray

    def __len__(self) -> int:
        return len(self.at)

    def __getitem__(self, row: Any) -> Any:
        return self.values[self.at[row]]

    def __iter__(self) -> Iterator[Any]:
        values = self.values
        return (values[at] for at in self.at.tolist())
