"""The SQLite file of a store: how it is made and opened, and what SQLite's errors mean to a user."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from infra.errors import StoreError, UsageError
from stream.store.sql.schema import check_schema, newer
from stream.store.sql.tables import STORE_SCHEMA, Types, statements

# "GrTi": tells a store from any other SQLite database.
APPLICATION_ID = 0x47725469
BUSY_TIMEOUT_S = 5.0

URL_PREFIX = "sqlite:///"
_HEADER = b"SQLite format 3\0"

TYPES = Types(
    id="INTEGER PRIMARY KEY",
    serial="INTEGER PRIMARY KEY AUTOINCREMENT",
    int="INTEGER",
    real="REAL",
    text="TEXT",
    bytes="BLOB",
    table=" STRICT",
    clustered=" STRICT, WITHOUT ROWID",
)
_OWN_STATEMENTS = (
    "CREATE TABLE writer (epoch INTEGER NOT NULL) STRICT",
    "INSERT INTO writer VALUES (0)",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {STORE_SCHEMA}",
)
# Beyond so many pages in the write-ahead log they are copied into the store; memory for pages in KiB.
_PAGE_BYTES = 8192
_CHECKPOINT_PAGES = 4000
_WRITER_CACHE_KIB = 32_000


def kind_of_url(url: str) -> str:
    """Return what may be shown of a URL that is not understood: it may be one with a password and a mistake in it."""
    kind, separator, _ = url.partition("://")
    if separator:
        return f"{kind}://…"
    return "…" if "@" in url or "=" in url else url


def path_of_url(url: str) -> Path:
    """Return the file that a store URL names.

    Raises:
        UsageError: the URL is not `sqlite:///path`.
    """
    if not url.startswith(URL_PREFIX) or url == URL_PREFIX:
        raise UsageError(
            f"not a store that this version can open: {kind_of_url(url)!r}",
            place="[store] url",
            fix="write sqlite:///relative/path, sqlite:////absolute/path or postgresql://user@host/database",
        )
    return Path(url.removeprefix(URL_PREFIX))


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open a store for reading only, beside whoever writes it.

    Raises:
        StoreError: there is no store, or it cannot be read.
    """
    if not path.exists():
        raise StoreError(
            f"there is no store at {path}", place="[store] url", fix="ingest events first: graphtide ingest"
        )
    _check_header(path)
    with translated(path):
        connection = _connect(path, "mode=ro")
        try:
            if _schema(connection, path) == 0:
                raise StoreError(f"{path} holds no store yet", fix="ingest events first: graphtide ingest")
        except BaseException:
            connection.close()
            raise
    return connection


def connect_writer(path: Path) -> sqlite3.Connection:
    """Open a store for writing, made where there is none; the caller holds the writer's lock.

    Raises:
        StoreError: the file cannot be made or written, or is no store of this schema.
    """
    _check_header(path)
    with translated(path):
        connection = _connect(path, "mode=rwc")
        try:
            schema = _schema(connection, path)
            if schema == 0:
                connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
            connection.execute(f"PRAGMA cache_size = -{_WRITER_CACHE_KIB}")
            connection.execute("PRAGMA temp_store = MEMORY")
            if schema == 0:
                connection.execute("BEGIN IMMEDIATE")
                for statement in (*statements(TYPES), *_OWN_STATEMENTS):
                    connection.execute(statement)
                connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
    return connection


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn errors of SQLite and of the file system into StoreError with the place and the fix."""
    try:
        yield
    except sqlite3.Error as error:
        raise explain(error, path) from error
    except OSError as error:
        raise unusable(path, error) from error


def unusable(path: Path, error: OSError) -> StoreError:
    """Return the StoreError of a file that the operating system refuses."""
    no_folder = isinstance(error, FileExistsError | NotADirectoryError)
    return StoreError(
        f"cannot use the store {path}: {'its folder is no directory' if no_folder else error.strerror or error}",
        place=str(error.filename or path),
        fix="give a [store] url (--store) in a folder that you can write to",
    )


def _connect(path: Path, query: str) -> sqlite3.Connection:
    # Serving processes read from several threads; SQLite itself serializes them.
    return sqlite3.connect(
        f"file:{quote(os.fsencode(path.absolute()))}?{query}",
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )


def _check_header(path: Path) -> None:
    try:
        if not path.exists():
            return
        with path.open("rb") as file:
            header = file.read(len(_HEADER))
    except OSError as error:
        raise unusable(path, error) from error
    if header and header != _HEADER:
        raise _foreign(path)


def open_any_schema(path: Path, *, newest: int) -> tuple[sqlite3.Connection, int]:
    """Open a store of this or an older schema to change its tables; return the connection and its schema.

    Raises:
        StoreError: there is no store, or it has a schema above `newest`.
    """
    if not path.exists():
        raise StoreError(f"there is no store at {path}", place="[store] url", fix="name the store with --store")
    _check_header(path)
    with translated(path):
        connection = _connect(path, "mode=rw")
        try:
            schema = _any_schema(connection, path)
            if schema == 0:
                raise StoreError(f"{path} holds no store yet", fix="name the store with --store")
            if schema > newest:
                raise newer(str(path), schema, newest)
        except BaseException:
            connection.close()
            raise
    return connection, schema


def _schema(connection: sqlite3.Connection, path: Path) -> int:
    """Return the store schema of a database that this version can use, 0 for an empty one."""
    schema = _any_schema(connection, path)
    if schema:
        check_schema(schema, str(path))
    return schema


def _any_schema(connection: sqlite3.Connection, path: Path) -> int:
    """Return the store schema of a database, 0 for an empty one."""
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    if application_id != APPLICATION_ID:
        if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            raise _foreign(path)
        return 0
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _foreign(path: Path) -> StoreError:
    return StoreError(f"{path} is not a Graphtide store", place="[store] url", fix="name another file with --store")


# What the names of SQLite's error codes begin with, what that means for a store, and the fix.
_MEANINGS = (
    (
        "SQLITE_FULL",
        "no space left to write the store {path}; what was committed before is intact",
        "free some space and run the same command again: it goes on where it stopped",
    ),
    ("SQLITE_BUSY", "the store {path} is locked by another program", "close it and run the command again"),
    ("SQLITE_READONLY", "the store {path} is read-only", "make the file and its folder writable, or use --store"),
    # Even a reader keeps SQLite's shared-memory file beside the store.
    ("SQLITE_CANTOPEN", "cannot open the store {path}", "make the file and its folder readable and writable"),
    ("SQLITE_NOTADB", "{path} is not a Graphtide store", "name another file with --store"),
    (
        "SQLITE_CORRUPT",
        "the store {path} is damaged: {error}",
        "restore it from a backup, or move it away and ingest again",
    ),
    ("SQLITE_IOERR", "the store {path} cannot be read or written: {error}", "check the disk: space, quota, health"),
)


def explain(error: sqlite3.Error, path: Path) -> StoreError:
    """Return what an error of SQLite means to a user."""
    code = getattr(error, "sqlite_errorname", "")
    for prefix, message, fix in _MEANINGS:
        if code.startswith(prefix):
            return StoreError(message.format(path=path, error=error), fix=fix)
    return StoreError(f"the store {path} failed: {error}", place=code or None)
