"""The projector: all that the outbox lists reaches InfluxDB, in outages too, and ingestion never waits for it."""

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from infra.errors import StoreError
from infra.steps import HOUR_US
from stream.store.influx.address import InfluxAddress
from stream.store.influx.points import facts_line, snapshot_lines
from stream.store.outbox import CHANGE_STEPS, Change
from stream.store.projection import PIECE_STEPS, pieces, snapshots_of
from stream.store.projector import Projector
from tests.unit.stream.projection_cases import START_US, FakeInflux, MemoryStore, some_snapshots

# Longer than any wait here takes; a test that needs it fails.
PATIENCE_S = 30


@pytest.fixture
def influx() -> Iterator[FakeInflux]:
    with FakeInflux() as fake:
        yield fake


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    store.add(some_snapshots("a", 30, seed=1))
    store.add(some_snapshots("b:x,y", 7, seed=2))
    return store


def projector_of(store: MemoryStore, influx: FakeInflux, *, idle_s: float = 0.01) -> Projector:
    address = InfluxAddress(
        url=influx.url, org="o", bucket="b", batch_points=10, max_wait_s=0.02, timeout_s=5, settle_s=0.01
    )
    return Projector(lambda: store, lambda: store, address, idle_s=idle_s)


def lines_of(store: MemoryStore) -> set[str]:
    """Return what an InfluxDB holds that has all of a store."""
    lines = {facts_line(info) for info in store.graphs()}
    for info in store.graphs():
        lines |= set(snapshot_lines(store.snapshots(info.name)))
    return lines


def held(influx: FakeInflux) -> set[str]:
    return {f"{series} {fields} {time}" for (series, time), fields in influx.points.items()}


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def test_all_that_waits_is_written_and_shown_until_it_is_marked(store: MemoryStore, influx: FakeInflux) -> None:
    with projector_of(store, influx) as projector:
        status = projector.drain(PATIENCE_S)
        assert (status.drained, status.waiting, status.written, status.error) == (True, 0, 37, None)
        assert status.leads
        assert held(influx) == lines_of(store)
        assert projector.acknowledged() == [1, 2]
        # A transaction that is rolled back marks nothing: they are shown again.
        assert projector.acknowledged() == [1, 2]
        store.projected(projector.acknowledged())
        until(lambda: projector.acknowledged() == [])
        assert projector.status().written == 37


def test_what_is_noted_is_not_shown_again_while_influxdb_is_away(store: MemoryStore, influx: FakeInflux) -> None:
    with projector_of(store, influx) as projector:
        projector.drain(PATIENCE_S)
        influx.answers = lambda number: (503, {})
        store.revise("a", 3)
        until(lambda: projector.status().error is not None)
        numbers = projector.acknowledged()
        assert numbers == [1, 2]
        store.projected(numbers)
        projector.noted(numbers)
        assert projector.acknowledged() == []
        until(lambda: projector.status().waiting == 1)
        influx.answers = lambda number: (204, {})
        assert projector.drain(PATIENCE_S).drained
        assert projector.acknowledged() == [3]
        assert held(influx) == lines_of(store)


def test_what_changes_later_is_written_too(store: MemoryStore, influx: FakeInflux) -> None:
    with projector_of(store, influx) as projector:
        projector.drain(PATIENCE_S)
        store.projected(projector.acknowledged())
        store.add(some_snapshots("a", 3, start_us=START_US + 30 * HOUR_US, seed=3))
        store.revise("a", 12, steps=2)
        store.late = 5
        assert projector.drain(PATIENCE_S).drained
        assert held(influx) == lines_of(store)
        assert any("late=5i" in line for line in held(influx))


def test_facts_are_written_again_only_where_they_changed(store: MemoryStore, influx: FakeInflux) -> None:
    with projector_of(store, influx) as projector:
        projector.drain(PATIENCE_S)
        requests = len(influx.bodies)
        store.projected(projector.acknowledged())
        projector.drain(PATIENCE_S)
        assert len(influx.bodies) == requests
        store.late = 1
        assert projector.drain(PATIENCE_S).drained
        assert len(influx.bodies) == requests + 1


