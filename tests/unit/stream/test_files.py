"""Bounded sources: every format and packing comes back equal and sorted; what is broken is refused as a whole."""

import gzip
import os
import tempfile
import zipfile
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from forecasting.cli.ingest import _source
from forecasting.cli.progress import progress
from infra.errors import GraphtideError, InputError, UsageError
from infra.settings import Settings
from stream.decoders.builder import DecodeOptions
from stream.events import Event, EventRules
from stream.sources.files import FileSource
from tests.unit.stream.log_cases import (
    FULL_FORMATS,
    PACKINGS,
    as_edges,
    as_ndjson,
    as_table,
    by_time,
    bzip2,
    events_of,
    full_events,
    plain_events,
    write,
)

EDGES = "1 2 30\n3 4 10\n1 4 20\n"
IN_ORDER = [Event("3", "4", 10_000_000), Event("1", "4", 20_000_000), Event("1", "2", 30_000_000)]


@pytest.mark.parametrize("form", FULL_FORMATS)
@given(
    events=st.lists(full_events(), min_size=1, max_size=8), packing=st.sampled_from(sorted(PACKINGS)), data=st.data()
)
def test_what_is_written_is_read_back(form: str, events: list[Event], packing: str, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        # The name says nothing: what a file is stands in its first bytes.
        path = write(Path(folder), "log", PACKINGS[packing](FULL_FORMATS[form](events)))
        source = FileSource(
            path,
            batch_rows=data.draw(st.integers(1, 9)),
            max_rows_in_memory=data.draw(st.integers(1, 9)),
            block_bytes=data.draw(st.integers(1, 64)),
        )
        batches = list(source.batches(None))
        assert events_of(batches) == by_time(events)
        assert [batch.end for batch in batches] == [False] * (len(batches) - 1) + [True]
        assert sum(batch.rejected for batch in batches) == 0


@given(
    events=st.lists(plain_events(), min_size=1, max_size=8),
    packing=st.sampled_from(sorted(PACKINGS)),
    separator=st.sampled_from([" ", "\t", "   "]),
)
def test_edge_lists_are_read_back(events: list[Event], packing: str, separator: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), "log", PACKINGS[packing](as_edges(events, separator)))
        # Any numbers may stand there, so the guess of the layout is not what is tested.
        columns = {"src": "1", "dst": "2", "weight": "3", "ts": "4"}
        assert events_of(FileSource(path, DecodeOptions(columns=columns)).batches(None)) == by_time(events)


@given(
    st.binary(max_size=60),
    st.sampled_from([b"", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PK\x03\x04", b"PK\x05\x06", b"BZh"]),
)
def test_junk_is_an_error_for_the_user(junk: bytes, magic: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), "log", magic + junk)
        try:
            events = events_of(FileSource(path).batches(None))
        except GraphtideError as error:
            assert str(path) in str(error)
        else:
            assert events


@given(st.sampled_from(["gz", "zst", "zip", "gz-two-members", "zst-two-frames"]), st.floats(0, 1, exclude_max=True))
def test_a_packed_file_that_is_cut_short_is_refused_or_whole(packing: str, share: float) -> None:
    packed = PACKINGS[packing](EDGES.encode() * 200)
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), "log", packed[: max(1, int(len(packed) * share))])
        batches = FileSource(path).batches(None)
        if packing.endswith(("members", "frames")):
            # Cut exactly between two members nothing shows that more was to come.
            try:
                assert len(next(batches).events) < 600
            except InputError:
                return
        else:
            with pytest.raises(InputError):
                next(batches)


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor().compress])
def test_the_cut_is_named(tmp_path: Path, pack: object) -> None:
    assert callable(pack)
    path = write(tmp_path, "log.packed", pack(EDGES.encode() * 200)[:-6])
    with pytest.raises(InputError, match="cut short") as failure:
        FileSource(path).batches(None).__next__()
    assert str(path) in failure.value.message
    assert failure.value.fix


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    for name in ("gz", "zip"):
        packed = bytearray(PACKINGS[name](EDGES.encode() * 200))
        packed[40] ^= 1
        with pytest.raises(InputError, match="broken or cut short"):
            next(FileSource(write(tmp_path, name, bytes(packed))).batches(None))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\n \n", "holds no record"),
        (gzip.compress(b"", mtime=0), "is empty"),
        (bytes(range(256)), "is no text log"),
        (b"src,dst,ts\n", "holds no record"),
        (b"src,dst,when\n1,2,3\n", "no column for ts"),
        (bzip2(b"1 2 3\n"), "bzip2"),
        (b"PAR1....", "Parquet"),
        (b"[]", "holds no record"),
        (b'[{"src": 1', "the JSON ends inside"),
    ],
)
def test_what_holds_no_event_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = write(tmp_path, "log", data)
    with pytest.raises(InputError, match=message) as failure:
        next(FileSource(path).batches(None))
    assert str(path) in str(failure.value)


