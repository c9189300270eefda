"""The SQLite file of a store: how it is made and opened, and what SQLite's errors mean to a user."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from infra.errors import StoreError, UsageError
from stream.store.sql.tables import STORE_SCHEMA, Types, statements

# "GrTi": tells a store from any other SQLite database.
APPLICATION_ID = 0x47725469
BUSY_TIMEOUT_S = 5.0

_URL_PREFIX = "sqlite:///"
_HEADER = b"SQLite format 3\0"

TYPES = Types(
    id="INTEGER PRIMARY KEY",
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
# Pages beyond the write-ahead log's limit are copied into the store after a commit; memory for pages in KiB.
_CHECKPOINT_PAGES = 8000
_WRITER_CACHE_KIB = 32_000


def path_of_url(url: str) -> Path:
    """Return the file that a store URL names.

    Raises:
        UsageError: the URL is not `sqlite:///path`.
    """
    if not url.startswith(_URL_PREFIX) or url == _URL_PREFIX:
        raise UsageError(
            f"not a store that this version can open: {url!r}",
            place="[store] url",
            fix="write sqlite:///relative/path, sqlite:////absolute/path or postgresql://user@host/database",
        )
    return Path(url.removeprefix(_URL_PREFIX))


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
        f"file:{quote(str(path.absolute()))}?{query}",
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


def _schema(connection: sqlite3.Connection, path: Path) -> int:
    """Return the store schema of a database, 0 for an empty one."""
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if application_id != APPLICATION_ID:
        if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            raise _foreign(path)
        return 0
    if 0 < version < STORE_SCHEMA:
        raise StoreError(
            f"the store {path} has schema {version}, of a version before the first release; this one keeps schema"
            f" {STORE_SCHEMA}",
            fix="ingest the events again into a new store: move this one away, or name another with --store",
        )
    if version > STORE_SCHEMA:
        raise StoreError(
            f"the store {path} has schema {version}; this version of graphtide keeps schema {STORE_SCHEMA}",
            fix="upgrade graphtide, or name another store with --store",
        )
    return version


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