@pytest.mark.parametrize("seed", range(3))
def test_a_server_that_fails_at_random_ends_with_everything(store: MemoryStore, influx: FakeInflux, seed: int) -> None:
    chance = random.Random(seed)
    influx.answers = lambda number: (chance.choice((204, 204, 500, 503, 429)), {})
    with projector_of(store, influx) as projector:
        for turn in range(10):
            store.revise("a", chance.randrange(25), steps=chance.randrange(1, 5))
            if chance.random() < 0.5:
                store.projected(projector.acknowledged())
            if turn == 5:
                store.add(some_snapshots("a", 2, start_us=START_US + 30 * HOUR_US))
        assert projector.drain(PATIENCE_S).drained
        assert held(influx) == lines_of(store)


def test_an_outage_is_seen_counted_and_survived(store: MemoryStore, influx: FakeInflux) -> None:
    influx.answers = lambda number: (503, {})
    with projector_of(store, influx) as projector:
        until(lambda: projector.status().error is not None)
        status = projector.drain(0.05)
        assert not status.drained
        assert not status.refused
        assert status.waiting == 37
        assert status.down_since_s is not None
        assert projector.acknowledged() == []
        store.add(some_snapshots("a", 3, start_us=START_US + 30 * HOUR_US))
        until(lambda: projector.status().waiting == 40)
        influx.answers = lambda number: (204, {})
        status = projector.drain(PATIENCE_S)
        assert (status.drained, status.error, status.down_since_s, status.waiting) == (True, None, None, 0)
        assert held(influx) == lines_of(store)


def test_a_refusal_ends_the_drain_and_is_tried_again(store: MemoryStore, influx: FakeInflux) -> None:
    influx.answers = lambda number: (401, {})
    with projector_of(store, influx) as projector:
        status = projector.drain(PATIENCE_S)
        assert status.refused
        assert not status.drained
        assert status.error is not None
        assert "HTTP 401" in status.error
        influx.answers = lambda number: (204, {})
        until(lambda: projector.drain(PATIENCE_S).drained)
        assert held(influx) == lines_of(store)


def test_a_store_that_cannot_be_read_for_a_while_is_said_and_read_later(store: MemoryStore, influx: FakeInflux) -> None:
    store.broken = StoreError("the store is away")
    with projector_of(store, influx) as projector:
        assert projector.drain(PATIENCE_S).error == "the store is away"
        store.broken = None
        until(lambda: projector.drain(PATIENCE_S).drained)
        assert held(influx) == lines_of(store)


def test_a_mistake_of_ours_is_said_too(store: MemoryStore, influx: FakeInflux) -> None:
    def broken() -> MemoryStore:
        raise ZeroDivisionError("oops")

    projector = projector_of(store, influx)
    projector._open_outbox = broken
    with projector:
        assert projector.drain(PATIENCE_S).error == "this should not happen: ZeroDivisionError: oops"


def test_who_is_not_elected_writes_nothing_until_it_is(store: MemoryStore, influx: FakeInflux) -> None:
    store.leads = False
    with projector_of(store, influx) as projector:
        status = projector.drain(PATIENCE_S)
        assert (status.leads, status.written, status.waiting) == (False, 0, 37)
        assert influx.bodies == []
        assert projector.acknowledged() == []
        store.leads = True
        until(lambda: projector.drain(PATIENCE_S).leads)
        assert held(influx) == lines_of(store)


def test_a_new_projector_repeats_what_was_not_marked_and_changes_nothing(
    store: MemoryStore, influx: FakeInflux
) -> None:
    for _ in range(2):
        with projector_of(store, influx) as projector:
            assert projector.drain(PATIENCE_S).written == 37
    assert held(influx) == lines_of(store)


