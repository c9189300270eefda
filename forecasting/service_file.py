"""The file of the serving processes: API keys, long-range forecasts, reports, alerts. Several processes share it."""

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from forecasting.alerts.tables import ALERT_TABLES
from forecasting.doctor import SQLITE_WAL_RESET_FIXED
from forecasting.reports.tables import REPORT_TABLES
from infra.errors import StoreError

SERVICE_SCHEMA = 1
# "GrSv": tells this file from a store and from any other SQLite database.
APPLICATION_ID = 0x47725376
BUSY_TIMEOUT_S = 5.0

# Times are UTC microseconds.
_TABLES = f"""
CREATE TABLE keys (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    secret_hash BLOB NOT NULL,                  -- SHA-256 of 256 random bits
    scope TEXT NOT NULL,
    graphs TEXT NOT NULL,                       -- JSON: names, or prefixes that end with *
    created_us INTEGER NOT NULL,
    revoked_us INTEGER
) STRICT;
CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    graph TEXT NOT NULL,
    owner TEXT NOT NULL,                        -- id of the key, '' where the service has none
    request TEXT NOT NULL,                      -- JSON, canonical
    idempotency_key TEXT,
    status TEXT NOT NULL,
    horizon INTEGER NOT NULL,
    steps_done INTEGER NOT NULL,
    fence INTEGER NOT NULL,                     -- rises with every begin and cancel: writes with an old one are refused
    attempts INTEGER NOT NULL,
    worker TEXT,
    lease_until_us INTEGER,
    created_us INTEGER NOT NULL,
    started_us INTEGER,
    finished_us INTEGER,
    problem TEXT,
    ground TEXT,                                -- JSON: what the forecast rests on, from the first begin
    UNIQUE (owner, idempotency_key)
) STRICT;
CREATE INDEX jobs_by_status ON jobs (status, created_us);
CREATE TABLE job_chunks (
    job_id TEXT NOT NULL,
    first_step INTEGER NOT NULL,
    steps INTEGER NOT NULL,
    digest BLOB NOT NULL,
    body BLOB NOT NULL,                         -- [steps, metrics, mean and levels]: `forecasting.job_chunks`
    PRIMARY KEY (job_id, first_step)
) STRICT;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SERVICE_SCHEMA};
"""


@dataclass(frozen=True, slots=True)
class Waiting:
    """How long a queue of the file is.

    Attributes:
        queued, running: rows of either status.
        oldest_s: seconds that the first of those queued has waited since it was asked for; 0 where none is.
    """

    queued: int
    running: int
    oldest_s: float


def now_us() -> int:
    """Return the time of this machine in UTC microseconds."""
    return time.time_ns() // 1000


class ServiceFile:
    """The open file; its methods may be called from several threads.

    Args:
        path: where it lies; made with its tables where there is none, readable by its owner alone.

    Raises:
        StoreError: it cannot be opened, or is something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        with self._translated():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            self._connection = sqlite3.connect(
                path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
        try:
            with self._translated():
                self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the file."""
        self._connection.close()

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Return the rows of a query.

        Raises:
            StoreError: the file cannot be read.
        """
        with self._lock, self._translated():
            return self._connection.execute(sql, parameters).fetchall()

    def waiting(self, queue: Literal["jobs", "reports"]) -> Waiting:
        """Return how long a queue is.

        Raises:
            StoreError: the file cannot be read.
        """
        ((queued, running, oldest_us),) = self.rows(
            "SELECT coalesce(sum(status = 'queued'), 0), coalesce(sum(status = 'running'), 0),"
            " min(CASE status WHEN 'queued' THEN created_us END)"
            f" FROM {queue} WHERE status IN ('queued', 'running')"
        )
        oldest_s = 0.0 if oldest_us is None else max(0.0, (now_us() - oldest_us) / 1e6)
        return Waiting(queued, running, oldest_s)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection in a transaction that holds the write lock; kept on success, undone on any exception.

        Raises:
            StoreError: the file cannot be written.
        """
        with self._lock, self._translated():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def _prepare(self) -> None:
        application_id = self._connection.execute("PRAGMA application_id").fetchone()[0]
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if application_id not in {0, APPLICATION_ID} or version > SERVICE_SCHEMA:
            raise StoreError(
                f"{self.path} is no file of this version's forecast service",
                place="[api] service_db",
                fix="name another file, or upgrade graphtide",
            )
        # Several processes write: older versions of SQLite can lose pages of a write-ahead log then.
        mode = "WAL" if sqlite3.sqlite_version_info >= SQLITE_WAL_RESET_FIXED else "TRUNCATE"
        self._connection.execute(f"PRAGMA journal_mode = {mode}")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("PRAGMA secure_delete = ON")
        with self.transaction() as connection:
            if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0:
                for statement in _TABLES.split(";"):
                    connection.execute(statement)
            elif application_id == 0 and connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
                raise StoreError(
                    f"{self.path} is another program's file", place="[api] service_db", fix="name another file"
                )
            # Tables of their own, which an older version neither needs nor minds: the schema's number stays.
            for statement in (*REPORT_TABLES.split(";"), *ALERT_TABLES.split(";")):
                connection.execute(statement)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"the service's file {self.path} cannot be used: {error}",
                place="[api] service_db",
                fix="check that the file is ours, that its folder is writable and that the disk has space",
            ) from error
