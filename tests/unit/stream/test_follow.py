"""Following a file: however it grows, and wherever reading is broken off, every complete line counts once."""

import gzip
import tempfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import InputError, UsageError
from stream.decoders.builder import DecodeOptions
from stream.events import Event
from stream.sources.base import Position, ReadBefore, SourceBatch
from stream.sources.files import FileSource
from stream.sources.follow import FollowSource
from tests.unit.stream.log_cases import as_edges, as_ndjson, as_table, events_of, full_events, plain_events, write

Step = Callable[[], object]


class Growing:
    """Runs one step at each poll instead of waiting, and stops the source when there are none left."""

    def __init__(self, steps: list[Step]) -> None:
        self._steps = iter(steps)
        self.stopped = False

    def sleep(self, seconds: float) -> None:
        assert seconds == 0.5
        step = next(self._steps, None)
        if step is None:
            self.stopped = True
        else:
            step()

    def source(
        self, path: Path, options: DecodeOptions | None = None, *, restart: bool = False, block: int = 1 << 20
    ) -> FollowSource:
        return FollowSource(
            path,
            options,
            poll_interval_s=0.5,
            stop=lambda: self.stopped,
            restart_if_replaced=restart,
            block_bytes=block,
            sleep=self.sleep,
        )


def append(path: Path, data: bytes) -> Step:
    def step() -> None:
        with path.open("ab") as file:
            file.write(data)

    return step


def follow(
    path: Path, steps: list[Step], resume_after: Position | None = None, **options: object
) -> Iterator[SourceBatch]:
    return Growing(steps).source(path, **options).batches(resume_after)  # type: ignore[arg-type]


def _nanoseconds(events: list[Event]) -> bytes:
    return "".join(f"{e.src} {e.dst} {e.ts_us * 1000}\n" for e in events).encode()


# The events, their text, and whether it has a header.
_logs: st.SearchStrategy[tuple[list[Event], bytes, bool]] = st.one_of(
    st.lists(full_events(), min_size=1, max_size=6).flatmap(
        lambda events: st.sampled_from(
            [
                (events, as_ndjson(events), False),
                (events, as_table(events), True),
                (events, as_table(events, "\t", "\r\n"), True),
            ]
        )
    ),
    # Beyond what reads as microseconds, so that the unit is always told.
    st.lists(plain_events().filter(lambda event: event.ts_us > 10**13), min_size=1, max_size=6)
    .map(lambda events: [Event(e.src, e.dst, e.ts_us) for e in events])
    .map(lambda events: (events, _nanoseconds(events), False)),
)


@given(log=_logs, cuts=st.lists(st.integers(0, 2000), max_size=6), block=st.integers(1, 300))
def test_a_file_that_grows_in_pieces_gives_what_it_holds(
    log: tuple[list[Event], bytes, bool], cuts: list[int], block: int
) -> None:
    events, data, _ = log
    edges = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), "log", b"")
        steps = [append(path, data[begin:end]) for begin, end in pairwise(edges)]
        batches = list(follow(path, steps, block=block))
    assert events_of(batches) == events
    assert not any(batch.end for batch in batches)
    assert batches[-1].position["byte"] == len(data)
    assert batches[-1].position["line"] == data.count(b"\n") + 1


@given(log=_logs, cuts=st.lists(st.integers(0, 2000), max_size=4), block=st.integers(1, 300), data=st.data())
def test_reading_goes_on_where_it_was_broken_off(
    log: tuple[list[Event], bytes, bool], cuts: list[int], block: int, data: st.DataObject
) -> None:
    events, whole, has_header = log
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), "log", whole)
        batches = list(follow(path, [], block=block))
        cut = data.draw(st.integers(0, len(batches) - 1))
        append(path, whole[whole.index(b"\n") + 1 :] if has_header else whole)()
        rest = list(follow(path, [], batches[cut].position, block=data.draw(st.integers(1, 300))))
    assert events_of(batches[: cut + 1]) + events_of(rest) == events + events


def test_only_complete_lines_are_read_and_the_rest_is_said(tmp_path: Path) -> None:
    path = write(tmp_path, "log", "1 2 3\n4 5 6")
    growing = Growing([])
    source = growing.source(path)
    assert events_of(source.batches(None)) == [Event("1", "2", 3_000_000)]
    assert any("unfinished last line was left, 5 bytes" in note for note in source.notes)
    assert any("edge list" in note for note in source.notes)