def test_closing_while_idle_ends_at_once(store: MemoryStore, influx: FakeInflux) -> None:
    address = InfluxAddress(url=influx.url, org="o", bucket="b", max_wait_s=3600, settle_s=0.01)
    for _ in range(5):
        projector = Projector(lambda: store, lambda: store, address, idle_s=3600).start()
        assert projector.drain(PATIENCE_S).drained
        projector.close()
        assert not projector._thread.is_alive()


def test_closing_in_an_outage_ends_at_once_and_leaves_the_rest(store: MemoryStore, influx: FakeInflux) -> None:
    influx.answers = lambda number: (503, {})
    address = InfluxAddress(url=influx.url, org="o", bucket="b", max_wait_s=3600, settle_s=0.01)
    projector = Projector(lambda: store, lambda: store, address).start()
    until(lambda: projector.status().error is not None)
    projector.close()
    assert projector.acknowledged() == []
    assert store.waiting("influxdb") == 37


def claimed(influx: FakeInflux) -> dict[str, str]:
    return {series: fields for (series, _), fields in influx.points.items() if series.startswith("graphtide_stores")}


def test_a_graph_of_another_store_is_left_alone_until_it_is_taken_over(store: MemoryStore, influx: FakeInflux) -> None:
    store.id = "aa"
    with projector_of(store, influx) as projector:
        assert projector.drain(PATIENCE_S).drained
    assert claimed(influx) == {
        "graphtide_stores,graph=a,schema=1": 'store="aa"',
        "graphtide_stores,graph=b:x,y,schema=1".replace("x,y", r"x\,y"): 'store="aa"',
    }
    theirs = dict(influx.points)
    other = MemoryStore()
    other.id = "bb"
    other.add(some_snapshots("a", 5, seed=9))
    with projector_of(other, influx) as projector:
        status = projector.drain(PATIENCE_S)
        assert status.refused
        assert "a graph 'a' of another store of record" in (status.error or "")
        assert "store project --all" in (status.fix or "")
    assert influx.points == theirs
    address = InfluxAddress(url=influx.url, org="o", bucket="b", max_wait_s=0.02, settle_s=0.01)
    with Projector(lambda: other, lambda: other, address, take_over=True, idle_s=0.01) as projector:
        assert projector.drain(PATIENCE_S).drained
    assert lines_of(other) <= held(influx)
    store.revise("a", 0)
    with projector_of(store, influx) as projector:
        assert projector.drain(PATIENCE_S).refused


def test_a_rebuilt_store_goes_on_beside_the_one_that_wrote_the_bucket(store: MemoryStore, influx: FakeInflux) -> None:
    store.id = "aa"
    with projector_of(store, influx) as projector:
        assert projector.drain(PATIENCE_S).drained
    theirs = dict(influx.points)
    rebuilt = MemoryStore()
    rebuilt.id, rebuilt.rebuilt = "bb", ["a", "b:x,y", "nobody's"]
    # As they were, before the first store wrote more.
    rebuilt.add(some_snapshots("a", 20, seed=1))
    rebuilt.add(some_snapshots("b:x,y", 7, seed=2))
    rebuilt.add(some_snapshots("nobody's", 2))
    rebuilt.add(some_snapshots("new", 3))
    for _ in range(2):
        with projector_of(rebuilt, influx) as projector:
            status = projector.drain(PATIENCE_S)
            assert (status.drained, status.waiting, status.error) == (True, 0, None)
            assert status.written == 5
            assert projector.acknowledged() == [1, 2, 3, 4]
        assert theirs.items() <= influx.points.items()
        assert {fields for series, fields in claimed(influx).items() if "new" in series or "nobody" in series} == {
            'store="bb"'
        }
    store.revise("a", 3)
    with projector_of(store, influx) as projector:
        assert projector.drain(PATIENCE_S).drained
        assert lines_of(store) <= held(influx)
    address = InfluxAddress(url=influx.url, org="o", bucket="b", max_wait_s=0.02, settle_s=0.01)
    with Projector(lambda: rebuilt, lambda: rebuilt, address, take_over=True, idle_s=0.01) as projector:
        assert projector.drain(PATIENCE_S).written == 32
    assert set(claimed(influx).values()) == {'store="bb"'}


