"""What the records of the service need of a database; `bookkeeping.sqlite` and `bookkeeping.postgres` provide it.

SQL is written once, in what both understand: `?` stands for a parameter, text is ordered by its bytes, `rowid` counts
rows in the order in which they were added. `TEXTS_OF_JSON` is the one thing that has no common form.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

# The strings of a JSON array as rows, in SQLite's words; the parameter is the array.
TEXTS_OF_JSON = "SELECT value FROM json_each(?)"


class Cursor(Protocol):
    """What a statement led to."""

    @property
    def rowcount(self) -> int:
        """Return how many rows it changed."""
        ...

    def fetchone(self) -> Any:
        """Return the next row, None behind the last."""
        ...

    def fetchall(self) -> list[Any]:
        """Return all rows."""
        ...


class Connection(Protocol):
    """The inside of a transaction."""

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Cursor:
        """Run a statement."""
        ...


class Books(Protocol):
    """An open database; its methods may be called from several threads.

    Attributes:
        name: how messages name it: a path, or an address without a password.
        look_s: seconds that a process leaves between two looks for something to do, at least.
    """

    name: str
    look_s: float

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Return the rows of a query.

        Raises:
            StoreError: it cannot be read.
        """
        ...

    def transaction(self) -> AbstractContextManager[Connection]:
        """Lend a transaction, one at a time over all processes; kept on success, undone on any exception.

        Raises:
            StoreError: it cannot be written.
        """
        ...

    def now_us(self) -> int:
        """Return the time in UTC microseconds by the clock that leases are kept by."""
        ...

    def close(self) -> None:
        """Release it."""
        ...
