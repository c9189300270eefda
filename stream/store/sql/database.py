"""What a store needs of an SQL database; `stream.store.sqlite_file` and `stream.store.postgres` provide it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from stream.events import FloatArray, IntArray

Row = tuple[Any, ...]
# One column of many rows: an array, or a list of text, bytes or None.
Column = IntArray | FloatArray | Sequence[str | bytes | int | float | None]


class ReadDatabase(Protocol):
    """Read access. In SQL, `?` stands for a parameter, `{keys}` at the end of it for a condition on many integers."""

    @property
    def name(self) -> str:
        """How messages name the store: a path or an address without a password."""
        ...

    def fetch(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """Run a statement and return its rows.

        Raises:
            StoreError: the database failed.
        """
        ...

    def fetch_in(self, sql: str, parameters: Sequence[object], keys: IntArray) -> list[Row]:
        """Run a query such as `SELECT … WHERE a = ? AND key {keys}`, true where `key` is one of `keys` [n]."""
        ...

    def pages(self, sql: str, parameters: Sequence[object], size: int = 8192) -> Iterator[list[Row]]:
        """Yield the rows of a query in lists of at most `size`."""
        ...

    def frozen(self) -> AbstractContextManager["ReadDatabase"]:
        """Lend access that sees one moment of the store, whatever is committed meanwhile; for one thread."""
        ...

    def elect(self, role: str) -> bool:
        """Return whether this connection has a role that one at a time can have, over all processes; it keeps it."""
        ...

    def close(self) -> None:
        """Release the connection."""
        ...


class Database(ReadDatabase, Protocol):
    """One read-write connection.

    Attributes:
        exclusive: no other process writes the store while this one has it.
    """

    exclusive: bool

    @property
    def number(self) -> int:
        """The number of this writer, of no other before or after; known inside a transaction."""
        ...

    def begin(self) -> None:
        """Begin a transaction; raises StoreError where another process has taken over an exclusive store."""
        ...

    def commit(self) -> None:
        """Commit durably."""
        ...

    def rollback(self) -> None:
        """Undo the transaction; never raises, also where there is none or the connection is gone."""
        ...

    def insert(self, table: str, columns: Mapping[str, Column]) -> None:
        """Insert rows given as columns."""
        ...

    def upsert(
        self, table: str, columns: Mapping[str, Column], key: Sequence[str], instead: Mapping[str, str] | None = None
    ) -> None:
        """Insert rows whose `key` columns are new, and overwrite the other columns of those that are there.

        Args:
            table: the table.
            columns: the rows; their keys are distinct.
            key: the columns of the primary key.
            instead: column to the expression that it gets where the row is there, instead of the given value.
        """
        ...

    def find_names(self, graph_id: int, names: Sequence[str]) -> IntArray:
        """Return the node ids of distinct names [n] in a graph, 0 where there is none."""
        ...

    def next_node_ids(self, count: int) -> IntArray:
        """Return ids [count], ascending, that no node of the store has or will get otherwise."""
        ...

    def skip_ids(self) -> None:
        """Number further rows and nodes above those that were inserted with their ids."""
        ...

    def scrub(self) -> bool:
        """Overwrite what was deleted, outside a transaction, as far as the database can; False where readers hinder."""
        ...

    def alive(self, number: int) -> bool:
        """Return whether the writer of that number may still commit."""
        ...

    def lock_graph(self, graph_id: int, *, alone: bool = True) -> None:
        """Let other processes wait until the end of this transaction before they take the same graph's lock.

        One that is not taken alone is shared with others of that kind.
        """
        ...

    def lock_beginnings(self) -> None:
        """Wait for transactions that called this, and let further ones wait until the end of this one."""
        ...

    def lock_snapshots(self) -> None:
        """Wait for transactions that write snapshots, and let further ones wait until the end of this one."""
        ...


class Part:
    """A part of a writer: what it keeps in memory is forgotten when a transaction is undone or others may write."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def _forget(self) -> None:
        """Drop everything that may differ from what the store has."""