def test_a_graph_is_claimed_before_its_first_point(store: MemoryStore, influx: FakeInflux) -> None:
    store.id = "aa"
    with projector_of(store, influx) as projector:
        assert projector.drain(PATIENCE_S).drained
        store.add(some_snapshots("c", 3))
        assert projector.drain(PATIENCE_S).drained
    first = [
        next(at for at, body in enumerate(influx.bodies) if begin in body)
        for begin in (b"stores,graph=c", b"snapshots,graph=c")
    ]
    assert first == sorted(first)
    assert first[0] < first[1]


def test_of_two_that_claim_a_free_graph_at_once_one_writes(influx: FakeInflux, monkeypatch: pytest.MonkeyPatch) -> None:
    both_found_it_free = threading.Barrier(2)
    asked = itertools.count()
    answer = influx.claims

    def claims() -> bytes:
        found = answer()
        if next(asked) < 2:
            both_found_it_free.wait(PATIENCE_S)
        return found

    monkeypatch.setattr(influx, "claims", claims)
    stores = [MemoryStore(), MemoryStore()]
    with ExitStack() as ends:
        projectors = []
        for number, each in enumerate(stores):
            each.id = f"store{number}"
            each.add(some_snapshots("a", 30, seed=number))
            projectors.append(ends.enter_context(projector_of(each, influx)))
        ended = [projector.drain(PATIENCE_S) for projector in projectors]
    assert sorted((status.drained, status.refused) for status in ended) == [(False, True), (True, False)]
    winner = stores[[status.drained for status in ended].index(True)]
    assert held(influx) - lines_of(winner) == {f'graphtide_stores,graph=a,schema=1 store="{winner.id}" 0'}
    assert b"\n".join(influx.bodies).count(b"graphtide_snapshots") == 30


def test_a_graph_that_is_taken_over_meanwhile_is_given_up(
    store: MemoryStore, influx: FakeInflux, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.store.influx.claims._ASK_EVERY_S", 0.0)
    store.id = "aa"
    with projector_of(store, influx) as projector:
        assert projector.drain(PATIENCE_S).drained
        influx.points["graphtide_stores,graph=a,schema=1", "0"] = 'store="bb"'
        store.revise("a", 1)
        until(lambda: projector.status().refused)


def test_changes_are_joined_cut_and_passed_over_where_their_graph_is_gone() -> None:
    store = MemoryStore()
    steps = CHANGE_STEPS + 10
    store.add(some_snapshots("a", steps))

    def change(number: int, graph: str, first: int, last: int) -> Change:
        return Change(number, graph, HOUR_US, START_US + first * HOUR_US, START_US + last * HOUR_US)

    changes = [change(1, "a", 5, 9), change(2, "gone", 0, 3), change(3, "a", 0, 4), change(4, "a", 8, 8)]
    tables = list(snapshots_of(store, changes, {"a"}))
    assert [(table.graph, len(table)) for table in tables] == [("a", 10)]
    apart = list(snapshots_of(store, [change(1, "a", 0, 1), change(2, "a", 3, 4)], {"a"}))
    assert [len(table) for table in apart] == [2, 2]
    whole = list(snapshots_of(store, [change(1, "a", 0, steps - 1)], {"a"}))
    assert [len(table) for table in whole] == [CHANGE_STEPS, 10]
    large = replace(changes[0], last_step_us=changes[0].first_step_us + (PIECE_STEPS - 2) * HOUR_US)
    assert [[item.number for item in piece] for piece in pieces([large, *changes])] == [[1], [1, 2, 3, 4]]
    assert list(pieces([])) == []
