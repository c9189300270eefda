"""Lines of files that are not counted: kept whole as dead letters, each once, wherever reading is broken off."""

import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import InputError
from infra.steps import HOUR_US
from stream.deadletters import letter_headers
from stream.decoders.builder import DecodeOptions
from stream.ingest import IngestOptions, ingest
from stream.sources.files import FileSource, FollowSource
from stream.store import open_dead_letters
from stream.store.dead_letters import DeadLetter
from tests.unit.stream.ingest_cases import Killed, dying, query
from tests.unit.stream.log_cases import write

KEEP = DecodeOptions(keep_records=True)
BAD = "9 9 -1\n1 2 30\n\n1\n3 4 10\n\xff\n".encode("latin-1")


def letters(store: Path) -> list[DeadLetter]:
    with open_dead_letters(f"sqlite:///{store}") as reader:
        return reader.letters(limit=10_000)


def values(store: Path) -> list[tuple[int, bytes | None]]:
    return [(letter.record.offset, letter.record.value) for letter in letters(store)]


def test_bad_lines_are_kept_whole_with_their_file_and_number(tmp_path: Path) -> None:
    path, store = write(tmp_path, "log.txt", BAD), tmp_path / "store.db"
    result = ingest(FileSource(path, KEEP), f"sqlite:///{store}", IngestOptions(keep_rejects=1))
    assert (result.events, result.rejected, result.rejects) == (2, 3, ())
    assert sorted(values(store)) == [(1, b"9 9 -1"), (4, b"1"), (6, b"\xff")]
    found = {letter.record.offset: letter for letter in letters(store)}
    assert (found[1].stage, found[4].stage) == ("TRANSFORMATION", "VALUE_CONVERTER")
    assert found[4].reason == "1 columns instead of 3"
    headers = dict(letter_headers(found[4]))
    assert headers["__connect.errors.topic"] == str(path).encode()
    assert (headers["__connect.errors.partition"], headers["__connect.errors.offset"]) == (b"0", b"4")
    assert headers["__connect.errors.exception.class.name"] == b"graphtide.RejectedEvent"


def test_without_it_a_sample_is_kept(tmp_path: Path) -> None:
    path, store = write(tmp_path, "log.txt", BAD), tmp_path / "store.db"
    result = ingest(FileSource(path), f"sqlite:///{store}", IngestOptions(keep_rejects=2))
    assert (result.rejected, len(result.rejects), letters(store)) == (3, 2, [])


def test_a_quoted_record_is_kept_with_all_its_lines(tmp_path: Path) -> None:
    text = 'src,dst,ts\n"a\nb",c,never\nx,y,1767268800\n'
    path, store = write(tmp_path, "log.csv", text), tmp_path / "store.db"
    ingest(FileSource(path, KEEP), f"sqlite:///{store}", IngestOptions())
    assert values(store) == [(2, b'"a\nb",c,never')]


def test_an_event_whose_step_cannot_be_revised_any_more_is_kept_as_it_stood(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    options = IngestOptions(keep_edges_us=HOUR_US)
    new = write(tmp_path, "new.txt", "".join(f"1 2 {hour * 3600}\n" for hour in range(100, 130)))
    ingest(FileSource(new, KEEP), f"sqlite:///{store}", options)
    old = write(tmp_path, "old.csv", f'src,dst,ts\n3,4,{129 * 3600}\n"5",6,{100 * 3600}\n7,8,{101 * 3600}\n')
    source = FileSource(old, KEEP, batch_rows=1, max_rows_in_memory=2, block_bytes=7, may_be_late=True)
    result = ingest(source, f"sqlite:///{store}", replace(options, backfill=True))
    assert result.late == 2
    assert values(store) == [(3, b'"5",6,360000'), (4, b"7,8,363600")]
    assert {letter.reason.split(":")[0] for letter in letters(store)} == {"late"}
    assert {letter.record.topic for letter in letters(store)} == {str(old)}


@pytest.mark.parametrize("block_bytes", [5, 1 << 20])
def test_late_and_bad_lines_of_a_followed_file_are_kept(tmp_path: Path, block_bytes: int) -> None:
    store = tmp_path / "store.db"
    path = write(tmp_path, "log.txt", f"1 2 {3600 * 100}\nbad\n3 4 {3600 * 105}\n5 6 {3600 * 99}\n7 8 {3600 * 105}\n")
    stopped: list[float] = []
    source = FollowSource(
        path, KEEP, stop=lambda: bool(stopped), sleep=stopped.append, block_bytes=block_bytes
    )  # fmt: skip
    result = ingest(source, f"sqlite:///{store}", IngestOptions())
    assert (result.events, result.late, result.rejected) == (4, 1, 1)
    assert sorted(values(store)) == [(2, b"bad"), (4, b"5 6 356400")]


def test_without_room_for_bad_lines_the_folder_is_named(tmp_path: Path) -> None:
    source = FileSource(write(tmp_path, "log.txt", BAD), KEEP, temp_folder=tmp_path / "missing")
    with pytest.raises(InputError, match="no room"):
        next(source.batches(None))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_is_told_by_the_first_bad_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full").open("w+b")  # noqa: SIM115 - the source closes it
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: full)
    source = FileSource(write(tmp_path, "log.txt", BAD), KEEP, temp_folder=tmp_path)
    with pytest.raises(InputError, match="no room to sort the events on disk: No space left"):
        next(source.batches(None))
    assert full.closed


@settings(max_examples=25)
@given(
    lines=st.lists(st.sampled_from(["1 2 30", "3 4 10", "bad", "5 6 never", "7 7 7 7"]), min_size=1, max_size=20),
    batch_rows=st.integers(1, 4),
    kills=st.lists(st.integers(1, 4), max_size=4),
)
def test_each_bad_line_is_a_letter_once_wherever_runs_end(lines: list[str], batch_rows: int, kills: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        text = "1 2 30\n" + "".join(f"{line}\n" for line in lines)
        path, store = write(Path(folder), "log.txt", text), Path(folder) / "store.db"

        def run(kill_after: int | None) -> None:
            source = FileSource(path, KEEP, batch_rows=batch_rows)
            ingest(source, f"sqlite:///{store}", IngestOptions(), dying(kill_after))

        for kill_after in kills:
            with suppress(Killed):
                run(kill_after)
        run(None)
        expected = [(at + 2, line.encode()) for at, line in enumerate(lines) if line not in ("1 2 30", "3 4 10")]
        assert sorted(values(store)) == expected
        ((events, rejected),) = query(store, "SELECT events, rejected FROM partitions")
        assert (events, rejected) == (1 + len(lines) - len(expected), len(expected))
