"""The books of the service in a PostgreSQL database, which processes on several hosts share.

Transactions come one at a time, by an advisory lock that ends with them. The records were written for the one write
lock of SQLite: they count before they add, and choose before they take. Under that lock every statement sees all that
was committed before, and nothing has to be tried again, which SERIALIZABLE would ask of each of them; the transactions
are a few short statements, so that hundreds fit into a second. Reads wait for nobody.
"""

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any, TypeVar

import psycopg
from psycopg import conninfo, errors

from forecasting.bookkeeping.base import TEXTS_OF_JSON, Connection, Cursor
from forecasting.bookkeeping.tables import SERVICE_SCHEMA, base_statements, later_statements
from infra.errors import StoreError
from stream.store.postgres_server import address

SETTING = "[api] service_db"
# "GrSv", as the class of the advisory locks: that of making the tables, that of transactions.
ADVISORY, MAKING, WRITING = 0x47725376, 0, 1
# How long a transaction waits for those of others, as with the file.
LOCK_WAIT_S = 5
# How long others wait for one whose process stands still or whose host is gone, before the server ends its session.
HANGING_S = 15
# A server that does not answer holds up whoever asks for so long, but not every time.
ANSWER_S = 3
_SESSION: dict[str, Any] = {
    "connect_timeout": ANSWER_S,
    # Milliseconds after which a connection whose other end acknowledges nothing is given up.
    "tcp_user_timeout": 1000 * ANSWER_S,
    "keepalives_idle": ANSWER_S,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "application_name": "graphtide",
}
# The server says so and ends the session; the client may learn of the end only with its next statement.
_ENDED = (errors.AdminShutdown, errors.CrashShutdown, errors.CannotConnectNow, errors.IdleInTransactionSessionTimeout)
# Connected to a server that has become a standby: a new connection may find the new primary.
_MOVED = (errors.ReadOnlySqlTransaction,)
_TYPES = {"INTEGER": "BIGINT", "BLOB": "BYTEA", "TEXT": 'TEXT COLLATE "C"'}
_NAME = re.compile(r"CREATE TABLE (?:IF NOT EXISTS )?(\w+)")
Session = psycopg.Connection[tuple[Any, ...]]
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

    def __init__(self, url: str) -> None:
        self._url = url
        self.name = address(url, setting=SETTING)
        self._lock = threading.RLock()
        self._connection: Session | None = None
        self._is_inside = False
        self._away: tuple[float, psycopg.Error] | None = None
        try:
            with self._lock, self._explained():
                _make_tables(self._connected(), self.name)
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
                raise _error(self.name, "it undid a transaction")

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
                self._connection = self._connect()
            except psycopg.Error as error:
                # Twice as long as the try has taken: a server that refuses is asked again soon, one that does not
                # answer does not hold up all that this process has to do.
                tried_at = time.monotonic()
                self._away = (tried_at + max(0.2, 2 * (tried_at - begun)), error)
                raise explain(error, self.name) from None
            self._away = None
        return self._connection

    def _connect(self) -> Session:
        parameters = conninfo.make_conninfo(**_SESSION | conninfo.conninfo_to_dict(self._url))
        connection: Session = psycopg.connect(parameters, autocommit=True)
        try:
            # Durable commits, whatever the server's default is; where it waits for replicas too, it goes on to.
            connection.execute(
                "SELECT set_config('synchronous_commit', 'on', false)"
                " WHERE current_setting('synchronous_commit') = 'off'"
            )
            connection.execute(f"SET idle_in_transaction_session_timeout = '{HANGING_S}s'")
            connection.execute(f"SET lock_timeout = '{LOCK_WAIT_S}s'")
        except BaseException:
            connection.close()
            raise
        return connection

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


def has_books(url: str) -> bool:
    """Tell whether a database holds the service's books; nothing is made in it.

    Raises:
        UsageError: the URL cannot be read.
        StoreError: the server cannot be reached, or the books are of a newer version.
    """
    name = address(url, setting=SETTING)
    try:
        with psycopg.connect(conninfo.make_conninfo(**_SESSION | conninfo.conninfo_to_dict(url))) as connection:
            return _is_complete(connection, name)
    except psycopg.Error as error:
        raise explain(error, name) from None


def _begin(connection: Session) -> Session:
    """Begin a transaction behind those of others; each of its statements sees all that they have committed."""
    connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
    try:
        connection.execute("SELECT pg_advisory_xact_lock(%s::int, %s::int)", (ADVISORY, WRITING))
    except psycopg.Error:
        with suppress(psycopg.Error):
            connection.execute("ROLLBACK")
        raise
    return connection


