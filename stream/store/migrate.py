"""Bringing a store of an older schema to the schema of this version: a backup first, then one transaction."""

import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.errors import StoreError
from infra.sqlite_copy import copy_file
from infra.whole_file import whole_file
from stream.store.lock import WriterLock
from stream.store.migrations import STEPS, Step
from stream.store.postgres_server import SCHEMES, locked_tables
from stream.store.sql.schema import newer
from stream.store.sql.tables import STORE_SCHEMA
from stream.store.sqlite_file import open_any_schema, path_of_url, translated


@dataclass(frozen=True, slots=True)
class Migrated:
    """What was done.

    Attributes:
        before, after: the schemas; equal where there was nothing to do.
        backup: copy of the store as it was; None where none was made.
    """

    before: int
    after: int
    backup: Path | None


def migrate_store(url: str, *, steps: Sequence[Step] = STEPS, schema: int = STORE_SCHEMA) -> Migrated:
    """Bring the store at `url` to a schema; nobody may write it meanwhile.

    A SQLite store is copied beside itself first. PostgreSQL undoes a transaction that fails as a whole; back it up by
    its own tools. Whatever interrupts a migration, the store is then as it was.

    Args:
        url: `sqlite:///path` or `postgresql://…`.
        steps: the ways from each schema to the next, in order.
        schema: the schema that is wanted.

    Raises:
        UsageError: the URL names no kind of store that has tables.
        StoreError: there is no store, it is of a newer version, or another process writes it.
        GraphtideError: the copy cannot be put in its place.
    """
    if url.startswith(SCHEMES):
        return _migrate_postgres(url, steps, schema)
    return _migrate_sqlite(path_of_url(url), steps, schema)


def copies_beside(url: str) -> list[Path]:
    """Return the files beside a SQLite store that hold it as it was once, while nobody migrates or restores it.

    They are what migrations have kept, and what a migration or a restore that was killed has left.

    Raises:
        UsageError: the URL names no kind of store that has tables.
        StoreError: the folder of the store cannot be read.
    """
    if url.startswith(SCHEMES):
        return []
    path = path_of_url(url)
    name = re.escape(path.name)
    copy = re.compile(rf"{name}\.schema-\d+(-\d+)?|\.{name}(\.schema-\d+(-\d+)?)?\.[0-9a-f]{{8}}\.part")
    with translated(path):
        return sorted(found for found in path.parent.iterdir() if copy.fullmatch(found.name))


def _migrate_sqlite(path: Path, steps: Sequence[Step], schema: int) -> Migrated:
    # Asked before there is a lock, which would make its folder.
    with closing(open_any_schema(path, newest=schema)[0]):
        pass
    lock = WriterLock(path)
    try:
        connection, before = open_any_schema(path, newest=schema)
        with closing(connection), translated(path):
            if before == schema:
                return Migrated(before, before, None)
            _remove_left_copies(path)
            backup = _free_name(path, before)
            with whole_file(backup) as part:
                copy_file(path, part)

            def execute(sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
                return connection.execute(sql, parameters).fetchall()

            connection.execute("PRAGMA synchronous = FULL")
            # References by name follow neither a table nor an index that is renamed: there are none.
            connection.execute("BEGIN IMMEDIATE")
            try:
                for step in _way(before, schema, steps):
                    if step.sqlite is not None:
                        step.sqlite(execute)
                connection.execute(f"PRAGMA user_version = {schema}")
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            return Migrated(before, schema, backup)
    finally:
        lock.release()


def _remove_left_copies(path: Path) -> None:
    """Remove copies that killed migrations were making; who holds the writer's lock makes the only other one."""
    left = re.compile(rf"\.{re.escape(path.name)}\.schema-\d+(-\d+)?\.[0-9a-f]{{8}}\.part(-journal|-wal|-shm)?")
    for found in path.parent.iterdir():
        if left.fullmatch(found.name) and found.is_file():
            found.unlink()


def _migrate_postgres(url: str, steps: Sequence[Step], schema: int) -> Migrated:
    with locked_tables(url) as (execute, before, name):
        if before > schema:
            raise newer(name, before, schema)
        for step in _way(before, schema, steps):
            if step.postgres is not None:
                step.postgres(execute)
        if before < schema:
            execute("UPDATE store_schema SET version = ?", (schema,))
    return Migrated(before, schema, None)


def _way(before: int, schema: int, steps: Sequence[Step]) -> list[Step]:
    way = [step for step in steps if before < step.to <= schema]
    if [step.to for step in way] != list(range(before + 1, schema + 1)):
        raise StoreError(f"there is no way from schema {before} of a store to schema {schema}")
    return way


def _free_name(path: Path, schema: int) -> Path:
    name = f"{path.name}.schema-{schema}"
    number = 1
    while path.with_name(name if number == 1 else f"{name}-{number}").exists():
        number += 1
    return path.with_name(name if number == 1 else f"{name}-{number}")
