"""PostgreSQL as the database of a store: several processes write it, each its own partitions and graphs.

A writer is a session: it holds an advisory lock on its number, so that others see whether it lives, and it is over
when its connection is. Nothing here reconnects a writer; a reader takes a new connection where one was lost, and asks
once more where that was cut while it was idle.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache

import numpy as np
import psycopg
from psycopg import capabilities
from psycopg.abc import Buffer, DumperKey

from infra.errors import StoreError
from stream.events import IntArray
from stream.store.postgres_server import (
    KEEPALIVES,
    WRITERS,
    WRITERS_CLASS,
    address,
    check_tables,
    connect,
    explain,
    make_tables,
)
from stream.store.sql.database import Column, ReadDatabase, Row
from stream.store.sql.tables import on_conflict

# Node ids are taken from the sequence in blocks of this size, which its statement in `postgres_server` does not know.
_BLOCK_IDS = 1024
# How long another process waits for one that hangs inside a transaction before the server ends that session.
_HANGING_S = 60
_FIND_NAMES = (
    "SELECT place, nodes.id FROM unnest(?::text[]) WITH ORDINALITY AS asked (asked_name, place)"
    " JOIN nodes ON graph_id = ? AND name = asked_name"
)
_LIVES = f"{WRITERS} AND objid = ?::oid"
# A lock on one long key, which is never the lock of a writer.
_ELECT = f"SELECT pg_try_advisory_lock(hashtextextended(?, {WRITERS_CLASS}::bigint))"
_BEGIN_SOURCE = f"SELECT pg_advisory_xact_lock(hashtextextended('begin a source', {WRITERS_CLASS}::bigint))"


class PostgresReadDatabase:
    """A `ReadDatabase` over a server; it may be used from several threads, each of which gets a connection.

    Raises:
        StoreError: the server cannot be reached, or there is no store.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self.name = address(url)
        self._idle = [connect(url, read_only=True)]
        self._elected: dict[str, psycopg.Connection[Row]] = {}

    def fetch(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """Run a statement and return its rows."""
        try:
            with self._using() as connection:
                return _fetch(connection, sql, parameters)
        except _CutError:
            with self._using(new=True) as connection:
                return _fetch(connection, sql, parameters)

    def fetch_in(self, sql: str, parameters: Sequence[object], keys: IntArray) -> list[Row]:
        """Run a query with a condition on many integers."""
        return self.fetch(sql.format(keys="= ANY(?)"), (*parameters, keys))

    def pages(self, sql: str, parameters: Sequence[object], size: int = 8192) -> Iterator[list[Row]]:
        """Yield the rows of a query in lists of at most `size`."""
        is_begun = False
        try:
            with self._using() as connection:
                for page in _pages(connection, sql, parameters, size):
                    is_begun = True
                    yield page
        except _CutError:
            # Another answer may be of another moment: no rest of one that was given out in part.
            if is_begun:
                raise
            with self._using(new=True) as connection:
                yield from _pages(connection, sql, parameters, size)

    @contextmanager
    def frozen(self) -> Iterator[ReadDatabase]:
        """Lend a connection of its own that sees one moment of the store."""
        other = _FrozenDatabase(self._url)
        try:
            yield other
        finally:
            other.close()

    def elect(self, role: str) -> bool:
        """Return whether this process has a role that one at a time can have; it keeps it while it is connected."""
        try:
            if role in self._elected:
                # The lock is held as long as the session answers.
                with _explained(self.name):
                    _fetch(self._elected[role], "SELECT 1")
                return True
        except StoreError:
            self._elected.pop(role).close()
            raise
        connection = connect(self._url, read_only=True)
        with _explained(self.name):
            if _fetch(connection, _ELECT, (role,))[0][0]:
                self._elected[role] = connection
                return True
        connection.close()
        return False

    def close(self) -> None:
        """Release all connections."""
        for connection in (*self._idle, *self._elected.values()):
            connection.close()
        self._idle, self._elected = [], {}

    @contextmanager
    def _using(self, *, new: bool = False) -> Iterator["psycopg.Connection[Row]"]:
        """Lend a connection to one thread; one that fails is not lent again.

        Args:
            new: not one that was idle.

        Raises:
            _CutError: it was idle, and it is closed now.
        """
        idle = None
        if not new:
            with suppress(IndexError):
                idle = self._idle.pop()
        connection = idle or connect(self._url, read_only=True)
        try:
            with _explained(self.name):
                yield connection
        except StoreError as error:
            if connection is idle and connection.closed:
                raise _CutError(error.message, place=error.place, fix=error.fix) from error
            connection.close()
            raise
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)


