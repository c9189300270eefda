"""What is SQLite's own: its file, its one writer, readers beside it, and what its errors mean to a user."""

import fcntl
import os
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from infra.errors import StoreError, UsageError
from infra.schema import METRIC_NAMES
from infra.sqlite_copy import check_database, copy_file
from infra.steps import HOUR_US
from stream.store import open_reader, open_writer, sqlite
from stream.store.base import SnapshotTable
from stream.store.sql.tables import STORE_SCHEMA
from stream.store.sqlite_file import connect_writer
from tests.unit.stream.store_contract import begin, close, rows


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def filled(store: Path) -> Path:
    fill(store, range(10, 30))
    return store


def url(path: Path) -> str:
    return f"sqlite:///{path}"


def fill(store: Path, hours: range, *, at_once: int = 1000) -> None:
    """Close `hours` of the graph `g`, `at_once` in a transaction, each with an edge of its own."""
    with open_writer(url(store)) as writer:
        for begin in range(hours.start, hours.stop, at_once):
            part = range(begin, min(begin + at_once, hours.stop))
            with writer.transaction():
                graph = writer.graph("g") or writer.add_graph("g", HOUR_US)
                names = [f"{'name' * 9}{hour}" for hour in part]
                ids = writer.node_ids(np.full(len(part), graph.id), np.arange(len(part)), names)
                close(writer, graph, part, rows(*((graph.id, h, int(n), 1) for h, n in zip(part, ids, strict=True))))
                writer.forget_codes()


def read(store: Path) -> SnapshotTable:
    with open_reader(url(store)) as reader:
        return reader.snapshots("g")


def test_the_name_of_its_folder_need_not_be_utf8(tmp_path: Path) -> None:
    store = tmp_path / os.fsdecode(b"gr\xf6\xdfe # 100%?") / "store.db"
    fill(store, range(3))
    assert len(read(store)) == 3
    copy_file(store, store.with_name("copy.db"))
    check_database(store.with_name("copy.db"))


class TestReading:
    def test_equal_snapshots_have_equal_digests(self, tmp_path: Path) -> None:
        for name, hours in (("one", 20), ("two", 20), ("three", 19)):
            fill(tmp_path / name, range(hours), at_once=7)
        one, two, three = (read(tmp_path / name).digest() for name in ("one", "two", "three"))
        assert one == two != three

    def test_an_unknown_graph_is_answered_with_the_nearest(self, store: Path) -> None:
        with open_writer(url(store)) as writer, writer.transaction():
            for name in ("mathoverflow", "digg"):
                begin(writer, name)
        with open_reader(url(store)) as reader, pytest.raises(StoreError) as caught:
            reader.snapshots("mathovreflow")
        assert "digg, mathoverflow" in caught.value.message
        assert caught.value.fix == "did you mean mathoverflow?"

    def test_a_graph_without_closed_steps_has_no_snapshots(self, store: Path) -> None:
        with open_writer(url(store)) as writer, writer.transaction():
            begin(writer, "g")
        with open_reader(url(store)) as reader:
            assert (reader.graph("g").first_step_us, reader.graph("g").last_step_us) == (None, None)
        assert read(store).values.shape == (0, len(METRIC_NAMES))

    def test_a_reader_sees_whole_commits_beside_a_writer(self, store: Path) -> None:
        fill(store, range(1))
        done = threading.Event()

        def watch() -> list[int]:
            seen = []
            with open_reader(url(store)) as reader:
                while not done.is_set():
                    table = reader.snapshots("g", metrics=("events",))
                    seen.append(len(table))
                    assert np.all(np.diff(table.step_start_us) == HOUR_US)
            return seen

        with ThreadPoolExecutor(1) as beside:
            watching = beside.submit(watch)
            try:
                fill(store, range(1, 401), at_once=20)
            finally:
                done.set()
        seen = watching.result()
        assert seen == sorted(seen)
        assert {(count - 1) % 20 for count in seen} == {0}


