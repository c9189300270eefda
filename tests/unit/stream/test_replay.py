from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import GraphtideError
from infra.steps import SECOND_US
from stream.decoders.builder import DecodeOptions
from stream.decoders.records.base import Record
from stream.decoders.records.formats import record_decoder
from stream.encoders import Encoded, event_encoder
from stream.events import Event, EventBatch, Interner, Reject
from stream.replay import Replayed, ReplayOptions, numbered, replay
from stream.replay_sinks import KafkaSink, LineSink
from stream.sources.base import Position, SourceBatch
from stream.sources.files import FileSource


@dataclass
class Log:
    events: list[Event]
    name: str = "log:1"
    cut: int = 3

    def batches(self, resume_after: Position | None) -> Iterator[SourceBatch]:
        assert resume_after is None
        interner = Interner()
        for begin in range(0, max(len(self.events), 1), self.cut):
            batch = EventBatch.from_events(self.events[begin : begin + self.cut], interner)
            yield SourceBatch(batch, {"row": begin}, end=begin + self.cut >= len(self.events))


@dataclass
class Wall:
    """A clock that only sleeping moves; `cost_s` is what each send takes."""

    now_s: float = 100.0
    slept: list[float] = field(default_factory=list)

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        assert 0 < seconds <= 0.2
        self.slept.append(seconds)
        self.now_s += seconds


@dataclass
class Place:
    wall: Wall
    cost_s: float = 0.0
    sent: list[tuple[bytes, Encoded, float]] = field(default_factory=list)
    flushed: int = 0

    def send(self, key: bytes, record: Encoded) -> None:
        self.sent.append((key, record, self.wall.now_s))
        self.wall.now_s += self.cost_s

    def flush(self) -> None:
        self.flushed = len(self.sent)

    def events(self) -> list[list[Event]]:
        decoder = record_decoder(DecodeOptions(format="ndjson"), interner=Interner())
        return [list(decoder.decode([Record(record.value)]).events) for _, record, _ in self.sent]


def log_of(*seconds: float, graph: str = "g") -> list[Event]:
    return [Event(f"u{at}", "v", int(s * SECOND_US), graph=graph, id=f"e{at}") for at, s in enumerate(seconds)]


def play(log: Log, place: Place, stop=lambda: False, **options: object) -> Replayed:  # type: ignore[no-untyped-def]
    return replay(
        log,
        event_encoder("ndjson"),
        place,
        ReplayOptions(**options),  # type: ignore[arg-type]
        stop=stop,
        clock=place.wall.clock,
        sleep=place.wall.sleep,
        now_us=lambda: 5_000 * SECOND_US,
    )


@pytest.mark.parametrize(("speed", "scale"), [(1.0, 1.0), (3600.0, 1 / 3600), (0.5, 2.0)])
def test_events_are_sent_when_they_are_due(speed: float, scale: float) -> None:
    place = Place(Wall())
    times = [1000.0, 1000.0, 1030.0, 1100.0, 4600.0]
    done = play(Log(log_of(*times)), place, speed=speed)
    due = [100.0 + (each - 1000.0) * scale for each in times]
    assert [at for *_, at in place.sent] == pytest.approx(due, abs=0.0021)
    assert (done.events, done.records, done.stopped) == (5, 5, False)
    assert done.seconds == pytest.approx(3600.0 * scale, abs=0.0021)
    assert (done.first_us, done.last_us) == (1000 * SECOND_US, 4600 * SECOND_US)


def test_at_full_speed_nothing_waits() -> None:
    place = Place(Wall())
    play(Log(log_of(0, 10**6, 10**9)), place, speed=None)
    assert place.wall.slept == []
    assert place.flushed == 3


def test_who_falls_behind_sends_everything_and_catches_up() -> None:
    place = Place(Wall(), cost_s=3.0)
    done = play(Log(log_of(0, 1, 2, 20, 21)), place, speed=1.0)
    assert [at - 100.0 for *_, at in place.sent] == pytest.approx([0.0, 3.0, 6.0, 20.0, 23.0], abs=0.0021)
    assert done.events == 5


def test_a_batch_is_sent_before_a_pause_and_flushed() -> None:
    place = Place(Wall())
    flushed: list[int] = []

    def sleep(seconds: float) -> None:
        flushed.append(place.flushed)
        Wall.sleep(place.wall, seconds)

    place.wall.sleep = sleep  # type: ignore[method-assign]
    play(Log(log_of(0, 0, 0, 10, 10, 10, 10)), place, speed=1.0, batch=3)
    assert [len(events) for events in place.events()] == [3, 3, 1]
    assert set(flushed) == {1}
    assert place.flushed == 3


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 50)), max_size=40),
    st.integers(1, 7),
    st.sampled_from(["graph", "src"]),
    st.integers(0, 10),
    st.none() | st.integers(1, 20),
)
def test_records_hold_each_event_once_by_key_in_order(
    drawn: list[tuple[str, int]], batch: int, key: str, skip: int, limit: int | None
) -> None:
    drawn.sort(key=lambda each: each[1])
    log = [Event(f"u{name}", "v", second * SECOND_US, graph=name) for name, second in drawn]
    place = Place(Wall())
    done = play(Log(log), place, speed=None, batch=batch, key=key, skip=skip, limit=limit)
    wanted = list(numbered(Log(log)))[skip : None if limit is None else skip + limit]
    records = place.events()
    assert sorted(e.id or "" for events in records for e in events) == sorted(e.id or "" for e in wanted)
    disorder = 0
    reached = 0
    for (name, *_), events in zip(place.sent, records, strict=True):
        assert {(e.graph if key == "graph" else e.src).encode() for e in events} == {name}
        assert 0 < len(events) <= batch
        for event in events:
            disorder = max(disorder, reached - event.ts_us)
            reached = max(reached, event.ts_us)
    for name in {e.graph for e in wanted}:
        sent = [e for events in records for e in events if e.graph == name]
        assert sent == [e for e in wanted if e.graph == name]
    assert done.disorder_us == disorder
    assert (done.events, done.records) == (len(wanted), len(records))
    if batch == 1:
        assert [e for events in records for e in events] == wanted