def test_an_open_quote_holds_nothing_back_for_long(tmp_path: Path) -> None:
    path = write(tmp_path, "log", 'src,dst,ts\na,"b,1\n')
    growing = Growing([append(path, b"c,d,%d\n" % ts) for ts in range(50)])
    source = growing.source(path)
    batches = list(source.batches(None))
    assert [event.ts_us for event in events_of(batches)] == [ts * 1_000_000 for ts in range(50)]
    assert [reject.place for batch in batches for reject in batch.rejects] == [f"{path}:2"]
    assert len(batches) > 35  # from the tenth record on each comes as it is written
    assert not any("left" in note for note in source.notes)


def test_what_an_open_quote_holds_back_is_said_when_reading_is_broken_off(tmp_path: Path) -> None:
    path = write(tmp_path, "log", 'src,dst,ts\na,b,1\n"c,d,2\ne,f,3\n')

    def interrupt() -> None:
        raise KeyboardInterrupt

    source = Growing([interrupt]).source(path)
    batches = source.batches(None)
    assert len(next(batches).events) == 1
    with pytest.raises(KeyboardInterrupt):
        next(batches)
    assert source.notes[-1] == f"{path}:3: a record whose quote is not closed yet was left, 13 bytes"


def test_rejects_come_once_with_their_lines(tmp_path: Path) -> None:
    path = write(tmp_path, "log", "1 2 3\nx\n")
    steps = [append(path, b"y\n4 5 6\n"), append(path, b"z\n")]
    batches = list(follow(path, steps))
    assert [batch.rejected for batch in batches] == [1, 1, 1]
    assert [reject.place for batch in batches for reject in batch.rejects] == [f"{path}:{line}" for line in (2, 3, 5)]
    (again,) = follow(path, [], batches[1].position)
    assert [reject.place for reject in again.rejects] == [f"{path}:5"]


def test_idle_polls_yield_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, "log", "")
    nothing: Step = lambda: None  # noqa: E731
    assert len(list(follow(path, [nothing, nothing, append(path, b"1 2 3\n"), nothing, nothing]))) == 1


def test_the_unit_is_kept_over_a_resume(tmp_path: Path) -> None:
    path = write(tmp_path, "log", "1 2 1289241911728\n")
    (first,) = follow(path, [])
    assert first.position["time_unit"] == "ms"
    append(path, b"1 2 1289241911\n1 2 1289241911729\n")()
    (rest,) = follow(path, [], first.position)
    assert [event.ts_us for event in rest.events] == [1289241911729000]
    assert rest.rejected == 1


@pytest.mark.parametrize("resumed", [False, True])
def test_a_number_too_small_to_tell_settles_no_unit(tmp_path: Path, resumed: bool) -> None:
    path = write(tmp_path, "log", '{"src":"a","dst":"b","ts":0}\n')
    line = b'{"src":"a","dst":"b","ts":%d}\n'
    more = [append(path, line % (1289241911728 + at)) for at in range(3)]
    position = None
    if resumed:
        (first,) = follow(path, [])
        position = first.position
        assert position["time_unit"] == "auto"
    source = Growing(more).source(path)
    batches = list(source.batches(position))
    times = [event.ts_us for event in events_of(batches)]
    assert times[-3:] == [(1289241911728 + at) * 1000 for at in range(3)]
    assert sum(batch.rejected for batch in batches) == 0
    assert batches[-1].position["time_unit"] == "ms"
    assert any("times are in milliseconds" in note for note in source.notes)


def test_a_log_that_counts_from_its_own_start_stays_in_seconds(tmp_path: Path) -> None:
    path = write(tmp_path, "log", "1 2 0\n")
    steps = [append(path, b"1 2 %d\n" % ts) for ts in (*range(30), 1289241911728, 69_000_000)]
    batches = list(follow(path, steps))
    assert [event.ts_us for event in events_of(batches)][-1] == 69_000_000_000_000
    assert [reject.record for batch in batches for reject in batch.rejects] == ["1 2 1289241911728"]
    assert batches[-1].position["time_unit"] == "s"


