"""A file of the program's own: who may read it, and that no error leaves a transaction open."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from infra.own_sqlite import begun, open_own


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(open_own(tmp_path / "folder" / "own.db")) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("CREATE TABLE parents (id INTEGER PRIMARY KEY)")
        connection.execute("CREATE TABLE children (parent REFERENCES parents DEFERRABLE INITIALLY DEFERRED)")
        yield connection


def count(connection: sqlite3.Connection, table: str) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "own.db"
    open_own(path).close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_is_deleted_is_in_no_unused_part_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect

    def connected(path: Path, **options: Any) -> sqlite3.Connection:
        # As SQLite is where its builder did not ask for more.
        connection = connect(path, **options)
        connection.execute("PRAGMA secure_delete = OFF")
        return connection

    monkeypatch.setattr(sqlite3, "connect", connected)
    path = tmp_path / "own.db"
    with closing(open_own(path)) as connection:
        connection.execute("CREATE TABLE requests (records TEXT)")
        connection.execute("INSERT INTO requests VALUES ('alice'), ('bob')")
        connection.execute("DELETE FROM requests WHERE records = 'alice'")
    assert b"bob" in path.read_bytes()
    assert b"alice" not in path.read_bytes()


def test_what_is_done_inside_is_kept(connection: sqlite3.Connection) -> None:
    with begun(connection) as inside:
        inside.execute("INSERT INTO parents VALUES (1)")
    assert not connection.in_transaction
    assert count(connection, "parents") == 1


def test_an_error_inside_undoes_all_and_is_passed_on(connection: sqlite3.Connection) -> None:
    with pytest.raises(KeyError), begun(connection) as inside:
        inside.execute("INSERT INTO parents VALUES (1)")
        raise KeyError
    assert not connection.in_transaction
    assert count(connection, "parents") == 0


def test_a_commit_that_fails_leaves_no_transaction_open(connection: sqlite3.Connection) -> None:
    with pytest.raises(sqlite3.IntegrityError), begun(connection) as inside:
        inside.execute("INSERT INTO children VALUES (7)")
    assert not connection.in_transaction
    with begun(connection) as inside:
        inside.execute("INSERT INTO parents VALUES (1)")
    assert (count(connection, "parents"), count(connection, "children")) == (1, 0)


def test_a_transaction_that_was_undone_already_keeps_its_error(connection: sqlite3.Connection) -> None:
    with pytest.raises(sqlite3.OperationalError, match="full"), begun(connection) as inside:
        inside.execute("INSERT INTO parents VALUES (1)")
        # SQLite itself ends the transaction where a disk is full.
        with suppress(sqlite3.Error):
            inside.execute("ROLLBACK")
        raise sqlite3.OperationalError("database or disk is full")
    assert not connection.in_transaction