def test_what_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        _ = FileSource(tmp_path / "nothing").name
    with pytest.raises(InputError, match=r"is empty"):
        _ = FileSource(tmp_path).name
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(InputError, match="no regular file"):
        _ = FileSource(pipe).name


def test_a_file_that_must_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "locked", EDGES)

    # A superuser reads whatever the file's mode says.
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match="must not be read") as failure:
        _ = FileSource(path).name
    assert "chmod u+r" in str(failure.value.fix)


def test_a_log_of_bad_records_only_says_what_they_are(tmp_path: Path) -> None:
    path = write(tmp_path, "log.txt", "1 2 1289241911728\n3 4 1289241911729\n")
    with pytest.raises(InputError, match="none of 2 records is a valid event") as failure:
        next(FileSource(path, DecodeOptions(time_unit="s")).batches(None))
    assert f"{path}:1: time 1289241911728" in str(failure.value.place)
    assert failure.value.fix == "read it with --time-unit ms"


def test_strict_stops_before_anything_is_handed_over(tmp_path: Path) -> None:
    path = write(tmp_path, "log.txt", EDGES + "5 6 later\n")
    with pytest.raises(InputError, match="'later' is neither a number nor ISO 8601") as failure:
        next(FileSource(path, DecodeOptions(strict=True), batch_rows=1).batches(None))
    assert failure.value.place == f"{path}:4"


def test_rejects_are_told_once_with_the_first_batch(tmp_path: Path) -> None:
    path = write(tmp_path, "log.txt", "9 9 -1\n" + EDGES + "5 6 later\n")
    first, *others = FileSource(path, batch_rows=1).batches(None)
    assert first.rejected == 2
    assert [reject.place for reject in first.rejects] == [f"{path}:1", f"{path}:5"]
    assert all(batch.rejected == 0 and not batch.rejects for batch in others)
    assert first.position.items() >= {"mode": "sorted", "row": 1, "rows": 3, "rejected": 2}.items()
    again, *_ = FileSource(path, batch_rows=1).batches(first.position)
    assert again.rejected == 0


@given(
    rows=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), min_size=1, max_size=20),
    batch_rows=st.integers(1, 6),
    other_rows=st.integers(1, 6),
    data=st.data(),
)
def test_resuming_goes_on_with_the_next_row(
    rows: list[tuple[str, int]], batch_rows: int, other_rows: int, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), "log.txt", "".join(f"{name} x{at} {ts}\n" for at, (name, ts) in enumerate(rows)))
        batches = list(FileSource(path, batch_rows=batch_rows).batches(None))
        cut = data.draw(st.integers(0, len(batches) - 1))
        rest = list(FileSource(path, batch_rows=other_rows, max_rows_in_memory=2).batches(batches[cut].position))
        assert events_of(batches[: cut + 1]) + events_of(rest) == events_of(batches)
        assert rest[-1].end


