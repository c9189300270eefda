"""Copies of SQLite files that other processes are using. Standard library only."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from infra.errors import StoreError

_BUSY_TIMEOUT_S = 30.0
# Pages between two reports of progress; a step is short, so that Ctrl-C is heard.
_STEP_PAGES = 4096
_BESIDE = ("-wal", "-shm", "-journal")

# Called with the pages copied so far, and all of them.
OnPages = Callable[[int, int], None]


def copy_database(source: sqlite3.Connection, target: Path, on_pages: OnPages | None = None) -> None:
    """Copy a database as it is at one moment into a new file, by SQLite's online backup.

    The source may be written meanwhile, by whatever process. Inside a transaction of `source`, the copy shows what
    the transaction sees; else a write of another process lets the copy begin again.

    Args:
        source: a connection to it that is not writing.
        target: the file; an empty one may be there.
        on_pages: is told how far the copy is.

    Raises:
        StoreError: either file failed.
    """

    def told(_status: int, remaining: int, total: int) -> None:
        if on_pages is not None:
            on_pages(total - remaining, total)

    try:
        with closing(sqlite3.connect(target)) as copy:
            source.backup(copy, pages=_STEP_PAGES, progress=told)
        seal(target)
    except sqlite3.Error as error:
        raise StoreError(
            f"cannot copy a database to {target}: {error}", fix="check that the disk has space, then run it again"
        ) from error


def seal(path: Path) -> None:
    """Make a database that nobody uses one file, which can also be read where nothing can be written.

    Raises:
        StoreError: the file failed.
    """
    with _opened(path) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")


def copy_file(path: Path, target: Path) -> None:
    """Copy the database at `path` as `copy_database` does.

    Raises:
        StoreError: either file failed.
    """
    with _opened(path) as connection:
        copy_database(connection, target)


def check_database(path: Path) -> None:
    """Let SQLite check a sealed file that nobody uses.

    Raises:
        StoreError: it is damaged or no database.
    """
    with _opened(path, "mode=ro&immutable=1") as connection:
        (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        raise StoreError(f"{path} is damaged: {found}", fix="take another backup")


@contextmanager
def standstill(path: Path) -> Iterator[None]:
    """Let nobody write the database at `path` for as long as this lasts; reading goes on.

    Raises:
        StoreError: it cannot be opened, or somebody writes it without a pause.
    """
    with _opened(path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def remove_companions(path: Path) -> None:
    """Remove what SQLite kept beside a database that is about to be replaced."""
    for suffix in _BESIDE:
        path.with_name(path.name + suffix).unlink(missing_ok=True)


@contextmanager
def _opened(path: Path, query: str = "mode=rw") -> Iterator[sqlite3.Connection]:
    try:
        # Also a reader writes: a journal that a crash left behind is rolled back first.
        connection = sqlite3.connect(
            f"file:{quote(os.fsencode(path.absolute()))}?{query}",
            uri=True,
            timeout=_BUSY_TIMEOUT_S,
            isolation_level=None,
        )
        with closing(connection):
            yield connection
    except sqlite3.Error as error:
        raise StoreError(
            f"cannot read the database {path}: {error}", fix="check that the file is ours and that you may read it"
        ) from error
