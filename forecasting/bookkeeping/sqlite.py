"""The books of the service in a SQLite file, which the processes of one host share."""

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from forecasting.bookkeeping.base import Connection
from forecasting.bookkeeping.tables import SERVICE_SCHEMA, base_statements, later_statements
from forecasting.doctor import SQLITE_WAL_RESET_FIXED
from infra.errors import StoreError
from infra.own_sqlite import begun, open_own

# "GrSv": tells this file from a store and from any other SQLite database.
APPLICATION_ID = 0x47725376


class SqliteBooks:
    """`Books` in a file.

    Args:
        path: where it lies; made with its tables where there is none, readable by its owner alone.

    Raises:
        StoreError: it cannot be opened, or is something else.
    """

    # A look costs next to nothing.
    look_s = 0.0

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._lock = threading.RLock()
        with self._translated():
            self._connection = open_own(path)
        try:
            with self._translated():
                self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Release the file."""
        self._connection.close()

    def now_us(self) -> int:
        """Return the time of this machine, the only one that the file is on, in UTC microseconds."""
        return time.time_ns() // 1000

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Return the rows of a query."""
        with self._lock, self._translated():
            return self._connection.execute(sql, parameters).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Yield a connection in a transaction that holds the write lock."""
        with self._lock, self._translated(), begun(self._connection) as connection:
            yield connection

    def _prepare(self) -> None:
        application_id = self._connection.execute("PRAGMA application_id").fetchone()[0]
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if application_id not in {0, APPLICATION_ID} or version > SERVICE_SCHEMA:
            raise StoreError(
                f"{self.name} is no file of this version's forecast service",
                place="[api] service_db",
                fix="name another file, or upgrade graphtide",
            )
        # Several processes write: older versions of SQLite can lose pages of a write-ahead log then.
        mode = "WAL" if sqlite3.sqlite_version_info >= SQLITE_WAL_RESET_FIXED else "TRUNCATE"
        self._connection.execute(f"PRAGMA journal_mode = {mode}")
        self._connection.execute("PRAGMA synchronous = FULL")
        with self.transaction() as connection:
            if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0:
                marks = (f"PRAGMA application_id = {APPLICATION_ID}", f"PRAGMA user_version = {SERVICE_SCHEMA}")
                for statement in (*base_statements(), *marks):
                    connection.execute(statement)
            elif application_id == 0 and connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
                raise StoreError(
                    f"{self.name} is another program's file", place="[api] service_db", fix="name another file"
                )
            for statement in later_statements():
                connection.execute(statement)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"the service's file {self.name} cannot be used: {error}",
                place="[api] service_db",
                fix="check that the file is ours, that its folder is writable and that the disk has space",
            ) from error