def test_a_position_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "log.txt", EDGES)
    with pytest.raises(InputError, match="3 events, but 4 of them were ingested before"):
        next(FileSource(path).batches({"mode": "sorted", "row": 4, "rejected": 0}))
    with pytest.raises(InputError, match="another kind of position"):
        next(FileSource(path).batches({"mode": "arrival", "byte": 4}))


def test_the_name_is_the_content_and_how_it_is_read(tmp_path: Path) -> None:
    one, same, other = (
        write(tmp_path, name, text) for name, text in (("a", EDGES), ("b", EDGES), ("c", EDGES + "1 2 3"))
    )
    name = FileSource(one).name
    assert name.startswith("file:")
    assert len(name) == len("file:") + 64
    assert FileSource(same).name == name
    assert FileSource(other).name != name
    assert FileSource(one, DecodeOptions(graph="g")).name == f"{name}#graph=g"
    assert FileSource(one, DecodeOptions(strict=True)).name == name
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder, "x.txt", EDGES)
    assert FileSource(folder).name == name
    write(folder, "y.txt", EDGES)
    assert FileSource(folder).name != name


def test_a_folder_is_read_by_name_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    write(tmp_path, "b.csv.gz", gzip.compress(b"src,dst,ts\nb,b,1\n"))
    write(tmp_path, "a.ndjson", '{"src": "a", "dst": "a", "ts": 1000}\n')
    write(tmp_path, "out.konect", "c c 1 1\n")
    write(tmp_path, "README.txt", "Once upon a time 5\n")
    write(tmp_path, "notes.md", "1 2 3\n")
    write(tmp_path, "nodes.csv", "id,name\n1,x\n")
    write(tmp_path, ".hidden.txt", EDGES)
    (tmp_path / "sub").mkdir()
    source = FileSource(tmp_path)
    events = events_of(source.batches(None))
    assert [(e.src, e.ts_us) for e in events] == [("b", 1_000_000), ("c", 1_000_000), ("a", 1_000_000_000)]
    left_out = [note for note in source.notes if note.startswith("left out")]
    for name in ("README.txt", "notes.md", "nodes.csv", ".hidden.txt", "sub"):
        assert sum(name in note for note in left_out) == 1
    assert len(left_out) == 5


def test_a_folder_without_logs_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "README.md", "1 2 3")
    write(tmp_path, "nodes.csv", "id,name\n1,x\n")
    with pytest.raises(InputError, match="holds no log") as failure:
        next(FileSource(tmp_path).batches(None))
    assert "nodes.csv" in str(failure.value.place)


def test_a_folder_with_a_broken_log_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "a.txt", EDGES)
    write(tmp_path, "b.txt.gz", gzip.compress(EDGES.encode() * 99)[:-9])
    with pytest.raises(InputError, match=r"b\.txt\.gz is cut short"):
        next(FileSource(tmp_path).batches(None))


def test_members_of_an_archive_are_read_by_name(tmp_path: Path) -> None:
    path = tmp_path / "logs.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/b.csv", as_table([Event("b", "b", 5)]))
        archive.writestr("x/a.txt", "a a 0\nbad line\n")
        archive.writestr("x/image.png", b"\x89PNG\x00")
    source = FileSource(path)
    batches = list(source.batches(None))
    assert [event.src for event in events_of(batches)] == ["a", "b"]
    assert batches[0].rejects[0].place == f"{path}!x/a.txt:2"
    assert any("image.png" in note for note in source.notes)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/", b"")
    with pytest.raises(InputError, match="empty archive"):
        next(FileSource(path).batches(None))


def test_a_file_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "log.txt", EDGES)
    source = FileSource(path)
    _ = source.name
    with path.open("a") as file:
        file.write("7 8 9\n")
    with pytest.raises(InputError, match="changed while it was read"):
        next(source.batches(None))