def test_a_log_of_dates_stays_one_over_a_resume(tmp_path: Path) -> None:
    path = write(tmp_path, "log", "1 2 2024-01-31\n")
    (first,) = follow(path, [])
    append(path, b"1 2 20240201\n")()
    (rest,) = follow(path, [], first.position)
    assert [event.ts_us for event in rest.events] == [1_706_745_600_000_000]


def rotated(path: Path, data: bytes) -> Step:
    def step() -> None:
        path.rename(path.with_suffix(".1"))
        path.write_bytes(data)

    return step


def cut_and_written(path: Path, data: bytes) -> Step:
    def step() -> None:
        with path.open("r+b") as file:
            file.truncate(0)
            file.write(data)

    return step


@pytest.mark.parametrize("replace", [rotated, cut_and_written])
@pytest.mark.parametrize("data", [b"", b"7 8 9\n", b"7 8 9\n" * 100])
def test_a_replaced_file_is_an_error(tmp_path: Path, replace: Callable[[Path, bytes], Step], data: bytes) -> None:
    path = write(tmp_path, "log", "1 2 3\n4 5 6\n")
    batches = follow(path, [replace(path, data)])
    first = next(batches)
    with pytest.raises(InputError, match="was replaced or cut") as failure:
        next(batches)
    assert "--restart-if-replaced" in str(failure.value.fix)
    with pytest.raises(InputError, match="was replaced or cut"):
        next(follow(path, [], first.position))


@pytest.mark.parametrize("replace", [rotated, cut_and_written])
def test_a_replaced_file_is_begun_anew_where_that_is_wanted(
    tmp_path: Path, replace: Callable[[Path, bytes], Step]
) -> None:
    path = write(tmp_path, "log", "1 2 3\n")
    first, second = follow(path, [replace(path, b"src,dst,ts\n7,8,9\n")], restart=True)
    assert [event.src for event in (*first.events, *second.events)] == ["1", "7"]
    (again,) = follow(path, [], first.position, restart=True)
    assert [event.src for event in again.events] == ["7"]
    assert again.position == second.position


def test_what_was_written_before_a_rotation_is_still_read(tmp_path: Path) -> None:
    path = write(tmp_path, "log", "1 2 3\n")

    def grow_and_rotate() -> None:
        append(path, b"4 5 6\n")()
        rotated(path, b"7 8 9\n")()

    assert [e.src for e in events_of(follow(path, [grow_and_rotate], restart=True))] == ["1", "4", "7"]


def test_a_file_that_vanishes_for_a_moment(tmp_path: Path) -> None:
    path = write(tmp_path, "log", "1 2 3\n")
    steps: list[Step] = [lambda: path.rename(tmp_path / "old"), lambda: path.write_bytes(b"7 8 9\n")]
    assert [e.src for e in events_of(follow(path, steps, restart=True))] == ["1", "7"]
    path.unlink()
    path.write_bytes(b"1 2 3\n")
    assert [e.src for e in events_of(follow(path, [path.unlink], restart=True))] == ["1"]


@pytest.mark.parametrize("create", [False, True], ids=["nothing", "empty"])
def test_what_the_writer_adds_to_the_old_file_is_read_until_the_new_one_has_bytes(tmp_path: Path, create: bool) -> None:
    path, old = write(tmp_path, "log", "1 2 3\n"), tmp_path / "log.1"

    def rotate() -> None:
        path.rename(old)
        if create:
            path.write_bytes(b"")

    def write_both() -> None:
        append(old, b"6 2 3\n7 2")()
        append(path, b"8 2 3\n")()

    # What comes to the old file once the new one is read is not.
    steps = [rotate, append(old, b"4 2 3\n5 2"), append(old, b" 3\n"), write_both, append(old, b" 3\n")]
    source = Growing(steps).source(path, restart=True)
    batches = list(source.batches(None))
    assert [event.src for event in events_of(batches)] == ["1", "4", "5", "6", "8"]
    assert f"{path}: an unfinished last line was left, 3 bytes" in source.notes


def test_a_file_that_was_cut_is_begun_anew_even_if_it_grows_to_what_it_was(tmp_path: Path) -> None:
    path = write(tmp_path, "log", "1 2 3\n")
    steps = [cut_and_written(path, b""), append(path, b"1 2 3\n4 5 6\n")]
    assert [event.src for event in events_of(follow(path, steps, restart=True))] == ["1", "1", "4"]


