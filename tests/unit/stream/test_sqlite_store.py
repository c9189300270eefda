import fcntl
import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest
from ingest_cases import ListSource, at, counts_in_store, cut, dump, make_log, run

from infra.errors import StoreError, UsageError
from infra.schema import METRIC_NAMES
from infra.steps import HOUR_US
from stream.ingest import IngestOptions, ingest
from stream.store import open_reader, open_writer, sqlite_writer
from stream.store.sqlite import SqliteSnapshots, range_query
from stream.store.sqlite_file import STORE_SCHEMA


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def filled(store: Path) -> Path:
    run(store, cut([at(hour, "a", f"n{hour}") for hour in range(10, 30)], 7))
    return store


def url(path: Path) -> str:
    return f"sqlite:///{path}"


class TestReading:
    def test_a_range_is_half_open(self, filled: Path) -> None:
        with open_reader(url(filled)) as reader:
            table = reader.snapshots("g", start_us=12 * HOUR_US, end_us=15 * HOUR_US)
        assert table.step_start_us.tolist() == [12 * HOUR_US, 13 * HOUR_US, 14 * HOUR_US]
        assert table.metrics == METRIC_NAMES
        assert table.values.shape == (3, len(METRIC_NAMES))
        assert table.revision.tolist() == [0, 0, 0]

    @pytest.mark.parametrize(("last", "hours"), [(0, []), (1, [19]), (3, [17, 18, 19]), (99, list(range(10, 20)))])
    def test_the_newest_come_in_step_order(self, filled: Path, last: int, hours: list[int]) -> None:
        with open_reader(url(filled)) as reader:
            table = reader.snapshots("g", end_us=20 * HOUR_US, metrics=("total_nodes", "events"), last=last)
        assert (table.step_start_us // HOUR_US).tolist() == hours
        assert table.values.tolist() == [[hour - 8, 1] for hour in hours]

    def test_a_range_is_read_by_primary_key(self, filled: Path) -> None:
        for last in (None, 5):
            sql, parameters = range_query(METRIC_NAMES, start_us=0, end_us=10**15, last=last)
            connection = sqlite3.connect(filled)
            plan = connection.execute(f"EXPLAIN QUERY PLAN {sql}", {"name": "g", **parameters}).fetchall()
            connection.close()
            steps = [row[3] for row in plan]
            assert "SEARCH snapshots USING PRIMARY KEY (graph_id=? AND step_start_us>? AND step_start_us<?)" in steps
            assert not any("SCAN" in step or "TEMP B-TREE" in step for step in steps)

    def test_graphs_come_by_name(self, store: Path) -> None:
        run(store, cut([at(1, "a", "b", "zoo"), at(2, "a", "b", "ant")], 1))
        with open_reader(url(store)) as reader:
            infos = reader.graphs()
            assert reader.graph("zoo") == infos[1]
        assert [info.name for info in infos] == ["ant", "zoo"]
        assert (infos[1].snapshots, infos[1].events, infos[1].late, infos[1].step_us) == (2, 1, 0, HOUR_US)
        assert (infos[1].first_step_us, infos[1].last_step_us) == (HOUR_US, 2 * HOUR_US)

    def test_a_graph_without_closed_steps_has_no_snapshots(self, store: Path) -> None:
        ingest(ListSource(cut([at(1, "a", "b")], 1), bounded=False), url(store), IngestOptions())
        with open_reader(url(store)) as reader:
            assert (reader.graph("g").first_step_us, reader.graph("g").last_step_us) == (None, None)
            table = reader.snapshots("g")
        assert table.values.shape == (0, len(METRIC_NAMES))

    def test_an_unknown_graph_is_answered_with_the_nearest(self, store: Path) -> None:
        run(store, cut([at(1, "a", "b", "mathoverflow"), at(1, "a", "b", "digg")], 9))
        with open_reader(url(store)) as reader, pytest.raises(StoreError) as caught:
            reader.snapshots("mathovreflow")
        assert "digg, mathoverflow" in caught.value.message
        assert caught.value.fix == "did you mean mathoverflow?"

    def test_an_unknown_metric_is_answered_with_the_nearest(self, filled: Path) -> None:
        with open_reader(url(filled)) as reader, pytest.raises(StoreError, match="no metric 'event'") as caught:
            reader.snapshots("g", metrics=("event",))
        assert caught.value.fix == "did you mean events?"

    def test_equal_snapshots_have_equal_digests(self, tmp_path: Path) -> None:
        digests = []
        for name, n_events in (("one", 60), ("two", 60), ("three", 59)):
            run(tmp_path / name, cut(make_log(1, n_events), 25))
            with open_reader(url(tmp_path / name)) as reader:
                digests.append(reader.snapshots("g").digest() + reader.snapshots("h").digest())
        assert digests[0] == digests[1] != digests[2]

    def test_a_reader_sees_whole_commits_beside_a_writer(self, store: Path) -> None:
        log = [at(hour, "a", "b") for hour in range(400)]
        run(store, cut(log[:1], 1), name="first")
        seen: list[int] = []
        done = threading.Event()

        def read() -> None:
            with open_reader(url(store)) as reader:
                while not done.is_set():
                    table = reader.snapshots("g", metrics=("events",))
                    seen.append(len(table))
                    assert np.all(np.diff(table.step_start_us) == HOUR_US)

        thread = threading.Thread(target=read)
        thread.start()
        run(store, cut(log[1:], 20), name="second")
        done.set()
        thread.join()
        assert seen == sorted(seen)
        # Commits of 20 steps each after the first one; the last step of a batch waits for the next batch.
        assert {(count - 1) % 20 for count in seen} <= {0, 19}


class TestOpening:
    @pytest.mark.parametrize("bad", ["store.db", "sqlite:///", "postgresql://host/db", "sqlite://store.db"])
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
        run(store, cut([at(1, "a", "b")], 1))
        assert len(counts_in_store(store)["g"]) == 1

    @pytest.mark.parametrize("opening", [open_reader, open_writer])
    @pytest.mark.parametrize("kind", ["text", "foreign", "newer", "folder"])
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
            if kind == "newer":
                run(store, cut([at(1, "a", "b")], 1))
                connection = sqlite3.connect(store)
                connection.execute(f"PRAGMA user_version = {STORE_SCHEMA + 1}")
                connection.close()
        before = None if kind == "folder" else store.read_bytes()
        expected = {"newer": f"schema {STORE_SCHEMA + 1}.*up to schema {STORE_SCHEMA}", "folder": "directory"}
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

    def test_a_failed_transaction_leaves_nothing(self, filled: Path) -> None:
        before = dump(filled)
        with open_writer(url(filled)) as writer:
            with pytest.raises(ZeroDivisionError), writer.transaction():
                writer.add_source("one", split_by_type=False)
                writer.add_graph("new", HOUR_US)
                _ = 1 / 0
            with writer.transaction():
                pass
        assert dump(filled) == before

    def test_a_full_disk_ends_with_the_last_commit(self, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        log = [at(hour, f"a{hour}", f"b{hour}") for hour in range(3000)]

        def with_room(path: Path) -> sqlite3.Connection:
            connection = connect(path)
            connection.execute("PRAGMA max_page_count = 60")
            return connection

        connect = sqlite_writer.connect_writer
        with monkeypatch.context() as patch:
            patch.setattr(sqlite_writer, "connect_writer", with_room)
            with pytest.raises(StoreError, match="no space left") as caught:
                run(store, cut(log, 100))
        assert "free some space" in str(caught.value.fix)
        with SqliteSnapshots(url(store)) as reader:
            closed = len(reader.snapshots("g"))
        assert closed % 100 == 99
        run(store, cut(log, 100))
        assert len(counts_in_store(store)["g"]) == 3000

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
