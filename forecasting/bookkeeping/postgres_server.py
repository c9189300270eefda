"""The PostgreSQL server of the service's books: how it is reached, how tables are made, what errors mean to a user."""

import re
import time
from typing import Any, TypeVar

import psycopg
from psycopg import conninfo, errors
from psycopg.abc import PQGen

from forecasting.bookkeeping.tables import SERVICE_SCHEMA, base_statements, later_statements
from infra.errors import StoreError
from stream.store.postgres_server import address

SETTING = "[api] service_db"
# "GrSv" and 0: the advisory lock of making tables, one for all books of a database, which are not there yet.
_MAKING = (0x47725376, 0)
# That of transactions. Advisory locks are the database's, which may have books in each of several schemas.
WRITING = "'service_schema'::regclass::oid::int, 1"
# How long a transaction waits for those of others, as with the file.
LOCK_WAIT_S = 5
# How long others wait for one whose process stands still or whose host is gone, before the server ends its session.
HANGING_S = 15
# How long a server may take to be connected to, and a statement, which may wait for the lock. One that does not answer
# holds up whoever asks for so long, but not every time.
CONNECT_S, STATEMENT_S = 3, 10
_SESSION: dict[str, Any] = {
    "connect_timeout": CONNECT_S,
    # Milliseconds after which a connection whose other end acknowledges nothing is given up.
    "tcp_user_timeout": 1000 * CONNECT_S,
    "keepalives_idle": CONNECT_S,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "application_name": "graphtide",
}
_TYPES = {"INTEGER": "BIGINT", "BLOB": "BYTEA", "TEXT": 'TEXT COLLATE "C"'}
_NAME = re.compile(r"CREATE TABLE (?:IF NOT EXISTS )?(\w+)")
Result = TypeVar("Result")


class Session(psycopg.Connection[tuple[Any, ...]]):
    """A connection that is given up where a statement is not answered in `STATEMENT_S`.

    The server's own limits do not help where it stands still, and the client's library has none.
    """

    def wait(self, gen: PQGen[Result], *args: Any, **options: Any) -> Result:
        """Go through what a statement does, which ends with an `OperationalError` where it takes too long."""
        try:
            return super().wait(_bounded(gen, time.monotonic() + STATEMENT_S), *args, **options)
        except _NoAnswerError:
            self.pgconn.finish()
            raise


class _NoAnswerError(psycopg.OperationalError):
    """A statement was not answered in time."""


def _bounded(gen: PQGen[Result], until: float) -> PQGen[Result]:
    """Pass a generator of the client's on; whoever runs it comes back with "not ready" several times a second."""
    ready: Any = None
    while True:
        try:
            state = gen.send(ready)
        except StopIteration as end:
            result: Result = end.value
            return result
        ready = yield state
        if not ready and time.monotonic() > until:
            gen.close()
            raise _NoAnswerError(f"no answer in {STATEMENT_S} s")


def connect(url: str) -> Session:
    """Open a session that commits each statement unless it is told otherwise.

    Raises:
        psycopg.Error: the server cannot be reached or refuses.
    """
    parameters = conninfo.make_conninfo(**_SESSION | conninfo.conninfo_to_dict(url))
    connection = Session.connect(parameters, autocommit=True)
    try:
        # Durable commits, whatever the server's default is; where it waits for replicas too, it goes on to.
        connection.execute(
            "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
        )
        connection.execute(f"SET idle_in_transaction_session_timeout = '{HANGING_S}s'")
        connection.execute(f"SET lock_timeout = '{LOCK_WAIT_S}s'")
    except BaseException:
        connection.close()
        raise
    return connection


def has_books(url: str) -> bool:
    """Tell whether a database holds the service's books; nothing is made in it.

    Raises:
        UsageError: the URL cannot be read.
        StoreError: the server cannot be reached, or the books are of a newer version.
    """
    name = address(url, setting=SETTING)
    try:
        with connect(url) as connection:
            return _is_complete(connection, name)
    except psycopg.Error as error:
        raise explain(error, name) from None


def make_tables(connection: Session, name: str) -> None:
    """Make the tables that are not there, whoever else does the same at the moment.

    Raises:
        StoreError: they are of a newer version.
    """
    if _is_complete(connection, name):
        return
    # A lock of the session: a transaction that had waited for it would not see the tables made meanwhile.
    connection.execute("SELECT pg_advisory_lock(%s::int, %s::int)", _MAKING)
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
            connection.execute("SELECT pg_advisory_unlock(%s::int, %s::int)", _MAKING)


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
            return unusable(name, meaning.format(error=text), fix)
    if isinstance(error, psycopg.OperationalError):
        fix = "check address, user and password, and that the server runs"
        return unusable(name, f"it cannot be reached: {text}", fix)
    return unusable(name, f"it failed: {text}")


def unusable(name: str, text: str, fix: str | None = None) -> StoreError:
    """Return that the database cannot be used, and why."""
    return StoreError(f"the service's database {name} cannot be used: {text}", place=SETTING, fix=fix)