class _CutError(StoreError):
    """A connection was cut since it was used last: by a restart, a failover, or a limit on idle sessions."""


class _FrozenDatabase(PostgresReadDatabase):
    """One connection inside one transaction; where it is lost, so is that moment of the store."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        (self._connection,) = self._idle
        try:
            self.fetch("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        except BaseException:
            self.close()
            raise

    @contextmanager
    def _using(self, *, new: bool = False) -> Iterator["psycopg.Connection[Row]"]:
        with _explained(self.name):
            yield self._connection


class PostgresDatabase(PostgresReadDatabase):
    """A `Database`: one writing session.

    Raises:
        StoreError: the server cannot be reached, or its tables are not a store's.
    """

    exclusive = False

    def __init__(self, url: str) -> None:
        self._url = url
        self.name = address(url)
        self._elected = {}
        self._idle = []
        self._connection = connect(url, read_only=False)
        self._node_ids: IntArray = np.zeros(0, dtype=np.int64)
        try:
            with _explained(self.name):
                make_tables(self._connection, self.name)
                self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        fetch = self.fetch
        # Durable commits, whatever the server's default is; where it waits for replicas too, it goes on to.
        fetch(
            "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
        )
        fetch(f"SET idle_in_transaction_session_timeout = '{_HANGING_S}s'")
        # By default the server asks an idle writer after two hours; until then one on a host that is gone keeps what it
        # had open.
        for name, value in KEEPALIVES.items():
            fetch(f"SET tcp_keepalives_{name} = {value}")
        self.number = int(fetch("SELECT nextval('writers')")[0][0])
        fetch(f"SELECT pg_advisory_lock({WRITERS_CLASS}::int, ?::int)", (self.number,))
        # A migration that began before that lock did not see this writer.
        check_tables(self._connection, self.name)
        self._types = {
            (table, column): kind
            for table, column, kind in fetch(
                "SELECT table_name, column_name, data_type FROM information_schema.columns"
                " WHERE table_schema = current_schema()"
            )
        }

    @contextmanager
    def _using(self, *, new: bool = False) -> Iterator["psycopg.Connection[Row]"]:
        with _explained(self.name):
            yield self._connection

    def begin(self) -> None:
        """Begin a transaction."""
        self.fetch("BEGIN ISOLATION LEVEL READ COMMITTED")

    def commit(self) -> None:
        """Commit durably."""
        self.fetch("COMMIT")

    def rollback(self) -> None:
        """Undo the transaction."""
        with suppress(psycopg.Error):
            self._connection.execute("ROLLBACK")

    def insert(self, table: str, columns: Mapping[str, Column]) -> None:
        """Insert rows given as columns."""
        self._insert(table, columns, "")

    def upsert(
        self, table: str, columns: Mapping[str, Column], key: Sequence[str], instead: Mapping[str, str] | None = None
    ) -> None:
        """Insert rows whose `key` columns are new, and overwrite the other columns of those that are there."""
        self._insert(table, columns, on_conflict(columns, key, instead))

    def find_names(self, graph_id: int, names: Sequence[str]) -> IntArray:
        """Return the node ids of distinct names [n] in a graph, 0 where there is none."""
        ids = np.zeros(len(names), dtype=np.int64)
        found = np.array(self.fetch(_FIND_NAMES, (list(names), graph_id)), dtype=np.int64).reshape(-1, 2)
        ids[found[:, 0] - 1] = found[:, 1]
        return ids

    def next_node_ids(self, count: int) -> IntArray:
        """Return ids [count] from blocks that this writer has taken from the sequence."""
        n_blocks = -(-max(count - len(self._node_ids), 0) // _BLOCK_IDS)
        if n_blocks:
            rows = self.fetch("SELECT nextval('node_blocks') FROM generate_series(1, ?)", (n_blocks,))
            blocks = np.array([row[0] for row in rows], dtype=np.int64)
            ids = (blocks[:, None] * _BLOCK_IDS + np.arange(1, _BLOCK_IDS + 1)).reshape(-1)
            self._node_ids = np.concatenate((self._node_ids, ids))
        taken, self._node_ids = self._node_ids[:count], self._node_ids[count:]
        return taken

    def skip_ids(self) -> None:
        """Set the sequences above the largest ids."""
        for table in ("graphs", "sources", "open_chunks", "feeders", "dead_letters", "outbox"):
            self.fetch(
                f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), max(id)) FROM {table} HAVING max(id) > 0"
            )
        self.fetch(f"SELECT setval('node_blocks', max(id) / {_BLOCK_IDS} + 1) FROM nodes HAVING max(id) > 0")
        self._node_ids = self._node_ids[:0]

    def scrub(self) -> bool:
        """Remove deleted rows from the tables; the server's log and backups keep them for as long as they are kept."""
        self.fetch("VACUUM nodes, dead_letters, rejects")
        return True

    def alive(self, number: int) -> bool:
        """Return whether the session of the writer of that number is there."""
        return bool(self.fetch(_LIVES, (number,)))

    def lock_graph(self, graph_id: int, *, alone: bool = True) -> None:
        """Let other processes wait until the end of this transaction before they take the same graph's lock.

        One that is not taken alone is shared with others of that kind.
        """
        self.fetch(f"SELECT id FROM graphs WHERE id = ? FOR {'UPDATE' if alone else 'SHARE'}", (graph_id,))

    def lock_beginnings(self) -> None:
        """Wait for transactions that called this, and let further ones wait until the end of this one."""
        self.fetch(_BEGIN_SOURCE)

    def lock_snapshots(self) -> None:
        """Wait for transactions that write snapshots, and let further ones wait until the end of this one."""
        self.fetch("LOCK TABLE snapshots IN SHARE ROW EXCLUSIVE MODE")

    def close(self) -> None:
        """End the session; partitions that it has not released count as given up."""
        self._connection.close()

    def _insert(self, table: str, columns: Mapping[str, Column], suffix: str) -> None:
        if not len(next(iter(columns.values()))):
            return
        arrays = ", ".join(f"?::{self._types[table, column]}[]" for column in columns)
        values = [column if isinstance(column, np.ndarray) else list(column) for column in columns.values()]
        self.fetch(f"INSERT INTO {table} ({', '.join(columns)}) SELECT * FROM unnest({arrays}){suffix}", values)