def _make_tables(connection: Session, name: str) -> None:
    """Make the tables that are not there, whoever else does the same at the moment.

    Raises:
        StoreError: they are of a newer version.
    """
    if _is_complete(connection, name):
        return
    # A lock of the session: a transaction that had waited for it would not see the tables made meanwhile.
    connection.execute("SELECT pg_advisory_lock(%s::int, %s::int)", (ADVISORY, MAKING))
    try:
        with connection.transaction():
            if _is_complete(connection, name):
                return
            if _schema(connection) is None:
                statements = (*base_statements(), *later_statements())
                for statement in statements:
                    # Tables of that name are another program's.
                    connection.execute(_own(statement).replace("IF NOT EXISTS ", "").encode())
                connection.execute("CREATE TABLE service_schema (version BIGINT NOT NULL)")
                connection.execute(f"INSERT INTO service_schema VALUES ({SERVICE_SCHEMA})".encode())
                return
            for statement in later_statements():
                connection.execute(_own(statement).encode())
    finally:
        if not connection.closed:
            connection.execute("SELECT pg_advisory_unlock(%s::int, %s::int)", (ADVISORY, MAKING))


def _is_complete(connection: Session, name: str) -> bool:
    schema = _schema(connection)
    if schema is not None and schema > SERVICE_SCHEMA:
        raise StoreError(
            f"{name} is no database of this version's forecast service",
            place=SETTING,
            fix="name another database, or upgrade graphtide",
        )
    wanted = [found[1] for one in (*base_statements(), *later_statements()) if (found := _NAME.search(one))]
    row = connection.execute("SELECT count(to_regclass(name)) FROM unnest(%s::text[]) AS name", (wanted,)).fetchone()
    return schema is not None and row is not None and row[0] == len(wanted)


def _schema(connection: Session) -> int | None:
    found = connection.execute("SELECT to_regclass('service_schema')").fetchone()
    if found is None or found[0] is None:
        return None
    row = connection.execute("SELECT version FROM service_schema").fetchone()
    return None if row is None else int(row[0])


def _own(statement: str) -> str:
    """Return a statement of SQLite as one of PostgreSQL, with the rowid that tables of SQLite have by themselves."""
    for theirs, ours in _TYPES.items():
        statement = re.sub(rf"\b{theirs}\b", ours, statement)
    rowid = "(\n    rowid BIGINT GENERATED ALWAYS AS IDENTITY,\n"
    return statement.replace("(\n", rowid, 1).replace(") STRICT", ")")


@lru_cache(maxsize=1024)
def _translated(sql: str) -> bytes:
    return sql.replace(TEXTS_OF_JSON, "SELECT json_array_elements_text(?::json)").replace("?", "%s").encode()


def _fit(value: object) -> object:
    # PostgreSQL keeps no NUL in text. Nothing of ours holds one: what a caller asks for is then not found.
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


# Which errors mean what, and the fix; the first that fits counts.
_MEANINGS: tuple[tuple[type[psycopg.Error], str, str], ...] = (
    (errors.DiskFull, "no space is left; what was committed before is intact", "free some space on the server"),
    (
        errors.LockNotAvailable,
        f"another process has held it for {LOCK_WAIT_S} s",
        f"try again: the server ends who stands still for {HANGING_S} s",
    ),
    (
        errors.DuplicateTable,
        "it has tables of another program: {error}",
        "use another database, or another schema of it: append ?options=-csearch_path%3Dservice to the url",
    ),
    (
        errors.InsufficientPrivilege,
        "this user may not do that: {error}",
        "grant the user the right to create and write tables in the schema",
    ),
    (errors.ReadOnlySqlTransaction, "it is read-only: a standby, or set so", "connect to the primary server"),
    (errors.UndefinedTable, "it is damaged: {error}", "restore it from a backup of the server"),
)


def explain(error: psycopg.Error, name: str) -> StoreError:
    """Return what an error of PostgreSQL means to a user."""
    # The first line says it; the client quotes no password.
    text = (error.diag.message_primary or str(error)).strip().split("\n")[0]
    for kind, meaning, fix in _MEANINGS:
        if isinstance(error, kind):
            return _error(name, meaning.format(error=text), fix)
    if isinstance(error, psycopg.OperationalError):
        fix = "check address, user and password, and that the server runs"
        return _error(name, f"it cannot be reached: {text}", fix)
    return _error(name, f"it failed: {text}")


def _error(name: str, text: str, fix: str | None = None) -> StoreError:
    return StoreError(f"the service's database {name} cannot be used: {text}", place=SETTING, fix=fix)
