"""What a step works with."""

from collections.abc import Sequence
from typing import Any, Protocol


class Execute(Protocol):
    """Runs one statement, in which `?` stands for a parameter."""

    def __call__(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Return its rows."""
        ...