class TestOpening:
    @pytest.mark.parametrize("bad", ["store.db", "sqlite:///", "mysql://host/db", "sqlite://store.db"])
    def test_an_unknown_url_is_wrong_usage(self, bad: str) -> None:
        with pytest.raises(UsageError, match="not a store that this version can open"):
            open_reader(bad)

    def test_a_missing_store_is_not_made_by_reading(self, store: Path) -> None:
        with pytest.raises(StoreError, match="there is no store"):
            open_reader(url(store))
        assert not store.exists()

    def test_a_relative_path_starts_at_the_working_directory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        path = "sqlite:///made/for ?100%#/store.db"
        with open_writer(path) as writer, writer.transaction():
            writer.add_source("one", split_by_type=False)
        assert (tmp_path / "made" / "for ?100%#" / "store.db").exists()
        with open_reader(path) as reader:
            assert reader.graphs() == []

    def test_an_empty_file_is_no_store_for_a_reader(self, store: Path) -> None:
        store.touch()
        with pytest.raises(StoreError, match="holds no store yet"):
            open_reader(url(store))
        fill(store, range(1))
        assert len(read(store)) == 1

    @pytest.mark.parametrize("opening", [open_reader, open_writer])
    @pytest.mark.parametrize("kind", ["text", "foreign", "older", "newer", "folder"])
    def test_what_is_no_store_of_this_schema_is_refused_untouched(self, store: Path, opening, kind: str) -> None:  # type: ignore[no-untyped-def]
        if kind == "folder":
            store.mkdir()
        elif kind == "text":
            store.write_text("src dst ts\n" * 100)
        else:
            connection = sqlite3.connect(store)
            if kind == "foreign":
                connection.execute("CREATE TABLE other (x)")
            connection.close()
            if kind in ("older", "newer"):
                fill(store, range(1))
                connection = sqlite3.connect(store)
                connection.execute(f"PRAGMA user_version = {STORE_SCHEMA + (1 if kind == 'newer' else -1)}")
                connection.close()
        before = None if kind == "folder" else store.read_bytes()
        expected = {
            "older": f"schema {STORE_SCHEMA - 1}; .* keeps schema {STORE_SCHEMA}",
            "newer": f"schema {STORE_SCHEMA + 1}.*keeps schema {STORE_SCHEMA}",
            "folder": "directory",
        }
        with pytest.raises(StoreError, match=expected.get(kind, "is not a Graphtide store")) as caught:
            opening(url(store))
        assert caught.value.fix
        assert before is None or store.read_bytes() == before
        assert not store.with_name("store.db.lock").exists()

    def test_a_damaged_store_is_told_from_a_wrong_call(self, filled: Path) -> None:
        content = bytearray(filled.read_bytes())
        content[4096:] = b"\xff" * (len(content) - 4096)
        filled.write_bytes(content)
        with pytest.raises(StoreError, match="is damaged") as caught, open_reader(url(filled)) as reader:
            reader.snapshots("g")
        assert "backup" in str(caught.value.fix)

    @pytest.mark.parametrize(
        ("place", "why"),
        [("/proc/nowhere/store.db", "No such file or directory"), ("/dev/null/store.db", "its folder is no directory")],
    )
    def test_a_place_that_cannot_be_written_is_named(self, place: str, why: str) -> None:
        with pytest.raises(StoreError, match=f"cannot use the store {place}: {why}") as caught:
            open_writer(f"sqlite:///{place}")
        assert "--store" in str(caught.value.fix)


