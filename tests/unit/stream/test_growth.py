"""A file that grew: `ingest` goes on behind what it read, exactly once, or says why it cannot."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import InputError, StoreError
from stream.decoders.builder import DecodeOptions
from stream.graphs import BeginsBeforeError
from stream.ingest import IngestOptions, ingest
from stream.sources.files import FileSource
from stream.store import open_dead_letters
from tests.unit.stream.growth_cases import HOUR, Runs, add, event_line, lines_of
from tests.unit.stream.ingest_cases import Killed
from tests.unit.stream.log_cases import write


def test_what_was_added_is_counted_and_nothing_twice(tmp_path: Path, runs: Runs) -> None:
    path = write(tmp_path, "log.txt", lines_of(5, 1, 9))
    runs.run(path)
    # Behind the last step, in it, and before the first.
    for more in (lines_of(12), lines_of(12.5, 9.5), lines_of(0.2)):
        add(path, more)
        result = runs.run(path)
        assert (result.events, result.late, result.unchanged, result.ended) == (len(more.splitlines()), 0, False, True)
        assert runs.run(path).unchanged
    whole = Runs(tmp_path, "whole.db")
    whole.run(path)
    assert runs.events() == 7
    assert runs.snapshots() == whole.snapshots()


@settings(max_examples=30, deadline=None)
@given(
    events=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 40), st.sampled_from(("", "g", "h"))),
        min_size=1,
        max_size=12,
    ),
    bad=st.sets(st.integers(0, 11)),
    cuts=st.lists(st.floats(0, 1), max_size=3),
    kills=st.lists(st.integers(1, 4), max_size=4),
    batch_rows=st.integers(1, 4),
    split_by_type=st.booleans(),
)
def test_however_it_grows_and_whoever_is_killed_the_store_is_that_of_the_whole_file(
    events: list[tuple[int, int, int, str]],
    bad: set[int],
    cuts: list[float],
    kills: list[int],
    batch_rows: int,
    split_by_type: bool,
) -> None:
    lines = [
        "{]" if at in bad and at else event_line(f"n{src}", f"n{dst}", hour, graph)
        for at, (src, dst, hour, graph) in enumerate(events)
    ]
    data = "".join(f"{line}\n" for line in lines).encode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.ndjson"
        options = DecodeOptions(format="ndjson", keep_records=True)
        grown, whole = Runs(Path(folder), "grown.db", options), Runs(Path(folder), "whole.db", options)
        pending = iter(kills)
        for cut in (*sorted(cuts), 1.0):
            # In the middle of a line, too.
            path.write_bytes(data[: int(cut * len(data))])
            try:
                if (kill_after := next(pending, None)) is not None:
                    with suppress(Killed):
                        grown.run(path, kill_after=kill_after, batch_rows=batch_rows, split_by_type=split_by_type)
                grown.run(path, batch_rows=batch_rows, split_by_type=split_by_type)
            except InputError as error:
                assert error.message.endswith(("is empty", "holds no record")) or "none of" in error.message
        whole.run(path, split_by_type=split_by_type)
        assert grown.snapshots() == whole.snapshots()
        with open_dead_letters(f"sqlite:///{grown.store}") as reader:
            kept = [letter.record.offset for letter in reader.letters(limit=100) if letter.record.value == b"{]"]
        assert sorted(kept) == [at + 1 for at, line in enumerate(lines) if line == "{]"]


@pytest.mark.parametrize("split_by_type", [False, True])
def test_graphs_of_which_nothing_was_added_end_with_the_file_too(tmp_path: Path, *, split_by_type: bool) -> None:
    path = tmp_path / "log.ndjson"
    grown = Runs(tmp_path, "grown.db")
    # The file's last event comes second, then a graph that begins before the end of the others, then nothing at all.
    for more in (
        event_line("a", "b", 1, "g") + "\n" + event_line("a", "c", 3, "h"),
        event_line("a", "b", 9, "g"),
        event_line("a", "b", 2, "i"),
        "bad",
        event_line("a", "b", 12, "h"),
    ):
        add(path, f"{more}\n")
        grown.run(path, split_by_type=split_by_type)
        whole = Runs(tmp_path, f"{path.stat().st_size}.db")
        whole.run(path, split_by_type=split_by_type)
        assert grown.snapshots() == whole.snapshots()


def test_a_header_and_the_numbers_of_lines_stay(tmp_path: Path) -> None:
    path = write(tmp_path, "log.csv", f"when,to,from\n{1_600_000_000},b,a\n")
    columns = DecodeOptions(columns={"src": "from", "dst": "to", "ts": "when"}, keep_records=True)
    runs = Runs(tmp_path, options=columns)
    runs.run(path)
    add(path, f"\n{1_600_000_500},b,c\nnever,b,c\n")
    runs.run(path)
    with open_dead_letters(f"sqlite:///{runs.store}") as reader:
        assert [letter.place for letter in reader.letters(limit=9)] == [f"{path}:5"]
    assert runs.events() == 2


@pytest.mark.parametrize("flags", [{}, {"backfill": True}])
def test_with_backfill_it_is_not_counted_twice_either(tmp_path: Path, runs: Runs, flags: dict[str, bool]) -> None:
    path = write(tmp_path, "log.txt", lines_of(1, 2))
    runs.run(path)
    add(path, lines_of(3))
    runs.run(path, **flags)
    assert runs.events() == 3


def test_a_moved_file_is_known_by_what_it_holds(tmp_path: Path, runs: Runs) -> None:
    path = write(tmp_path, "log.txt", lines_of(1, 2))
    runs.run(path)
    add(path, lines_of(3))
    runs.run(path.rename(tmp_path / "other.txt"))
    assert runs.events() == 3


def test_lines_that_are_no_events_may_be_all_that_was_added(tmp_path: Path, runs: Runs) -> None:
    path = write(tmp_path, "log.txt", lines_of(1, 2))
    runs.run(path)
    add(path, "bad\n")
    assert (runs.run(path).rejected, runs.events()) == (1, 2)
    add(path, "\n")
    assert runs.run(path).ended
    add(path, lines_of(3))
    runs.run(path)
    assert runs.events() == 3


def test_a_last_line_without_its_end_may_get_it(tmp_path: Path, runs: Runs) -> None:
    path = write(tmp_path, "log.txt", lines_of(1, 2).rstrip())
    runs.run(path)
    add(path, "\n" + lines_of(3))
    runs.run(path)
    assert runs.events() == 3


def test_a_line_that_was_counted_and_is_longer_now_is_told(tmp_path: Path, runs: Runs) -> None:
    path = write(tmp_path, "log.txt", lines_of(1, 2).rstrip())
    runs.run(path)
    add(path, "5\n")
    with pytest.raises(InputError, match="grew inside its last line") as failure:
        runs.run(path)
    assert failure.value.place == f"{path}:2"
    assert runs.events() == 2


def test_what_changed_is_refused_and_told(tmp_path: Path, runs: Runs) -> None:
    path = write(tmp_path, "log.txt", lines_of(1, 2))
    size = path.stat().st_size
    runs.run(path)
    path.write_text(lines_of(1, 4, 5))
    source = FileSource(path)
    with pytest.raises(BeginsBeforeError):
        ingest(source, f"sqlite:///{runs.store}", IngestOptions())
    assert source.rewritten is not None
    assert source.rewritten.bytes == size
    assert runs.events() == 2
    # Another log under the same name, which begins behind the first one, is as good as one under another name.
    path.write_text(lines_of(7, 8))
    runs.run(path)
    assert runs.events() == 4


def test_what_was_broken_off_has_to_be_ended_first(tmp_path: Path, runs: Runs) -> None:
    path = write(tmp_path, "log.txt", lines_of(1, 2, 3, 4))
    size = path.stat().st_size
    with pytest.raises(Killed):
        runs.run(path, kill_after=1)
    before = path.read_bytes()
    add(path, lines_of(5))
    with pytest.raises(InputError, match="grew after reading it was broken off") as failure:
        runs.run(path)
    assert f"head -c {size} {path}" in str(failure.value.fix)
    runs.run(write(tmp_path, "part", before))
    runs.run(path)
    assert runs.events() == 5


@pytest.mark.parametrize("last", ["# com", "#", " "])
def test_a_last_line_without_its_end_that_was_no_event_may_become_one(tmp_path: Path, runs: Runs, last: str) -> None:
    path = write(tmp_path, "log.txt", lines_of(1) + last)
    runs.run(path)
    add(path, "ment\n" + lines_of(2) if "#" in last else lines_of(2))
    assert (runs.run(path).rejected, runs.events()) == (0, 2)


def test_a_name_that_is_no_text_is_shown_with_escapes(tmp_path: Path) -> None:
    runs = Runs(tmp_path, options=DecodeOptions(keep_records=True))
    path = tmp_path / os.fsdecode(b"log-\xff.txt")
    add(path, lines_of(1) + "bad\n")
    runs.run(path)
    add(path, lines_of(2) + "worse\n")
    assert runs.run(path).events == 1
    with open_dead_letters(f"sqlite:///{runs.store}") as reader:
        assert [letter.place for letter in reader.letters(limit=9)] == [
            f"{tmp_path}/log-\\udcff.txt:{line}" for line in (2, 4)
        ]


def test_other_flags_are_refused(tmp_path: Path, runs: Runs) -> None:
    path = write(tmp_path, "log.txt", lines_of(1, 2))
    runs.run(path)
    add(path, lines_of(3))
    for backfill in (False, True):
        with pytest.raises(StoreError, match="without --split-by-type"):
            runs.run(path, split_by_type=True, backfill=backfill)


@pytest.mark.parametrize("flags", [{}, {"backfill": True}])
def test_what_ended_inside_a_quote_is_refused(tmp_path: Path, runs: Runs, flags: dict[str, bool]) -> None:
    path = write(tmp_path, "log.csv", f'src,dst,ts\na,b,{HOUR}\n"a,b,1\n')
    runs.run(path)
    add(path, f'",c,{HOUR}\n')
    with pytest.raises(InputError, match="grew behind a quote that was not closed") as failure:
        runs.run(path, **flags)
    assert str(path) in str(failure.value.place)
    assert runs.events() == 1
