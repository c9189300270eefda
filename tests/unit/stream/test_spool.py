"""The spool: what is acknowledged is kept, once, and drained into the store in order."""

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import InputError, StoreError
from infra.steps import HOUR_US
from stream.closing import Limits
from stream.events import Event, Interner
from stream.sources.base import Position
from stream.spool.file import KeyReusedError, Receipt, Spool, SpoolFullError
from stream.spool.records import Request, SpoolDecoder, split_records
from stream.spool.source import SpoolSource
from stream.store import open_dead_letters, open_reader
from tests.unit.stream.ingest_cases import ListSource, ingest_list, query


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with Spool(tmp_path / "spool.db") as spool:
        yield spool


def put(spool: Spool, *records: bytes, graph: str = "g", key: str | None = None, max_bytes: int = 1 << 20) -> Receipt:
    digest = graph.encode() + b"|".join(records)
    return spool.append(
        graph, records, b"reply %d" % len(records), owner="me", idempotency_key=key, digest=digest, max_bytes=max_bytes
    )


def event(hour: float, src: str = "a", dst: str = "b", **more: object) -> bytes:
    return msgspec.json.encode({"src": src, "dst": dst, "ts": int(hour * 3600), **more})


def drain(spool: Spool, store: Path, **options: object) -> None:
    ingest_list(SpoolSource(spool, follow=False, batch_records=3), store, **options)


@pytest.mark.parametrize(
    ("body", "records"),
    [
        (b'[{"a": 1},\n {"b": [1, 2]}, 3]', [b'{"a": 1}', b'{"b": [1, 2]}', b"3"]),
        (b'{"a": 1}\r\n\n  {"b": 2}\nno json\n', [b'{"a": 1}', b'{"b": 2}', b"no json"]),
        (b'{\n "a": 1\n}\n', [b'{\n "a": 1\n}']),
        (b'\xef\xbb\xbf{"a": 1}', [b'{"a": 1}']),
        (b"[]", []),
        (b" \n", []),
    ],
)
def test_bodies_are_cut_into_their_records(body: bytes, records: list[bytes]) -> None:
    assert split_records(body) == records


@pytest.mark.parametrize("body", [b"[1, 2", b'[{"a": }]', b"[1] 2"])
def test_an_array_that_is_none_is_refused_as_a_whole(body: bytes) -> None:
    with pytest.raises(ValueError, match="array"):
        split_records(body)


DEEP = b'{"src": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.mark.parametrize("body", [b"[" + DEEP + b"]", b"[" * 100_000])
def test_an_array_that_is_nested_too_deeply_is_refused_as_a_whole(body: bytes) -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        split_records(body)


def test_a_line_that_is_nested_too_deeply_is_one_bad_record() -> None:
    for lines in ([DEEP, event(1)], [event(1), DEEP], [DEEP]):
        records = split_records(b"\n".join(lines))
        assert records == lines
        _, decoded = SpoolDecoder(Interner()).decode([Request(1, "g", tuple(records), 0)])
        assert [bad.record for bad in decoded.bad] == [lines.index(DEEP)]
        assert "nested too deeply" in decoded.bad[0].reason


@given(st.binary(max_size=60))
def test_any_body_is_cut_or_refused(body: bytes) -> None:
    try:
        records = split_records(body)
    except ValueError:
        return
    SpoolDecoder(Interner()).decode([Request(1, "g", tuple(records), 0)])


def test_events_of_another_graph_than_the_requests_are_bad() -> None:
    requests = [
        Request(1, "g", (event(1), event(1, graph="h"), event(1, graph="g")), 0),
        Request(2, "h", (event(2, graph="h"), b"[1]"), 0),
    ]
    records, decoded = SpoolDecoder(Interner()).decode(requests)
    assert len(records) == 5
    assert [(one.graph, one.ts_us) for one in decoded.events] == [("g", HOUR_US), ("g", HOUR_US), ("h", 2 * HOUR_US)]
    assert decoded.record.tolist() == [0, 2, 3]
    assert [bad.record for bad in decoded.bad] == [1, 4]
    assert "graph 'h' is not 'g'" in decoded.bad[0].reason


def test_a_request_with_a_key_is_kept_once(spool: Spool) -> None:
    assert put(spool, event(1), key="k") == Receipt(b"reply 1", is_new=True)
    assert put(spool, event(1), key="k") == Receipt(b"reply 1", is_new=False)
    with pytest.raises(KeyReusedError):
        put(spool, event(2), key="k")
    assert len(spool.waiting(0, 10)) == 1
    spool.drained(1, keep_s=60)
    assert put(spool, event(1), key="k").is_new is False
    spool.drained(1, keep_s=-1)
    assert put(spool, event(1), key="k").is_new is True


def test_answers_that_are_kept_make_no_commit_dearer(spool: Spool) -> None:
    def cost() -> int:
        put(spool, event(1), key="last")
        ticks = []
        spool._connection.set_progress_handler(lambda: ticks.append(1), 10)
        spool.drained(spool.waiting(0, 10)[-1].number, keep_s=60)
        spool._connection.set_progress_handler(None, 10)
        spool.drained(0, keep_s=-1)
        return len(ticks)

    alone = cost()
    for number in range(500):
        put(spool, event(1), key=f"k{number}")
    spool.drained(1000, keep_s=60)
    assert cost() < alone + 20


