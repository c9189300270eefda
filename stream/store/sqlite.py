"""SQLite as the database of a store: one process writes it, any number read it."""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from infra.errors import StoreError
from infra.sqlite_copy import OnPages, copy_database
from stream.events import IntArray
from stream.store.lock import WriterLock
from stream.store.sql.database import Column, ReadDatabase, Row
from stream.store.sql.tables import on_conflict
from stream.store.sqlite_file import connect_reader, connect_writer, explain, translated

_IN_KEYS = "IN (SELECT value FROM json_each(?))"
# From here on a statement of its own is worth its parsing.
_MANY_ROWS = 1000
_FIND_NAMES = (
    "SELECT json_each.key, nodes.id FROM json_each(?) CROSS JOIN nodes"
    " ON nodes.graph_id = ? AND nodes.name = json_each.value"
)


class SqliteReadDatabase:
    """A `ReadDatabase` over a file that another process may be writing; it may be used from several threads.

    Raises:
        StoreError: there is no store at `path`, or it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = self._open()

    def _open(self) -> sqlite3.Connection:
        return connect_reader(self._path)

    @property
    def name(self) -> str:
        """The path of the store."""
        return str(self._path)

    def fetch(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """Run a statement and return its rows."""
        try:
            return self._connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise explain(error, self._path) from error

    def fetch_in(self, sql: str, parameters: Sequence[object], keys: IntArray) -> list[Row]:
        """Run a query with a condition on many integers."""
        return self.fetch(sql.format(keys=_IN_KEYS), (*parameters, _json(keys)))

    def pages(self, sql: str, parameters: Sequence[object], size: int = 8192) -> Iterator[list[Row]]:
        """Yield the rows of a query in lists of at most `size`."""
        with translated(self._path):
            cursor = self._connection.execute(sql, parameters)
            while rows := cursor.fetchmany(size):
                yield rows

    @contextmanager
    def frozen(self) -> Iterator[ReadDatabase]:
        """Lend a connection of its own that sees one moment of the store."""
        other = SqliteReadDatabase(self._path)
        try:
            other.fetch("BEGIN")
            yield other
        finally:
            other.close()

    def back_up(self, target: Path, on_pages: OnPages | None = None) -> None:
        """Copy the file as this connection sees it to `target`; a `frozen` one shows one moment.

        Raises:
            StoreError: either file failed.
        """
        copy_database(self._connection, target, on_pages)

    def elect(self, role: str) -> bool:
        """Return True: only the one process that writes the store does what there are roles for."""
        return True

    def close(self) -> None:
        """Release the connection."""
        self._connection.close()


class SqliteDatabase(SqliteReadDatabase):
    """A `Database`: the one read-write connection of a store.

    Raises:
        StoreError: the store cannot be made or written, or another process writes it.
    """

    exclusive = True

    def __init__(self, path: Path) -> None:
        self._lock = WriterLock(path)
        self._is_new = not path.exists()
        # The epoch that this process has committed; None before its first commit.
        self._epoch: int | None = None
        self._number = 0
        self._next_node_id: int | None = None
        try:
            super().__init__(path)
        except BaseException:
            self._lock.release()
            raise

    def _open(self) -> sqlite3.Connection:
        return connect_writer(self._path)

    @property
    def number(self) -> int:
        """The epoch of this writer, known inside a transaction."""
        return self._number

    def begin(self) -> None:
        """Begin a transaction; claim the store at the first, make sure at later ones that nobody has since."""
        self.fetch("BEGIN IMMEDIATE")
        epoch = int(self.fetch("SELECT epoch FROM writer")[0][0])
        if self._epoch is None:
            epoch += 1
            self.fetch("UPDATE writer SET epoch = ?", (epoch,))
        elif epoch != self._epoch:
            raise StoreError(
                f"another process has taken over writing the store {self._path}",
                fix="let one ingest process write a store; on a network filesystem locks do not hold",
            )
        self._number = epoch

    def commit(self) -> None:
        """Commit durably."""
        self.fetch("COMMIT")
        self._epoch = self._number

    def rollback(self) -> None:
        """Undo the transaction."""
        self._next_node_id = None
        # SQLite has rolled back by itself after some errors, such as a full disk.
        if self._connection.in_transaction:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")

    def insert(self, table: str, columns: Mapping[str, Column]) -> None:
        """Insert rows given as columns."""
        if not self._insert_texts(table, columns):
            self._many(_insert(table, tuple(columns)), columns)

    def _insert_texts(self, table: str, columns: Mapping[str, Column]) -> bool:
        """Insert rows of a running number, a number that all have, and a text; return whether these are such.

        One statement without Python's lock, in order of the texts: neighbours in their index are written together.
        """
        if len(columns) != 3:
            return False
        numbers, shared, texts = columns.values()
        if not (isinstance(numbers, np.ndarray) and isinstance(shared, np.ndarray)) or set(map(type, texts)) != {str}:
            return False
        if (np.diff(numbers) != 1).any() or (shared != shared[0]).any():
            return False
        sql = f"INSERT INTO {table} ({', '.join(columns)}) SELECT ? + key, ?, value FROM json_each(?) ORDER BY value"
        self.fetch(sql, (int(numbers[0]), int(shared[0]), orjson.dumps(list(texts)).decode()))
        return True

    def upsert(
        self, table: str, columns: Mapping[str, Column], key: Sequence[str], instead: Mapping[str, str] | None = None
    ) -> None:
        """Insert rows whose `key` columns are new, and overwrite the other columns of those that are there."""
        if instead is None and self._upsert_alike(table, columns, key):
            return
        sql = _upsert(table, tuple(columns), tuple(key), tuple((instead or {}).items()))
        self._many(sql, columns)

    def _upsert_alike(self, table: str, columns: Mapping[str, Column], key: Sequence[str]) -> bool:
        """Upsert pairs of whole numbers where few values belong to many keys; return whether these are such.

        One statement for each value: Python's other threads go on meanwhile, which they cannot for each row.
        """
        (name, keys), *others = columns.items()
        if len(others) != 1 or [name] != list(key) or len(keys) < _MANY_ROWS:
            return False
        other, values = others[0]
        if not (isinstance(keys, np.ndarray) and isinstance(values, np.ndarray)):
            return False
        distinct = np.unique(values)
        if len(distinct) * _MANY_ROWS > len(keys):
            return False
        sql = f"INSERT INTO {table} ({name}, {other}) SELECT value, ? FROM json_each(?) WHERE true"
        sql += on_conflict(columns, key, instead=None)
        for value in distinct.tolist():
            self.fetch(sql, (value, _json(keys[values == value])))
        return True

    def find_names(self, graph_id: int, names: Sequence[str]) -> IntArray:
        """Return the node ids of distinct names [n] in a graph, 0 where there is none."""
        ids = np.zeros(len(names), dtype=np.int64)
        found = np.array(self.fetch(_FIND_NAMES, (json.dumps(names), graph_id)), dtype=np.int64).reshape(-1, 2)
        ids[found[:, 0]] = found[:, 1]
        return ids

    def next_node_ids(self, count: int) -> IntArray:
        """Return the ids [count] that follow the largest in the store."""
        if self._next_node_id is None:
            self._next_node_id = int(self.fetch("SELECT ifnull(max(id), 0) + 1 FROM nodes")[0][0])
        first = self._next_node_id
        self._next_node_id += count
        return np.arange(first, first + count, dtype=np.int64)

    def skip_ids(self) -> None:
        """Look again which id is the largest; SQLite itself does so for rows."""
        self._next_node_id = None

    def scrub(self) -> bool:
        """Write the whole file anew and empty the write-ahead log; False where a reader keeps the log in use."""
        # The new file is first made aside, and a store may be larger than the memory.
        self.fetch("PRAGMA temp_store = FILE")
        try:
            # Moving rows between pages has left copies of them in unused parts of pages: only a new file has none.
            self.fetch("VACUUM")
        finally:
            self.fetch("PRAGMA temp_store = MEMORY")
        return bool(self.fetch("PRAGMA wal_checkpoint(TRUNCATE)")[0][0] == 0)

    def alive(self, number: int) -> bool:
        """Return whether `number` is this writer's: there is no other."""
        return number == self._number

    def lock_graph(self, graph_id: int, *, alone: bool = True) -> None:
        """Do nothing: there is no other writer."""

    def lock_beginnings(self) -> None:
        """Do nothing: there is no other writer."""

    def lock_snapshots(self) -> None:
        """Do nothing: there is no other writer."""

    def close(self) -> None:
        """Close the store and let another process write it; a new store that nothing was written to goes away."""
        super().close()
        if self._is_new and self._epoch is None:
            self._path.unlink(missing_ok=True)
        self._lock.release()

    def _many(self, sql: str, columns: Mapping[str, Column]) -> None:
        lists = [_listed(column) for column in columns.values()]
        if not lists[0]:
            return
        try:
            self._connection.executemany(sql, zip(*lists, strict=True))
        except sqlite3.Error as error:
            raise explain(error, self._path) from error


@cache
def _insert(table: str, columns: tuple[str, ...]) -> str:
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"


@cache
def _upsert(table: str, columns: tuple[str, ...], key: tuple[str, ...], instead: tuple[tuple[str, str], ...]) -> str:
    return _insert(table, columns) + on_conflict(columns, key, dict(instead))


def _json(keys: IntArray) -> str:
    return orjson.dumps(keys.tolist()).decode()


def _listed(column: Column) -> Sequence[Any]:
    return column.tolist() if isinstance(column, np.ndarray) else column