class ArrayDumper(psycopg.adapt.Dumper):
    """Sends an int64 or float64 array [n] in PostgreSQL's binary form, made in a few whole-array operations."""

    format = psycopg.pq.Format.BINARY

    def get_key(self, obj: object, format: psycopg.adapt.PyFormat) -> DumperKey:
        """Tell arrays of different types apart."""
        assert isinstance(obj, np.ndarray)
        return (self.cls, float if obj.dtype.kind == "f" else int)

    def upgrade(self, obj: object, format: psycopg.adapt.PyFormat) -> "ArrayDumper":
        """Return the dumper of an array's own type."""
        assert isinstance(obj, np.ndarray)
        dumper = ArrayDumper(self.cls)
        dumper.oid = _FLOAT_ARRAY if obj.dtype.kind == "f" else _INT_ARRAY
        return dumper

    def dump(self, obj: object) -> Buffer | None:
        """Return the bytes: one dimension from 1, no NULL, each element with its length."""
        assert isinstance(obj, np.ndarray)
        element, code = (_FLOAT, ">f8") if obj.dtype.kind == "f" else (_INT, ">i8")
        head = np.array([1, 0, element, len(obj), 1], dtype=">i4").tobytes() if len(obj) else b""
        body = np.empty(len(obj), dtype=[("length", ">i4"), ("value", code)])
        body["length"] = 8
        body["value"] = obj
        return head + body.tobytes() if len(obj) else np.array([0, 0, element], dtype=">i4").tobytes()


_INT, _INT_ARRAY, _FLOAT, _FLOAT_ARRAY = 20, 1016, 701, 1022
psycopg.adapters.register_dumper(np.ndarray, ArrayDumper)


def _fetch(connection: "psycopg.Connection[Row]", sql: str, parameters: Sequence[object] = ()) -> list[Row]:
    cursor = connection.execute(_translated(sql), parameters)
    return cursor.fetchall() if cursor.description else []


def _pages(
    connection: "psycopg.Connection[Row]", sql: str, parameters: Sequence[object], size: int
) -> Iterator[list[Row]]:
    with connection.cursor(binary=True) as cursor:
        # Chunks need a newer client library; one row at a time is only slower.
        chunk = size if capabilities.has_stream_chunked() else 1
        page: list[Row] = []
        for row in cursor.stream(_translated(sql), parameters, size=chunk):
            page.append(row)
            if len(page) == size:
                yield page
                page = []
        if page:
            yield page


@lru_cache(maxsize=1024)
def _translated(sql: str) -> bytes:
    return sql.replace("?", "%s").encode()


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise explain(error, name) from error
