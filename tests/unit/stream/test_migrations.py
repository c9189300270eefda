"""Stores of every schema come to the schema of today: nothing of them changes, and ingestion goes on from there."""

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from infra.errors import StoreError
from stream.store import open_reader, open_writer
from stream.store.migrate import copies_beside, migrate_store
from stream.store.migrations import STEPS, Step
from stream.store.migrations.running import Execute
from stream.store.sql.tables import STORE_SCHEMA
from tests.unit.stream.ingest_cases import dump
from tests.unit.stream.migration_cases import ingest_logs, write_logs, write_store

SCHEMAS = range(1, STORE_SCHEMA + 1)


def layout(path: Path) -> dict[str, object]:
    """Return the columns and the indices of every table, in whatever words they were made."""
    found: dict[str, object] = {}
    with closing(sqlite3.connect(path)) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
            indices = connection.execute(f"SELECT name, \"unique\", origin, partial FROM pragma_index_list('{name}')")
            found[name] = (
                connection.execute(f"SELECT * FROM pragma_table_xinfo('{name}')").fetchall(),
                connection.execute(f"SELECT wr, strict FROM pragma_table_list WHERE name = '{name}'").fetchall(),
                sorted(
                    (
                        *index,
                        tuple(connection.execute(f"SELECT name FROM pragma_index_info('{index[0]}')").fetchall()),
                    )
                    for index in indices.fetchall()
                ),
            )
        found["versions"] = [
            connection.execute(f"PRAGMA {pragma}").fetchone() for pragma in ("application_id", "user_version")
        ]
    return found


def metrics(store: Path) -> dict[str, tuple[int, bytes, bytes]]:
    with open_reader(f"sqlite:///{store}") as reader:
        tables = {info.name: (info.late, reader.snapshots(info.name)) for info in reader.graphs()}
    return {
        name: (late, table.step_start_us.tobytes(), table.values.tobytes()) for name, (late, table) in tables.items()
    }


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_store_of_every_schema_goes_on_as_if_it_had_been_of_this_one(tmp_path: Path, schema: int) -> None:
    store, fresh = tmp_path / "store.db", tmp_path / "fresh.db"
    log, rest = write_logs(tmp_path)
    write_store(store, schema, tmp_path)
    before = dump(store)
    if schema < STORE_SCHEMA:
        for opening in (open_reader, open_writer):
            with pytest.raises(StoreError, match=f"has schema {schema}") as refused:
                opening(f"sqlite:///{store}")
            assert "graphtide store migrate" in str(refused.value)
    done = migrate_store(f"sqlite:///{store}")
    assert (done.before, done.after) == (schema, STORE_SCHEMA)
    if schema < STORE_SCHEMA:
        assert done.backup == tmp_path / f"store.db.schema-{schema}"
        assert dump(done.backup) == before
    assert migrate_store(f"sqlite:///{store}").backup is None

    ingest_logs(tmp_path, fresh)
    assert layout(store) == layout(fresh)
    assert metrics(store) == metrics(fresh)
    with log.open("a") as file:
        file.writelines(f"{line}\n" for line in rest)
    for each in (store, fresh):
        ingest_logs(tmp_path, each)
    found = metrics(store)
    assert found == metrics(fresh)
    assert set(found) == {"town", "club", "club:follow", "club:reply"}
    assert found["town"][0] > 0
    with open_reader(f"sqlite:///{store}") as reader:
        assert reader.graph("town").events > 120


KILLED = """
import os, signal, sys
from stream.store import migrate

copy = migrate.copy_file

def die(path, part):
    copy(path, part)
    part.with_name(part.name + "-journal").touch()
    os.kill(os.getpid(), signal.SIGKILL)

migrate.copy_file = die
migrate.migrate_store(sys.argv[1])
"""


