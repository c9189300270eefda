"""Packed files and JSON documents that grew: counted once, or refused by name."""

import gzip
import json
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import InputError, StoreError
from stream.decoders.builder import DecodeOptions
from stream.ingest import IngestOptions, ingest
from stream.sources.files import FileSource, FollowSource
from stream.store import open_dead_letters
from tests.unit.stream.growth_cases import BACKFILL, HOUR, KINDS, Runs, add, gzipped, lines_of, values_of, zstd
from tests.unit.stream.ingest_cases import Killed, query
from tests.unit.stream.log_cases import write


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