def test_numbers_are_never_given_twice(spool: Spool) -> None:
    put(spool, event(1))
    spool.drained(1, keep_s=0)
    put(spool, event(2))
    assert [request.number for request in spool.waiting(0, 10)] == [2]


def test_what_is_drained_makes_room(spool: Spool) -> None:
    for _ in range(2):
        put(spool, event(1), max_bytes=100)
    with pytest.raises(SpoolFullError) as full:
        put(spool, event(1), max_bytes=100)
    assert not full.value.on_disk
    spool.drained(1, keep_s=0)
    put(spool, event(1), max_bytes=100)
    assert [request.number for request in spool.waiting(0, 10)] == [2, 3]


def test_a_full_disk_leaves_nothing_half_written(spool: Spool, tmp_path: Path) -> None:
    put(spool, event(1))
    pages = spool._connection.execute("PRAGMA page_count").fetchone()[0]
    spool._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    before = query(tmp_path / "spool.db", "SELECT * FROM requests"), query(tmp_path / "spool.db", "SELECT * FROM spool")
    with pytest.raises(SpoolFullError) as full:
        put(spool, b"x" * 100_000)
    assert full.value.on_disk
    after = query(tmp_path / "spool.db", "SELECT * FROM requests"), query(tmp_path / "spool.db", "SELECT * FROM spool")
    assert after == before
    spool._connection.execute("PRAGMA max_page_count = 100000")
    put(spool, b"x" * 100_000)


def test_a_file_of_others_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE notes (text)")
    (tmp_path / "text").write_text("no database " * 100)
    for name in ("other.db", "text"):
        with pytest.raises(StoreError, match="spool"):
            Spool(tmp_path / name)


def test_it_is_drained_with_its_dead_letters_and_goes_on(spool: Spool, tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    put(spool, event(1), b"no json", event(2))
    put(spool, event(3, graph="h"), event(3))
    drain(spool, store)
    drain(spool, store)
    put(spool, event(4), graph="h")
    put(spool, event(5))
    drain(spool, store)
    # The other graph is at 4: the step of 4 waits for it, and no event of it was late.
    with open_reader(f"sqlite:///{store}") as reader:
        assert reader.snapshots("g", metrics=("events",)).values[:, 0].tolist() == [1, 1, 1]
        assert [(info.name, info.late) for info in reader.graphs()] == [("g", 0), ("h", 0)]
    with open_dead_letters(f"sqlite:///{store}") as letters:
        found = letters.letters(limit=10)
    places = [(one.record.topic, one.record.partition, one.record.offset, one.record.value) for one in found]
    assert places == [("g", 1, 1, b"no json"), ("g", 2, 0, event(3, graph="h"))]
    assert spool.waiting(0, 100) == []


def test_a_graph_of_others_and_a_stray_time_hold_up_nobody(spool: Spool, tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    town = [Event("a", "b", int(9 * HOUR_US), graph="town")]
    ingest_list(ListSource([("", town)], name="follow:town", bounded=False), store)
    put(spool, event(0), event(9), event(10))
    put(spool, event(9), graph="town")
    put(spool, event(11))
    drain(spool, store, max_ahead_us=HOUR_US, limits=Limits(max_empty_steps=5))
    with open_dead_letters(f"sqlite:///{store}") as letters:
        found = letters.letters(limit=10)
    assert sorted((one.record.topic, one.record.value, one.reason.split(":")[0]) for one in found) == [
        ("g", event(0), "stray"),
        ("town", event(9), "foreign"),
    ]
    with open_reader(f"sqlite:///{store}") as reader:
        assert reader.snapshots("g", metrics=("events",)).values[:, 0].tolist() == [1]
    assert spool.waiting(0, 100) == []


def test_a_graph_that_falls_silent_holds_nothing_back_for_ever(spool: Spool, tmp_path: Path) -> None:
    now_s = 0.0
    looks = 0

    def sleep(seconds: float) -> None:
        nonlocal now_s, looks
        now_s, looks = now_s + seconds, looks + 1
        if looks == 5:
            put(spool, event(9))

    put(spool, event(1), graph="h")
    put(spool, event(1))
    source = SpoolSource(
        spool,
        follow=True,
        idle_timeout_s=30,
        poll_interval_s=10,
        stop=lambda: looks > 8,
        sleep=sleep,
        clock_s=lambda: now_s,
    )
    ingest_list(source, tmp_path / "store.db")
    with open_reader(f"sqlite:///{tmp_path / 'store.db'}") as reader:
        assert [info.snapshots for info in reader.graphs()] == [8, 8]


def test_another_spool_at_the_same_place_is_read_from_its_beginning(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    for hour in (1, 5):
        with Spool(tmp_path / "spool.db") as spool:
            put(spool, event(hour), graph=f"g{hour}")
            drain(spool, store)
        (tmp_path / "spool.db").unlink()
    assert [row[0] for row in query(store, "SELECT name FROM graphs ORDER BY name")] == ["g1", "g5"]


def test_a_position_of_another_kind_is_refused(spool: Spool) -> None:
    class Strange:
        def announce(self, partitions: Sequence[str]) -> None:
            pass

        def claim(self, partitions: Sequence[str]) -> dict[str, Position | None]:
            return {name: {"byte": 7} for name in partitions}

        def release(self, partitions: Sequence[str]) -> None: ...

    with pytest.raises(InputError, match="another kind of position"):
        next(SpoolSource(spool, follow=False).batches(Strange()))
