"""Snapshot stores: the reading contract in `base`, the writing side's records in `records`, one file or few a store.

`open_reader` and `open_writer` choose the store by its URL.
"""

from stream.store.base import SnapshotReader
from stream.store.sqlite import SqliteSnapshots
from stream.store.sqlite_writer import SqliteWriter

__all__ = ["open_reader", "open_writer"]


def open_reader(url: str) -> SnapshotReader:
    """Open the store at `url` (`sqlite:///path`) for reading, beside whoever writes it.

    Raises:
        UsageError: the URL names no kind of store that is known.
        StoreError: there is no store, or it cannot be read.
    """
    return SqliteSnapshots(url)


def open_writer(url: str) -> SqliteWriter:
    """Open the store at `url` (`sqlite:///path`) for writing, made where there is none.

    Raises:
        UsageError: the URL names no kind of store that is known.
        StoreError: the store cannot be written, or another process writes it.
    """
    return SqliteWriter(url)