def test_what_a_killed_migration_left_goes_with_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "of"
    store = folder / "store.db"
    write_logs(tmp_path)
    folder.mkdir()
    write_store(store, 1, tmp_path)
    killed = subprocess.run([sys.executable, "-c", KILLED, f"sqlite:///{store}"], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert len(copies_beside(f"sqlite:///{store}")) == 1
    others = {".store.db.0123abcd.part", ".other.db.schema-1.0123abcd.part", ".store.db.schema-1.copy.part"}
    for other in others:
        (folder / other).touch()
    migrate_store(f"sqlite:///{store}")
    assert {path.name for path in folder.iterdir()} == others | {"store.db", "store.db.schema-1"}


def test_there_is_one_way_from_every_schema_to_the_next() -> None:
    assert [step.to for step in STEPS] == list(range(2, STORE_SCHEMA + 1))


def later(fails: bool = False) -> list[Step]:
    def change(execute: Execute) -> None:
        execute("CREATE TABLE more (x INTEGER)")
        execute("INSERT INTO more VALUES (?)", (7,))
        execute("DELETE FROM graphs")
        if fails:
            execute("INSERT INTO nowhere VALUES (1)")

    return [*STEPS, Step(STORE_SCHEMA + 1, change, change)]


def test_several_steps_are_one_transaction_and_each_backup_has_a_name_of_its_own(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    write_logs(tmp_path)
    write_store(store, 1, tmp_path)
    before = dump(store)
    for number in (1, 2):
        with pytest.raises(StoreError, match="nowhere"):
            migrate_store(f"sqlite:///{store}", steps=later(fails=True), schema=STORE_SCHEMA + 1)
        assert dump(store) == before
        name = "store.db.schema-1" if number == 1 else f"store.db.schema-1-{number}"
        assert dump(tmp_path / name) == before
    done = migrate_store(f"sqlite:///{store}", steps=later(), schema=STORE_SCHEMA + 1)
    assert (done.before, done.after) == (1, STORE_SCHEMA + 1)
    kept = ["store.db.schema-1", "store.db.schema-1-2", "store.db.schema-1-3"]
    assert [path.name for path in copies_beside(f"sqlite:///{store}")] == kept
    assert dump(store)["more"] == [(7,)]
    with pytest.raises(StoreError, match=f"has schema {STORE_SCHEMA + 1}") as refused:
        migrate_store(f"sqlite:///{store}")
    assert "upgrade graphtide" in str(refused.value)


def test_a_copy_that_was_interrupted_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "store.db"
    write_store(store, 1, tmp_path)

    def interrupted(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:4096])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("stream.store.migrate.copy_file", interrupted)
        with pytest.raises(KeyboardInterrupt):
            migrate_store(f"sqlite:///{store}")
    assert {path.name for path in tmp_path.iterdir()} <= {"store.db", "store.db-wal", "store.db-shm"}
    before = dump(store)
    done = migrate_store(f"sqlite:///{store}")
    assert done.backup == tmp_path / "store.db.schema-1"
    assert dump(done.backup) == before


def test_a_schema_without_a_way_is_told(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    write_store(store, 1, tmp_path)
    with pytest.raises(StoreError, match="no way from schema 1"):
        migrate_store(f"sqlite:///{store}", steps=[])


def test_a_store_that_is_not_there_or_is_being_written_is_left_alone(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    with pytest.raises(StoreError, match="there is no store"):
        migrate_store(f"sqlite:///{tmp_path / 'sub' / 'store.db'}")
    assert not (tmp_path / "sub").exists()
    write_logs(tmp_path)
    ingest_logs(tmp_path, store)
    with open_writer(f"sqlite:///{store}"), pytest.raises(StoreError, match="another process is writing"):
        migrate_store(f"sqlite:///{store}", steps=later(), schema=STORE_SCHEMA + 1)
    store.write_text("src dst ts")
    with pytest.raises(StoreError, match="is not a Graphtide store"):
        migrate_store(f"sqlite:///{store}")
