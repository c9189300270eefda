"""Snapshot stores: the reading contract in `base`, the writing one in `writer`, projections' in `outbox`.

`sql` holds what stores on SQL databases share. `open_reader`, `open_writer` and `open_outbox` choose by the URL.
"""

from collections.abc import Callable

from stream.store.base import SnapshotReader
from stream.store.outbox import Outbox
from stream.store.postgres import PostgresDatabase, PostgresReadDatabase
from stream.store.postgres_server import SCHEMES
from stream.store.sql.database import ReadDatabase
from stream.store.sql.reader import SqlOutbox, SqlSnapshots
from stream.store.sql.writer import SqlWriter
from stream.store.sqlite import SqliteDatabase, SqliteReadDatabase
from stream.store.sqlite_file import path_of_url

__all__ = ["open_outbox", "open_reader", "open_writer"]


def open_reader(url: str) -> SnapshotReader:
    """Open the store at `url` (`sqlite:///path` or `postgresql://…`) for reading, beside whoever writes it.

    Raises:
        UsageError: the URL names no kind of store that is known.
        StoreError: there is no store, or it cannot be read.
    """
    return SqlSnapshots(_read_database(url))


def open_writer(url: str, *, now_us: Callable[[], int] | None = None) -> SqlWriter:
    """Open the store at `url` (`sqlite:///path` or `postgresql://…`) for writing, made where there is none.

    Args:
        url: where it is.
        now_us: the time of day in microseconds since the epoch, UTC, instead of the system's; dead letters carry it.

    Raises:
        UsageError: the URL names no kind of store that is known.
        StoreError: the store cannot be written, or another process writes it.
    """
    database = PostgresDatabase(url) if url.startswith(SCHEMES) else SqliteDatabase(path_of_url(url))
    return SqlWriter(database, now_us)


def open_outbox(url: str) -> Outbox:
    """Open the outbox of the store at `url`, beside whoever writes it.

    Raises:
        UsageError: the URL names no kind of store that is known.
        StoreError: there is no store, or it cannot be read.
    """
    return SqlOutbox(_read_database(url))


def _read_database(url: str) -> ReadDatabase:
    return PostgresReadDatabase(url) if url.startswith(SCHEMES) else SqliteReadDatabase(path_of_url(url))
