"""The books of the serving processes: API keys, long-range forecasts, reports, alerts. Several processes share them.

They are a SQLite file, as most call it, or a PostgreSQL database where the processes are on several hosts.
"""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from forecasting.bookkeeping.base import Books, Connection
from forecasting.bookkeeping.sqlite import SqliteBooks


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
    """Return the time of this machine in UTC microseconds, for what is shown; leases take `ServiceFile.now_us`."""
    return time.time_ns() // 1000


def name_of(place: Path | str) -> str:
    """Return how messages name a place of `[api] service_db`: a path, or an address without a password.

    Raises:
        UsageError: it is no address of a database.
    """
    if isinstance(place, Path):
        return str(place)
    from stream.store.postgres_server import address  # noqa: PLC0415 - needs the client of PostgreSQL

    return address(place, setting="[api] service_db")


def _open(place: Path | str) -> Books:
    if isinstance(place, Path):
        return SqliteBooks(place)
    from forecasting.bookkeeping.postgres import PostgresBooks  # noqa: PLC0415 - needs the client of PostgreSQL

    return PostgresBooks(place)


class ServiceFile:
    """The open books; its methods may be called from several threads.

    Args:
        place: `[api] service_db`: the path of a file, or the URL of a PostgreSQL database; made with its tables where
            there are none.

    Raises:
        StoreError: it cannot be opened, or is something else.
        UsageError: the URL cannot be read.
    """

    def __init__(self, place: Path | str) -> None:
        self._books = _open(place)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def name(self) -> str:
        """How messages name it: a path, or an address without a password."""
        return self._books.name

    @property
    def look_s(self) -> float:
        """Seconds that a process leaves between two looks for something to do, at least."""
        return self._books.look_s

    def close(self) -> None:
        """Release it."""
        self._books.close()

    def now_us(self) -> int:
        """Return the time in UTC microseconds by one clock for all processes: leases are taken and compared by it.

        Raises:
            StoreError: the database cannot be asked.
        """
        return self._books.now_us()

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Return the rows of a query in the common SQL of `forecasting.bookkeeping.base`.

        Raises:
            StoreError: it cannot be read.
        """
        return self._books.rows(sql, parameters)

    def waiting(self, queue: Literal["jobs", "reports"]) -> Waiting:
        """Return how long a queue is.

        Raises:
            StoreError: it cannot be read.
        """
        ((queued, running, oldest_us),) = self.rows(
            "SELECT count(*) FILTER (WHERE status = 'queued'), count(*) FILTER (WHERE status = 'running'),"
            " min(CASE status WHEN 'queued' THEN created_us END)"
            f" FROM {queue} WHERE status IN ('queued', 'running')"
        )
        oldest_s = 0.0 if oldest_us is None else max(0.0, (self.now_us() - oldest_us) / 1e6)
        return Waiting(queued, running, oldest_s)

    def transaction(self) -> AbstractContextManager[Connection]:
        """Lend a transaction, one at a time over all processes; kept on success, undone on any exception.

        Raises:
            StoreError: it cannot be written.
        """
        return self._books.transaction()
