"""Folders of logs that grew: each log counted once, or refused by name."""

import json
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import InputError, StoreError
from stream.sources.extents import Left, of_position
from tests.unit.stream.growth_cases import BACKFILL, KINDS, Runs, add, gzipped, lines_of, values_of
from tests.unit.stream.ingest_cases import Killed, query
from tests.unit.stream.log_cases import write


@settings(max_examples=40, deadline=None)
@given(
    states=st.lists(
        st.dictionaries(
            st.sampled_from(["a.txt", "b.txt.gz", "c.json", "d.zip"]),
            st.lists(st.integers(0, 20), min_size=1, max_size=3),
            max_size=4,
        ),
        min_size=1,
        max_size=4,
    ),
    kills=st.lists(st.integers(1, 4), max_size=4),
)
def test_a_folder_that_grows_is_counted_as_the_whole_folder(
    states: list[dict[str, list[int]]], kills: list[int]
) -> None:
    kinds = {"a.txt": "lines", "b.txt.gz": "gz", "c.json": "json", "d.zip": "zip-members"}
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base) / "logs"
        folder.mkdir()
        hours: dict[str, list[int]] = {"a.txt": [7]}
        grown = Runs(Path(base), "grown.db")
        pending = iter(kills)
        for state in states:
            for name, more in state.items():
                hours.setdefault(name, []).extend(more)
            for name, all_hours in hours.items():
                write(folder, name, KINDS[kinds[name]](*all_hours))
            if (kill_after := next(pending, None)) is not None:
                with suppress(Killed):
                    grown.run(folder, kill_after=kill_after, batch_rows=1)
            grown.run(folder, batch_rows=2, backfill=len(state) > 1)
        whole = Runs(Path(base), "whole.db")
        whole.run(folder)
        assert grown.snapshots() == whole.snapshots()


@BACKFILL
def test_a_log_of_a_folder_that_changed_is_refused_by_name(folder: Path, runs: Runs, flags: dict[str, bool]) -> None:
    write(folder, "a.txt", lines_of(1, 2))
    changed = write(folder, "b.txt", lines_of(3, 4))
    runs.run(folder)
    write(folder, "b.txt", lines_of(8, 9))
    write(folder, "c.txt", lines_of(10))
    with pytest.raises(InputError, match="holds something else now") as failure:
        runs.run(folder, **flags)
    assert str(failure.value.place).startswith(f"{changed}, up to byte")
    assert runs.events() == 4


def test_logs_of_a_folder_may_be_moved_packed_and_removed(folder: Path, runs: Runs) -> None:
    path = write(folder, "log.txt", lines_of(1, 2))
    write(folder, "old.txt", lines_of(0))
    runs.run(folder)
    path.rename(folder / "log-1.txt")
    write(folder, "log.txt", lines_of(3))
    assert runs.run(folder).events == 1
    text = (folder / "log-1.txt").read_text()
    (folder / "log-1.txt").unlink()
    (folder / "old.txt").unlink()
    write(folder, "log-1.txt.gz", gzipped(text))
    add(folder / "log.txt", lines_of(4))
    assert runs.run(folder, backfill=True).events == 1
    assert runs.events() == 5


def test_two_logs_of_a_folder_that_hold_the_same_are_two(tmp_path: Path, folder: Path, runs: Runs) -> None:
    write(folder, "a.txt", lines_of(1))
    runs.run(folder)
    for text in (lines_of(1), lines_of(1, 2)):
        write(folder, "b.txt", text)
        runs.run(folder)
    add(folder / "a.txt", lines_of(3))
    write(folder, "c.txt", lines_of(1))
    runs.run(folder)
    whole = Runs(tmp_path, "whole.db")
    whole.run(folder)
    assert runs.events() == 5
    assert runs.snapshots() == whole.snapshots()


def test_files_and_folders_know_of_each_other(folder: Path, runs: Runs) -> None:
    one, other = write(folder, "a.txt", lines_of(1, 2)), write(folder, "b.txt", lines_of(3))
    runs.run(one)
    add(one, lines_of(4))
    assert runs.run(folder, backfill=True).events == 2
    add(other, lines_of(5))
    assert runs.run(other, backfill=True).events == 1
    assert runs.run(folder, backfill=True).events == 0
    assert runs.run(write(folder, "a.gz", gzipped(one.read_text())), backfill=True).events == 0
    assert runs.events() == 5


def test_a_folder_that_was_broken_off_has_to_be_read_as_it_was_first(folder: Path, runs: Runs) -> None:
    write(folder, "a.txt", lines_of(1, 2, 3))
    with pytest.raises(Killed):
        runs.run(folder, kill_after=1)
    new = write(folder, "b.txt", lines_of(4))
    with pytest.raises(InputError, match="grew after reading it was broken off") as failure:
        runs.run(folder, backfill=True)
    assert f"put back what {folder} was then, without what is new" in str(failure.value.fix)
    moved = new.rename(folder.parent / "b.txt")
    runs.run(folder)
    moved.rename(new)
    runs.run(folder, backfill=True)
    assert runs.events() == 4


def test_the_sources_before_must_have_been_read_with_the_same_graphs(folder: Path, runs: Runs) -> None:
    one = write(folder, "a.txt", lines_of(1))
    runs.run(one, split_by_type=True)
    write(folder, "b.txt", lines_of(2))
    with pytest.raises(StoreError, match="with --split-by-type"):
        runs.run(folder)
    assert runs.events() == 1


def test_a_log_of_a_folder_without_whole_last_lines_is_read_once(folder: Path, runs: Runs) -> None:
    write(folder, "a.txt", lines_of(1) + "n1")
    write(folder, "b.txt", lines_of(2).rstrip())
    write(folder, "c.csv", f'src,dst,ts\na,b,{1_600_000_000}\n"a,b,1\n')
    runs.run(folder)
    write(folder, "d.txt", lines_of(3))
    assert runs.run(folder).rejected == 0
    add(folder / "a.txt", f" n2 {1_600_000_000}\n")
    add(folder / "b.txt", "\n")
    assert (runs.run(folder).events, runs.events()) == (1, 5)


def test_a_log_without_an_event_yet_tells_its_times_later(tmp_path: Path, folder: Path, runs: Runs) -> None:
    write(folder, "a.txt", lines_of(1))
    table = write(folder, "b.csv", "src,dst,ts\n")
    records = write(folder, "c.ndjson", '{"src": "a"}\n')
    empty = write(folder, "d.json", "[]")
    runs.run(folder)
    add(table, "a,b,1600000000000\n")
    add(records, '{"src": "a", "dst": "b", "ts": 1600000000000}\n')
    empty.write_text(json.dumps(values_of(2)))
    result = runs.run(folder)
    assert (result.events, result.rejected) == (3, 0)
    whole = Runs(tmp_path, "whole.db")
    whole.run(folder)
    assert runs.snapshots() == whole.snapshots()


def test_a_folder_that_is_as_before_is_not_unpacked_again(
    folder: Path, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        write(folder, f"{number}.gz", gzipped(lines_of(number)))
    runs.run(folder)
    write(folder, "new.txt", lines_of(9))

    def refuse(log: object, sizes: object) -> dict[int, object]:
        raise AssertionError(f"{log} compared with {sizes}")

    monkeypatch.setattr("stream.sources.growth.beginnings", refuse)
    assert runs.run(folder).events == 1
    position = json.loads(str(query(runs.store, "SELECT position FROM partitions ORDER BY source_id DESC")[0][0]))
    assert [isinstance(each, Left) for each in of_position(position)] == [True, True, True, False]