def test_graphs_and_rules_come_from_the_options(tmp_path: Path) -> None:
    path = write(
        tmp_path, "log", as_ndjson([Event("a", "b", 1, graph="own"), Event("a", "b", 2)]).replace(b'"default"', b"null")
    )
    options = DecodeOptions(graph="mine", rules=EventRules(max_ts_us=1))
    batches = list(FileSource(path, options).batches(None))
    assert [event.graph for event in events_of(batches)] == ["own"]
    assert batches[0].rejected == 1
    assert [e.graph for e in events_of(FileSource(path, DecodeOptions(graph="mine")).batches(None))] == ["own", "mine"]
    with pytest.raises(UsageError):
        FileSource(path, DecodeOptions(graph="No Name"))


def test_overlapping_id_spaces_are_said(tmp_path: Path) -> None:
    path = write(tmp_path, "log.csv", "user,item,ts\n0,0,1\n1,0,2\n")
    source = FileSource(path)
    assert len(events_of(source.batches(None))) == 2
    assert any("--bipartite" in note for note in source.notes)
    apart = FileSource(path, DecodeOptions(bipartite=True))
    assert [(e.src, e.dst) for e in events_of(apart.batches(None))] == [("u:0", "i:0"), ("u:1", "i:0")]
    assert not any("--bipartite" in note for note in apart.notes)


def test_progress_reaches_the_size_of_the_files(tmp_path: Path) -> None:
    write(tmp_path, "a.txt", EDGES)
    write(tmp_path, "b.txt.gz", gzip.compress(EDGES.encode()))
    seen: list[tuple[int, int]] = []
    list(FileSource(tmp_path, on_progress=lambda done, total: seen.append((done, total))).batches(None))
    total = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert seen == sorted(seen)
    assert seen[-1] == (total, total)


@pytest.mark.parametrize(
    ("name", "events", "nodes"),
    [
        ("sx-mathoverflow", 506_550, 24_818),
        ("CollegeMsg", 59_835, 1_899),
        ("email-Eu-core-temporal", 332_334, 986),
        ("jodie-wikipedia", 157_474, 9_227),
        ("bitcoin-otc", 35_592, 5_881),
        ("digg-reply", 87_627, 30_398),
        ("reality-call", 52_050, 6_809),
        ("wiki-elec", 107_071, 7_118),
        ("retweet-pol", 61_157, 18_470),
    ],
)
def test_public_logs_are_read_without_a_flag(data_dir: Path, name: str, events: int, nodes: int) -> None:
    found = 0
    names: set[int] = set()
    last_us = 0
    for batch in FileSource(data_dir / name, max_rows_in_memory=100_000).batches(None):
        assert batch.rejected == 0
        found += len(batch.events)
        names.update(batch.events.src.tolist(), batch.events.dst.tolist())
        ts_us = batch.events.ts_us
        assert last_us <= ts_us[0]
        assert (ts_us[1:] >= ts_us[:-1]).all()
        last_us = int(ts_us[-1])
    assert (found, len(names)) == (events, nodes)


def test_as_many_rejects_of_a_file_are_kept_as_the_settings_say(tmp_path: Path) -> None:
    path = write(tmp_path, "log", "1 2 3\n" + "x\n" * 300)
    settings = Settings.model_validate({"ingest": {"keep_rejects": 250}})
    with progress("test") as report:
        for follow in (False, True):
            batch = next(_source(path, DecodeOptions(), settings, report, follow=follow).batches(None))
            assert (batch.rejected, len(batch.rejects)) == (300, 250)


def test_the_rejects_of_a_folder_are_no_more_than_those_of_a_file(tmp_path: Path) -> None:
    for name in ("a.log", "b.log"):
        write(tmp_path, name, "1 2 3\n" + "x\n" * 20)
    batch = next(FileSource(tmp_path, DecodeOptions(reject_sample=30)).batches(None))
    assert (batch.rejected, len(batch.rejects)) == (40, 30)
