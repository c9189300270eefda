"""Packed files, JSON documents and folders that grew: counted once, or refused by name."""

import gzip
import io
import json
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import InputError, StoreError
from stream.decoders.builder import DecodeOptions
from stream.ingest import IngestOptions, ingest
from stream.sources.extents import Left, of_position
from stream.sources.files import FileSource, FollowSource
from stream.store import open_dead_letters
from tests.unit.stream.growth_cases import HOUR, Runs, add, lines_of
from tests.unit.stream.ingest_cases import Killed, query
from tests.unit.stream.log_cases import write


def zipped(*texts: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, text in enumerate(texts):
            archive.writestr(f"part-{number}", text)
    return file.getvalue()


def gzipped(*texts: str) -> bytes:
    return b"".join(gzip.compress(text.encode()) for text in texts)


def zstd(*texts: str) -> bytes:
    return b"".join(zstandard.ZstdCompressor().compress(text.encode()) for text in texts)


def values_of(*hours: float) -> list[dict[str, object]]:
    return [
        {"src": f"n{int(hour) % 5}", "dst": f"n{int(hour) % 3}", "ts": 1_600_000_000 + int(hour * HOUR)}
        for hour in hours
    ]


# How a log is written anew with more events.
KINDS: dict[str, Callable[..., bytes | str]] = {
    "lines": lines_of,
    "gz": lambda *hours: gzipped(lines_of(*hours)),
    "gz-members": lambda *hours: gzipped(*(lines_of(hour) for hour in hours)),
    "zst": lambda *hours: zstd(lines_of(*hours)),
    "zst-frames": lambda *hours: zstd(*(lines_of(hour) for hour in hours)),
    "zip": lambda *hours: zipped(lines_of(*hours)),
    "zip-members": lambda *hours: zipped(*(lines_of(hour) for hour in hours)),
    "json": lambda *hours: json.dumps(values_of(*hours)),
    "json-pretty": lambda *hours: "\ufeff" + json.dumps(values_of(*hours), indent=2) + "\n",
    "json-documents": lambda *hours: "\n".join(json.dumps(value, indent=1) for value in values_of(*hours)),
    "json-arrays": lambda *hours: "\n".join(json.dumps(values_of(hour)) for hour in hours),
    "json-gz": lambda *hours: gzipped(json.dumps(values_of(*hours))),
}
BACKFILL = pytest.mark.parametrize("flags", [{}, {"backfill": True}], ids=["plain", "backfill"])


@BACKFILL
@pytest.mark.parametrize("kind", KINDS)
def test_each_event_of_what_grew_counts_once(tmp_path: Path, kind: str, flags: dict[str, bool]) -> None:
    grown, whole = Runs(tmp_path, "grown.db", block_bytes=11), Runs(tmp_path, "whole.db")
    hours: list[float] = [5, 1, 9]
    grown.run(write(tmp_path, "log", KINDS[kind](*hours)))
    for more in ([12, 12.5], [0.2], [9.5, 3]):
        hours += more
        path = write(tmp_path, "log", KINDS[kind](*hours))
        result = grown.run(path, **flags)
        assert (result.events, result.late, result.rejected, result.ended) == (len(more), 0, 0, True)
        assert grown.run(path, **flags).unchanged
    whole.run(path)
    assert grown.snapshots() == whole.snapshots()
    assert grown.events() == len(hours)


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(list(KINDS)),
    hours=st.lists(st.integers(0, 40), min_size=1, max_size=9),
    cuts=st.lists(st.integers(1, 9), max_size=3),
    kills=st.lists(st.integers(1, 4), max_size=4),
    block_bytes=st.integers(3, 60),
    batch_rows=st.integers(1, 3),
)
def test_wherever_runs_are_killed_the_store_is_that_of_the_whole_log(
    kind: str, hours: list[int], cuts: list[int], kills: list[int], block_bytes: int, batch_rows: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        grown = Runs(Path(folder), "grown.db", block_bytes=block_bytes)
        pending = iter(kills)
        for cut in (*sorted(cuts), len(hours)):
            path = write(Path(folder), "log", KINDS[kind](*hours[:cut]))
            if (kill_after := next(pending, None)) is not None:
                with suppress(Killed):
                    grown.run(path, kill_after=kill_after, batch_rows=batch_rows)
            grown.run(path, batch_rows=batch_rows, backfill=bool(cut % 2))
        whole = Runs(Path(folder), "whole.db")
        whole.run(path)
        assert grown.snapshots() == whole.snapshots()


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


@pytest.mark.parametrize("kind", KINDS)
def test_what_changed_is_not_counted_again_by_backfill(tmp_path: Path, runs: Runs, kind: str) -> None:
    path = write(tmp_path, "log", KINDS[kind](1, 2))
    runs.run(path)
    write(tmp_path, "log", KINDS[kind](3, 2, 4))
    with pytest.raises(InputError, match="holds something else now") as failure:
        runs.run(path, backfill=True)
    assert str(path) in str(failure.value.place)
    assert "give it another name" in str(failure.value.fix)
    assert runs.events() == 2
    path.rename(tmp_path / "other")
    if kind != "zip-members":  # of which one is known
        runs.run(tmp_path / "other", backfill=True)
        assert runs.events() == 5


@BACKFILL
def test_what_was_added_and_changed_later_is_not_taken_for_new(
    tmp_path: Path, runs: Runs, flags: dict[str, bool]
) -> None:
    for hours in ((1,), (1, 2)):
        path = write(tmp_path, "log.txt", lines_of(*hours))
        runs.run(path)
    write(tmp_path, "log.txt", lines_of(1, 0, 2))
    with pytest.raises((InputError, StoreError)):
        runs.run(path, **flags)
    assert runs.events() == 2


@BACKFILL
@pytest.mark.parametrize("kind", ["lines", "json", "json-pretty", "json-documents"])
def test_an_older_copy_of_what_went_on_is_nothing_new_and_with_more_is_refused(
    tmp_path: Path, runs: Runs, kind: str, flags: dict[str, bool]
) -> None:
    for hours in ((1,), (1, 2, 3)):
        runs.run(write(tmp_path, "log", KINDS[kind](*hours)))
    assert runs.run(write(tmp_path, "copy.zst", zstd(str(KINDS[kind](1)))), **flags).events == 0
    # Its second event is one of the log, or is not.
    with pytest.raises(InputError, match="begins as a log that was ingested and has grown since") as failure:
        runs.run(write(tmp_path, "other", KINDS[kind](1, 2)), **flags)
    assert str(failure.value.place).startswith(f"{tmp_path / 'other'}")
    assert runs.events() == 3


def test_a_last_line_of_a_packed_log_without_its_end_may_get_it(tmp_path: Path, runs: Runs) -> None:
    path = write(tmp_path, "log.gz", gzipped(lines_of(1, 2).rstrip()))
    runs.run(path)
    for more in ("\n" + lines_of(3), "n1 n2"):
        add_member(path, more)
        runs.run(path)
    assert runs.events() == 3
    add_member(path, " 1600000000\n" + lines_of(4).rstrip())
    runs.run(path)
    assert runs.events() == 5
    add_member(path, "9\n")
    with pytest.raises(InputError, match="grew inside its last line") as failure:
        runs.run(path, backfill=True)
    assert failure.value.place == f"{path}:5"


def add_member(path: Path, text: str) -> None:
    with path.open("ab") as file:
        file.write(gzip.compress(text.encode()))


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


def test_bad_lines_behind_a_packed_log_keep_their_numbers(tmp_path: Path) -> None:
    runs = Runs(tmp_path, options=DecodeOptions(keep_records=True), block_bytes=13)
    path = write(tmp_path, "log.gz", gzipped(lines_of(1, 2)))
    runs.run(path)
    add_member(path, "bad\n" + lines_of(3))
    runs.run(path)
    documents = write(tmp_path, "log.json", json.dumps(values_of(4), indent=1))
    runs.run(documents)
    documents.write_text(json.dumps([*values_of(4), {"src": "a"}], indent=1))
    runs.run(documents)
    with open_dead_letters(f"sqlite:///{runs.store}") as reader:
        assert [letter.place for letter in reader.letters(limit=9)] == [f"{path}:3", f"{documents}:7"]


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


def follow(path: Path, runs: Runs, graph: str = "default", *, backfill: bool = False) -> None:
    """Follow a file to its end as it is."""
    stopped: list[float] = []
    options = DecodeOptions(graph=graph)
    source = FollowSource(path, options, stop=lambda: bool(stopped), sleep=stopped.append, may_be_late=backfill)
    ingest(source, f"sqlite:///{runs.store}", IngestOptions(backfill=backfill))


def counted(runs: Runs) -> int:
    """Return how many events were read, those of open steps among them."""
    return int(str(query(runs.store, "SELECT sum(events) FROM partitions")[0][0]))


def test_what_was_followed_is_not_counted_again_by_backfill(tmp_path: Path, runs: Runs) -> None:
    path = write(tmp_path, "log.txt", lines_of(1, 2))
    follow(path, runs)
    follow(path, runs, "other")
    moved = path.rename(tmp_path / "log-1.txt")
    add(moved, lines_of(3))
    for name in (moved, moved.parent):
        with pytest.raises(InputError, match="was read before with --follow") as failure:
            runs.run(name, backfill=True)
        assert str(failure.value.place).startswith(f"{moved}, up to byte")
    assert counted(runs) == 4
    # What is in none of these graphs, or is another log, is.
    source = FileSource(moved, DecodeOptions(graph="third"), may_be_late=True)
    ingest(source, f"sqlite:///{runs.store}", IngestOptions(backfill=True))
    runs.run(write(tmp_path, "log.txt", lines_of(4)), backfill=True)
    assert counted(runs) == 8


def test_what_was_ingested_is_not_counted_again_by_following_with_backfill(tmp_path: Path, runs: Runs) -> None:
    path = write(tmp_path, "log.txt", lines_of(1, 2))
    runs.run(path)
    add(path, lines_of(3))
    with pytest.raises(InputError, match="with --backfill what was ingested would count again"):
        follow(path, runs, backfill=True)
    assert counted(runs) == 2
    other = write(tmp_path, "other.txt", lines_of(0))
    follow(other, runs, backfill=True)
    add(other, lines_of(2))
    follow(other, runs, backfill=True)
    assert counted(runs) == 4


def test_what_was_read_with_other_flags_is_not_counted_again_by_backfill(tmp_path: Path, folder: Path) -> None:
    path = write(folder, "log.csv", f"src,dst,ts,then\na,b,{HOUR},c\n")
    write(folder, "other.txt", lines_of(1))
    units = Runs(tmp_path, options=DecodeOptions(time_unit="s"))
    units.run(path)
    add(path, f"a,b,{HOUR},c\n")
    for options in (DecodeOptions(), DecodeOptions(time_unit="s", format="csv"), DecodeOptions(bipartite=True)):
        for source in (path, folder):
            with pytest.raises(InputError, match=r"before with other flags \(time_unit=s\)") as failure:
                Runs(tmp_path, options=options).run(source, backfill=True)
            assert str(failure.value.place).startswith(f"{path}, up to byte")
    assert units.events() == 1
    # Other fields, and another graph, are other events.
    Runs(tmp_path, options=DecodeOptions(columns={"dst": "then"})).run(path, backfill=True)
    Runs(tmp_path, options=DecodeOptions(graph="other")).run(path, backfill=True)
    units.run(path, backfill=True)
    assert units.events() == 6


def test_documents_that_only_got_white_space_or_were_packed_go_on_later(tmp_path: Path, runs: Runs) -> None:
    path = write(tmp_path, "log.json", json.dumps(values_of(1)))
    runs.run(path)
    add(path, "\n")
    assert runs.run(path).events == 0
    assert runs.run(write(tmp_path, "log.json", gzipped(path.read_text()))).events == 0
    assert runs.run(write(tmp_path, "log.json", gzipped(json.dumps(values_of(1, 2))))).events == 1
    assert runs.events() == 2