def backfill_after(path: Path, position: Position) -> None:
    """Look whether a file may be backfilled that `log` in its folder was followed before, up to a position."""
    before = ReadBefore(f"follow:{path.parent / 'log'}", ended=False, position=position)
    FileSource(path, may_be_late=True).goes_on([before])


@pytest.mark.parametrize("resumed", [False, True])
def test_a_rotated_file_is_known_however_often_the_log_was_replaced(tmp_path: Path, resumed: bool) -> None:
    path = write(tmp_path, "log", "1 2 3\n")
    unread = write(tmp_path, "unread", "9 2 3\n")

    def rotate(number: int) -> None:
        path.rename(tmp_path / f"log-{number}")
        append(path, b"%d 2 3\n" % number)()

    position: Position | None = None
    if resumed:
        for number in range(2, 5):
            (batch,) = follow(path, [], position, restart=True)
            position = batch.position
            rotate(number)
        (batch,) = follow(path, [], position, restart=True)
    else:
        *_, batch = follow(path, [lambda number=number: rotate(number) for number in range(2, 5)], restart=True)
    # It is still known after the log was gone on with as it is.
    append(path, b"4 2 4\n")()
    (batch,) = follow(path, [], batch.position)
    append(tmp_path / "log-3", b"2 2 4\n")()
    for old in (path, *(tmp_path / f"log-{number}" for number in range(2, 5))):
        with pytest.raises(InputError, match=r"was read before with --follow, up to byte (6|12),") as failure:
            backfill_after(old, batch.position)
        assert ("go on with --follow" in str(failure.value.fix)) == (old == path)
    backfill_after(unread, batch.position)


def test_a_position_without_earlier_files_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, "log", "1 2 3\n")
    (batch,) = follow(path, [])
    assert "earlier" not in batch.position
    with pytest.raises(InputError, match="was read before with --follow"):
        backfill_after(path, batch.position)


def test_the_oldest_of_very_many_rotated_files_is_forgotten(tmp_path: Path) -> None:
    path = write(tmp_path, "log", "0 2 3\n")

    def rotate(number: int) -> None:
        path.rename(tmp_path / f"log-{number}")
        append(path, b"%d 2 3\n" % number)()

    # The log that is read and 200 before it.
    *_, batch = follow(path, [lambda number=number: rotate(number) for number in range(1, 202)], restart=True)
    assert len(str(batch.position["earlier"])) < 20_000
    backfill_after(tmp_path / "log-1", batch.position)
    with pytest.raises(InputError, match="was read before with --follow"):
        backfill_after(tmp_path / "log-2", batch.position)


def test_strict_stops_at_the_first_bad_line(tmp_path: Path) -> None:
    path = write(tmp_path, "log", "1 2 3\n")
    batches = follow(path, [append(path, b"1 2 x\n")], options=DecodeOptions(strict=True))
    assert len(next(batches).events) == 1
    with pytest.raises(InputError) as failure:
        next(batches)
    assert failure.value.place == f"{path}:2"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (gzip.compress(as_edges([Event("a", "b", 1)]), mtime=0), r"is compressed \(gz\)"),
        (b"PK\x03\x04...", r"is compressed \(zip\)"),
        (b'[{"src": "a"},\n', "JSON documents, which cannot be followed"),
    ],
)
def test_what_cannot_be_followed_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = write(tmp_path, "log", data)
    with pytest.raises(UsageError, match=message):
        next(follow(path, []))


def test_folders_missing_files_and_wrong_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        next(follow(tmp_path, []))
    with pytest.raises(InputError, match="no such file"):
        next(follow(tmp_path / "log", []))
    with pytest.raises(UsageError, match="cannot be followed"):
        FollowSource(tmp_path / "log", DecodeOptions(format="json"))
    path = write(tmp_path, "log", "1 2 3\n")
    with pytest.raises(InputError, match="another kind of position"):
        next(follow(path, [], {"mode": "sorted", "row": 1}))


def test_the_name_is_the_resolved_path(tmp_path: Path) -> None:
    path = write(tmp_path, "log", "")
    (tmp_path / "link").symlink_to(path)
    name = f"follow:{path.resolve()}"
    assert FollowSource(tmp_path / "link").name == name
    assert FollowSource(path, DecodeOptions(graph="g")).name == f"{name}#graph=g"
