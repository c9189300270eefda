"""A SQLite file that several processes of one host write: made for its owner alone, changed in whole transactions.

Standard library only.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BUSY_TIMEOUT_S = 5.0


def open_own(path: Path) -> sqlite3.Connection:
    """Return a connection to the file at `path`, made where there is none and readable by its owner alone.

    It may be used from several threads, one at a time, and begins no transaction by itself. What it deletes, names and
    secrets among it, is overwritten, however SQLite was built.

    Raises:
        OSError: the file or its folder cannot be made.
        sqlite3.Error: it cannot be opened.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA secure_delete = ON")
    return connection


@contextmanager
def begun(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Yield the connection in a transaction that holds the write lock; nothing is left open behind an error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        # A failed COMMIT leaves the transaction open; a full disk may have undone it already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