class TestWriting:
    def test_a_new_store_that_nothing_was_written_to_goes_away(self, store: Path) -> None:
        with open_writer(url(store)):
            assert store.exists()
        assert list(store.parent.iterdir()) == []

    def test_a_second_writer_is_refused_at_once(self, filled: Path) -> None:
        with open_writer(url(filled)), pytest.raises(StoreError, match="another process is writing") as caught:
            open_writer(url(filled))
        assert "pid" in caught.value.message
        with open_writer(url(filled)):
            pass

    def test_the_lock_survives_that_its_file_was_removed(self, filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        lock_file = filled.with_name("store.db.lock")
        lock = fcntl.flock
        opened: list[int] = []

        def remove_first(file: int, operation: int) -> None:
            if not opened:
                lock_file.unlink()
            opened.append(file)
            lock(file, operation)

        monkeypatch.setattr(fcntl, "flock", remove_first)
        with open_writer(url(filled)):
            assert len(opened) == 2
            with pytest.raises(StoreError, match="another process is writing"):
                open_writer(url(filled))
        assert not lock_file.exists()

    def test_a_lock_that_others_take_and_free_meanwhile_is_taken(
        self, filled: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lock_file = filled.with_name("store.db.lock")
        lock, look = fcntl.flock, Path.stat
        opened: list[int] = []

        def replace_first(file: int, operation: int) -> None:
            if not opened:
                lock_file.rename(lock_file.with_suffix(".old"))
                lock_file.touch()
            opened.append(file)
            lock(file, operation)

        def free_once_seen(path: Path, **how: bool) -> os.stat_result:
            seen = look(path, **how)
            if path == lock_file and len(opened) == 1:
                lock_file.unlink()
            return seen

        monkeypatch.setattr(fcntl, "flock", replace_first)
        monkeypatch.setattr(Path, "stat", free_once_seen)
        with open_writer(url(filled)), pytest.raises(StoreError, match="another process is writing"):
            open_writer(url(filled))
        assert len(opened) == 3

    def test_a_writer_that_lost_its_store_is_fenced(self, filled: Path) -> None:
        with open_writer(url(filled)) as writer:
            with writer.transaction():
                writer.add_source("one", split_by_type=False)
            # What a second process does where locks do not hold.
            connection = sqlite3.connect(filled)
            connection.execute("UPDATE writer SET epoch = epoch + 1")
            connection.commit()
            connection.close()
            for _ in range(2):
                with pytest.raises(StoreError, match="taken over"), writer.transaction():
                    writer.add_source("two", split_by_type=False)
            assert writer.source("two") is None

    def test_a_full_disk_ends_with_the_last_commit(self, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def with_room(path: Path) -> sqlite3.Connection:
            connection = connect_writer(path)
            connection.execute("PRAGMA max_page_count = 75")
            return connection

        with monkeypatch.context() as patch:
            patch.setattr(sqlite, "connect_writer", with_room)
            with pytest.raises(StoreError, match="no space left") as caught:
                fill(store, range(3000), at_once=100)
        assert "free some space" in str(caught.value.fix)
        closed = len(read(store))
        assert closed % 100 == 0
        assert 0 < closed < 3000
        fill(store, range(closed, 3000), at_once=100)
        assert len(read(store)) == 3000

    def test_a_locked_store_is_told(self, filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("stream.store.sqlite_file.BUSY_TIMEOUT_S", 0.05)
        connection = sqlite3.connect(filled, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        try:
            with (
                open_writer(url(filled)) as writer,
                pytest.raises(StoreError, match="locked by another program"),
                writer.transaction(),
            ):
                pass
        finally:
            connection.close()

    def test_an_erased_name_is_in_no_file_any_more(self, store: Path) -> None:
        with open_writer(url(store)) as writer:
            with writer.transaction():
                graph = begin(writer, "g")
                names = [f"somebody-{number}" for number in range(2000)]
                writer.node_ids(np.full(2000, graph.id), np.arange(2000), names)
            with writer.transaction():
                assert writer.erase(graph, "somebody-777").graphs == ("g",)
            with open_reader(url(store)) as reader:
                assert reader.graphs()
            assert writer.database.scrub()
            for file in store.parent.iterdir():
                assert b"somebody-777" not in file.read_bytes()
            assert b"somebody-778" in store.read_bytes()

    def test_a_store_is_written_anew_on_disk_not_in_memory(self, filled: Path) -> None:
        with open_writer(url(filled)) as writer:
            connection = writer.database._connection  # type: ignore[attr-defined]
            said: list[str] = []
            connection.set_trace_callback(said.append)
            assert writer.database.scrub()
            connection.set_trace_callback(None)
            assert said[:3] == ["PRAGMA temp_store = FILE", "VACUUM", "PRAGMA temp_store = MEMORY"]
            assert writer.database.fetch("PRAGMA temp_store") == [(2,)]

    def test_a_reader_in_the_way_of_an_erasure_is_told(self, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("stream.store.sqlite_file.BUSY_TIMEOUT_S", 0.05)
        fill(store, range(3))
        with open_writer(url(store)) as writer:
            reader = sqlite3.connect(store, isolation_level=None)
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM graphs").fetchall()
            with writer.transaction():
                writer.add_graph("more", HOUR_US)
            assert not writer.database.scrub()
            reader.close()
            assert writer.database.scrub()