def test_ids_are_the_same_in_each_replay_and_own_ids_stay() -> None:
    events = [Event("a", "b", at, id="own" if at == 2 else None) for at in range(6)]
    whole = list(numbered(Log(events)))
    assert whole == list(numbered(Log(events, cut=4)))
    assert whole[2].id == "own"
    assert len({event.id for event in whole}) == 6
    assert list(numbered(Log(events), skip=3)) == whole[3:]
    assert list(numbered(Log(events), skip=3, limit=2)) == whole[3:5]
    assert {e.id for e in numbered(Log(events, name="log:2"))} & {e.id for e in whole} == {"own"}


def test_events_of_no_graph_share_a_key() -> None:
    place = Place(Wall())
    play(Log(log_of(1, 2, graph="")), place, speed=None)
    assert [key for key, *_ in place.sent] == [b"default", b"default"]


def test_rejects_are_told_also_where_their_batch_is_skipped() -> None:
    class Damaged(Log):
        def batches(self, resume_after: Position | None) -> Iterator[SourceBatch]:
            for at, batch in enumerate(super().batches(resume_after)):
                yield replace(batch, rejected=2, rejects=[Reject(f"log:{at}", "{}", "src is missing")])

    done = play(Damaged(log_of(*range(6))), Place(Wall()), speed=None, skip=4)
    assert (done.events, done.rejected) == (2, 4)
    assert [reject.place for reject in done.rejects] == ["log:0", "log:1"]


def test_times_can_be_shifted_to_now() -> None:
    place = Place(Wall())
    done = play(Log(log_of(7, 9, 12)), place, speed=None, shift_to_now=True, skip=1)
    assert [event.ts_us // SECOND_US for [event] in place.events()] == [5000, 5003]
    assert done.first_us == 5000 * SECOND_US


def test_stopped_is_consistent_and_goes_on_with_skip() -> None:
    log = Log(log_of(*range(20)))
    place = Place(Wall())
    done = play(log, place, speed=1.0, batch=4, stop=lambda: place.wall.now_s > 107.5)
    assert done.stopped
    assert 0 < done.events < 20
    assert place.flushed == len(place.sent)
    rest = Place(Wall())
    assert not play(log, rest, speed=None, skip=done.events).stopped
    assert [e for r in place.events() + rest.events() for e in r] == log.events


def test_an_empty_log_sends_nothing() -> None:
    place = Place(Wall())
    assert play(Log([]), place, speed=1.0).events == 0


def test_progress_is_told_while_waiting() -> None:
    told: list[Replayed] = []
    wall = Wall()
    replay(
        Log(log_of(0, 60)),
        event_encoder("json"),
        Place(wall),
        ReplayOptions(),
        on_progress=told.append,
        clock=wall.clock,
        sleep=wall.sleep,
    )
    assert len(told) > 50
    assert told[-1].events == 2
    assert told[-1].events_per_s == pytest.approx(2 / 60, rel=0.01)


def test_a_written_file_is_the_log_again(tmp_path: Path) -> None:
    events = [Event(f"u{at % 5}", "v", at // 2, type="t", weight=0.5) for at in range(50)]
    path = tmp_path / "log.ndjson"
    with path.open("wb") as file:
        replay(Log(events), event_encoder("ndjson"), LineSink(file, "log"), ReplayOptions(speed=None, batch=8))
    read = [event for batch in FileSource(path).batches(None) for event in batch.events]
    assert read == list(numbered(Log(events)))


def test_a_full_disk_is_an_error_for_the_user() -> None:
    with Path("/dev/full").open("wb", buffering=0) as file, pytest.raises(GraphtideError, match="No space left"):
        LineSink(file, "out").send(b"", Encoded(b"x"))


def test_records_to_kafka_have_no_time_of_their_own() -> None:
    # Retention goes by it: an old log would be deleted as soon as it has come.
    calls: list[tuple[object, ...]] = []

    class Sender:
        def send(self, *args: object, **named: object) -> None:
            calls.append((*args, *sorted(named.items())))

        def flush(self) -> None:
            calls.append(())

    sink = KafkaSink(Sender(), "t")
    sink.send(b"g", Encoded(b"v", (("h", b"1"),)))
    sink.flush()
    assert calls == [("t", b"v", ("headers", (("h", b"1"),)), ("key", b"g")), ()]
