"""The books of the service in a PostgreSQL database, which processes on several hosts share.

Transactions come one at a time, by an advisory lock that ends with them. The records were written for the one write
lock of SQLite: they count before they add, and choose before they take. Under that lock every statement sees all that
was committed before, and nothing has to be tried again, which SERIALIZABLE would ask of each of them. They are a few
short statements each, and reads wait for nobody.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any, TypeVar

import psycopg
from psycopg import errors

from forecasting.bookkeeping.base import TEXTS_OF_JSON, Connection, Cursor
from forecasting.bookkeeping.postgres_server import (
    SETTING,
    WRITING,
    Session,
    connect,
    explain,
    make_tables,
    unusable,
)
from stream.store.postgres_server import address

# The server says so and ends the session; the client may learn of the end only with its next statement.
_ENDED = (errors.AdminShutdown, errors.CrashShutdown, errors.CannotConnectNow, errors.IdleInTransactionSessionTimeout)
# Connected to a server that has become a standby: a new connection may find the new primary.
_MOVED = (errors.ReadOnlySqlTransaction,)
Result = TypeVar("Result")


class _Statements:
    """A connection that takes the common SQL."""

    def __init__(self, connection: Session) -> None:
        self._connection = connection

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Cursor:
        """Run a statement."""
        return self._connection.execute(_translated(sql), [_fit(value) for value in parameters])


class PostgresBooks:
    """`Books` in a database: one session, which is replaced where it was lost.

    A read is tried once more on a new session; a transaction that loses its session in the middle is undone and fails.

    Args:
        url: `postgresql://user@host:port/database`; the password may be in PGPASSWORD or ~/.pgpass.

    Raises:
        UsageError: the URL cannot be read.
        StoreError: the server cannot be reached, or the database has tables of another program.
    """

    # All processes look at one server.
    look_s = 0.2

    def __init__(self, url: str) -> None:
        self._url = url
        self.name = address(url, setting=SETTING)
        self._lock = threading.RLock()
        self._connection: Session | None = None
        self._is_inside = False
        self._away: tuple[float, psycopg.Error] | None = None
        try:
            with self._lock, self._explained():
                make_tables(self._connected(), self.name)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the session."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def now_us(self) -> int:
        """Return the time of the server in UTC microseconds: one clock for processes whose hosts differ."""
        ((now,),) = self.rows("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
        return int(now)

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Return the rows of a query."""
        with self._lock, self._explained():
            if self._is_inside:
                return _Statements(self._connected()).execute(sql, parameters).fetchall()
            return self._anew(lambda connection: _Statements(connection).execute(sql, parameters).fetchall())

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Yield a connection in a transaction that holds the lock of all transactions."""
        with self._lock, self._explained():
            connection = self._anew(_begin)
            self._is_inside = True
            try:
                yield _Statements(connection)
                # A transaction in which a statement has failed is undone by a COMMIT, without an error.
                done = connection.execute("COMMIT").statusmessage
            except BaseException:
                try:
                    connection.execute("ROLLBACK")
                except psycopg.Error:
                    connection.close()
                raise
            finally:
                self._is_inside = False
            if done != "COMMIT":
                raise unusable(self.name, "it undid a transaction")

    def _anew(self, work: Callable[[Session], Result]) -> Result:
        """Do what may be done twice; where it finds the session lost, once more on a new one."""
        is_new = self._connection is None
        try:
            return work(self._connected())
        except psycopg.Error as error:
            if is_new or not self._drop_lost(error):
                raise
        return work(self._connected())

    def _connected(self) -> Session:
        if self._connection is None:
            if self._away is not None and time.monotonic() < self._away[0]:
                raise explain(self._away[1], self.name)
            begun = time.monotonic()
            try:
                self._connection = connect(self._url)
            except psycopg.Error as error:
                # Twice as long as the try has taken: a server that refuses is asked again soon, one that does not
                # answer does not hold up all that this process has to do.
                tried_at = time.monotonic()
                self._away = (tried_at + max(0.2, 2 * (tried_at - begun)), error)
                raise explain(error, self.name) from None
            self._away = None
        return self._connection

    def _drop_lost(self, error: psycopg.Error) -> bool:
        """Tell whether an error means that the session is over; then it is given up."""
        connection = self._connection
        if connection is not None and (connection.closed or isinstance(error, (*_ENDED, *_MOVED))):
            self.close()
        return self._connection is None

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            self._drop_lost(error)
            raise explain(error, self.name) from error


def _begin(connection: Session) -> Session:
    """Begin a transaction behind those of others; each of its statements sees all that they have committed."""
    connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
    try:
        connection.execute(f"SELECT pg_advisory_xact_lock({WRITING})".encode())
    except psycopg.Error:
        with suppress(psycopg.Error):
            connection.execute("ROLLBACK")
        raise
    return connection


@lru_cache(maxsize=1024)
def _translated(sql: str) -> bytes:
    return sql.replace(TEXTS_OF_JSON, "SELECT json_array_elements_text(?::json)").replace("?", "%s").encode()


def _fit(value: object) -> object:
    # PostgreSQL keeps no NUL in text. Nothing of ours holds one: what a caller asks for is then not found.
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value
