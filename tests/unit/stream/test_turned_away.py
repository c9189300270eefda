"""One event that its graph cannot take holds up no other: it goes to the dead letters, and the stream goes on."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from infra.errors import InputError, StoreError
from infra.steps import HOUR_US
from stream.closing import Limits, too_early
from stream.decoders.records.base import Record
from stream.events import Event, Reject
from stream.progress import IngestResult
from stream.sources.base import Claims, PartitionedBatch
from stream.store import open_reader
from tests.unit.stream.ingest_cases import (
    Killed,
    ListSource,
    at,
    counts_in_store,
    cut,
    dump,
    dying,
    ingest_list,
    query,
    run,
)

NOW_H = 5000
Batches = Sequence[tuple[str, Sequence[Event]]]


def letter(row: int, reason: str, stage: str) -> Reject:
    return Reject("t", "", reason, stage, Record(b"", topic="t", partition=0, offset=row))


class LetterSource(ListSource):
    """A stream of records that does not end: it can make the dead letter of an event."""

    def batches(self, claims: Claims) -> Iterator[PartitionedBatch]:
        for batch in super().batches(claims):
            yield replace(batch, letter=letter)


def follow(store: Path, batches: Batches, name: str = "kafka:t", limit: int = 400, **options: object) -> IngestResult:
    return ingest_list(
        LetterSource(batches, name=name, bounded=False),
        store,
        **(
            {"max_ahead_us": HOUR_US, "now_us": lambda: NOW_H * HOUR_US, "limits": Limits(max_empty_steps=limit)}
            | options
        ),
    )


def letters(store: Path) -> list[str]:
    return [str(row[0]).split(":")[0] for row in query(store, "SELECT reason FROM dead_letters ORDER BY id")]


def events_by_hour(store: Path, graph: str) -> dict[int, int]:
    steps = counts_in_store(store).get(graph, {})
    return {step // HOUR_US: row["events"] for step, row in steps.items() if row["events"]}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "s.db"


@pytest.mark.parametrize(
    ("hours", "end", "limit", "begin"),
    [
        ((10, 11), 13, 1, None),
        ((2, 10, 11), 13, 7, 10),
        ((2, 10, 11), 13, 8, None),
        ((2, 10), 90, 7, 90),
        ((2, 95), 90, 87, None),
        ((), 90, 0, None),
        ((11, 2, 10, 2), 13, 7, 10),
    ],
)
def test_where_steps_leave_few_enough_empty(hours: Sequence[int], end: int, limit: int, begin: int | None) -> None:
    found = too_early(np.array(hours, dtype=np.int64) * HOUR_US, end * HOUR_US, HOUR_US, limit)
    assert found == (None if begin is None else begin * HOUR_US)


class TestForeign:
    def test_a_graph_that_another_source_fills(self, store: Path) -> None:
        follow(store, [("0", [at(4000, "a", "b", "town")])], name="kafka:other")
        log = [at(4001, "a", "b"), at(4001, "x", "y", "town"), at(4002, "a", "b"), at(4003, "a", "b")]
        for batches in ([("0", log[:3]), ("0", log[3:])], [("0", log[:3]), ("0", log[3:]), ("0", log[1:2])]):
            result = follow(store, batches)
        # The last one is late by the log of its partition, whatever graph it names, and does not count there.
        assert (result.events, result.late, result.rejected) == (4, 1, 1)
        assert letters(store) == ["foreign", "late"]
        assert events_by_hour(store, "g") == {4001: 1, 4002: 1}
        assert [graph.name for graph in result.graphs] == ["g"]
        assert query(store, "SELECT late, snapshots FROM graphs WHERE name = 'town'") == [(0, 0)]

    @pytest.mark.parametrize("size", [1, 2, 9])
    def test_a_graph_that_a_file_filled_goes_on_behind_it(self, store: Path, size: int) -> None:
        run(store, cut([at(4000, "a", "b", "town"), at(4009, "a", "b", "town")], 9), name="file:town")
        log = [at(4005, "x", "y", "town"), at(4010, "a", "b", "town"), at(4008, "x", "y", "town"), at(4012, "a", "b")]
        result = follow(store, cut(log, size), out_of_orderness_us=6 * HOUR_US)
        follow(store, [*cut(log, size), ("", [at(4030, "a", "b")])], out_of_orderness_us=6 * HOUR_US)
        assert letters(store) == ["foreign", "late"]
        assert (result.events, result.late, result.rejected) == (3, 1, 1)
        assert events_by_hour(store, "town") == {4000: 1, 4009: 1, 4010: 1}

    def test_a_stray_name_does_not_make_the_graph_one_of_the_source(self, store: Path) -> None:
        run(store, cut([at(4000, "a", "b", "town"), at(4009, "a", "b", "town")], 9), name="file:town")
        follow(store, [("", [at(4005, "x", "y", "town"), at(4050, "a", "b"), at(4060, "a", "b")])])
        assert query(store, "SELECT snapshots FROM graphs WHERE name = 'town'") == [(10,)]

    def test_a_graph_of_another_step(self, store: Path) -> None:
        run(store, cut([at(4000, "a", "b", "town")], 9), name="file:town", step_us=2 * HOUR_US)
        follow(store, [("", [at(4010, "x", "y", "town"), at(4011, "a", "b"), at(4012, "a", "b")])])
        assert letters(store) == ["foreign"]
        assert events_by_hour(store, "g") == {4011: 1}

    def test_with_its_part_by_type(self, store: Path) -> None:
        follow(store, [("0", [at(4000, "a", "b", "town")])], name="kafka:other")
        log = [at(4001, "a", "b", "town", type_="like"), at(4001, "a", "b", type_="like"), at(4003, "a", "b")]
        follow(store, [("0", log)], split_by_type=True)
        assert query(store, "SELECT name FROM graphs ORDER BY 1") == [("g",), ("g:like",), ("town",)]

    def test_a_stream_that_was_started_for_the_graph_is_refused(self, store: Path) -> None:
        class OneGraphSource(LetterSource):
            def batches(self, claims: Claims) -> Iterator[PartitionedBatch]:
                for batch in super().batches(claims):
                    yield replace(batch, names_graphs=False)

        follow(store, [("0", [at(4000, "a", "b", "town")])], name="kafka:other")
        source = OneGraphSource([("0", [at(4001, "a", "b", "town")])], name="live:town", bounded=False)
        with pytest.raises(StoreError, match="still being filled from kafka:other"):
            ingest_list(source, store)
        assert letters(store) == []

    def test_a_log_that_is_read_once_is_refused(self, store: Path) -> None:
        follow(store, [("0", [at(4000, "a", "b", "town")])], name="kafka:other")
        before = dump(store)
        with pytest.raises(StoreError, match="still being filled from kafka:other"):
            run(store, cut([at(4001, "a", "b", "town")], 1), name="file:town")
        assert dump(store) == before


class TestStray:
    def test_a_first_record_of_a_graph(self, store: Path) -> None:
        log = [at(0, "x", "y"), at(4000, "a", "b"), at(4001, "a", "b"), at(4001, "a", "b", "h"), at(4003, "a", "b")]
        result = follow(store, [("0", log)])
        assert letters(store) == ["stray"]
        assert (result.events, result.rejected) == (4, 1)
        assert events_by_hour(store, "g") == {4000: 1, 4001: 1}
        assert events_by_hour(store, "h") == {4001: 1}

    def test_a_graph_that_has_nothing_else_is_not_made(self, store: Path) -> None:
        follow(store, [("0", [at(0, "x", "y", "weird"), at(4000, "a", "b"), at(4001, "a", "b")])])
        assert letters(store) == ["stray"]
        assert query(store, "SELECT name FROM graphs") == [("g",)]

    def test_one_that_came_before_anything_told_so(self, store: Path) -> None:
        batches = [("0", [at(0, "x", "y"), at(0, "x", "z", "weird")]), ("0", [at(4000, "a", "b")])]
        follow(store, batches)
        result = follow(store, [*batches, ("0", [at(4001, "a", "b"), at(4003, "a", "b")])])
        assert (result.events, result.rejected, letters(store)) == (5, 0, [])
        assert query(store, "SELECT name, late, first_step_us / 3600000000 FROM graphs ORDER BY 1") == [
            ("g", 1, 4000),
            ("weird", 1, None),
        ]
        assert events_by_hour(store, "g") == {4000: 1, 4001: 1}

    def test_one_before_the_closed_steps_of_its_graph(self, store: Path) -> None:
        log = [at(4000, "a", "b"), at(4002, "a", "b"), at(0, "x", "y"), at(3990, "x", "y")]
        result = follow(store, cut(log, 2), allowed_lateness_us=NOW_H * HOUR_US)
        assert letters(store) == ["stray"]
        assert (result.events, result.rejected) == (3, 1)
        assert events_by_hour(store, "g") == {3990: 1, 4000: 1}

    def test_few_empty_steps_are_made(self, store: Path) -> None:
        follow(store, [("0", [at(3600, "x", "y"), at(4000, "a", "b"), at(4001, "a", "b")])])
        assert letters(store) == []
        assert events_by_hour(store, "g") == {3600: 1, 4000: 1}

    def test_steps_that_hold_events_are_not_empty(self, store: Path) -> None:
        log = [at(hour, "a", "b") for hour in range(1000, 1900)]
        follow(store, [("0", log)], limit=10)
        assert letters(store) == []
        assert len(events_by_hour(store, "g")) == 899


class TestLateBeforeItsGraph:
    """A graph comes to be with its first event that counts, and then tells of the late ones before it, too."""

    LOG = (
        at(4000, "a", "b"),
        at(4009, "a", "b"),
        at(4001, "x", "y", "town", "like"),
        at(4010, "a", "b"),
        at(4002, "x", "y", "town"),
        at(4011, "x", "y", "town"),
        at(4003, "x", "y", "town", "like"),
        at(4004, "x", "y", "only late"),
        at(4012, "a", "b"),
    )

    @staticmethod
    def shown(store: Path) -> dict[str, tuple[int, int]]:
        """Return the events in closed steps and the late ones of all graphs that readers see."""
        with open_reader(f"sqlite:///{store}") as reader:
            return {info.name: (info.events, info.late) for info in reader.graphs()}

    def test_nobody_sees_a_graph_that_only_late_events_name(self, store: Path) -> None:
        result = follow(store, [("0", self.LOG[:5])], split_by_type=True)
        assert self.shown(store) == {"g": (2, 0)}
        assert [graph.name for graph in result.graphs] == ["g"]
        assert (result.events, result.late, result.rejected) == (5, 2, 0)
        assert letters(store) == ["late", "late"]
        with open_reader(f"sqlite:///{store}") as reader, pytest.raises(StoreError, match="no graph 'town'"):
            reader.graph("town")

    @pytest.mark.parametrize("size", [1, 2, 4, 9])
    def test_late_ones_count_whatever_the_cut(self, store: Path, size: int) -> None:
        result = follow(store, cut(self.LOG, size), split_by_type=True)
        assert self.shown(store) == {"g": (3, 0), "town": (1, 3)}
        assert {graph.name: graph.late for graph in result.graphs} == {"g": 0, "town": 3}
        assert (result.events, result.late, letters(store)) == (9, 4, ["late"] * 4)
        assert events_by_hour(store, "town") == {4011: 1}

    def test_graphs_begin_in_one_order_whatever_the_cut(self, tmp_path: Path) -> None:
        log = [*self.LOG[:3], at(4010, "a", "b", "harbour"), *self.LOG[3:]]
        begun = []
        for size in (1, 2, 10):
            run(tmp_path / f"{size}.db", cut(log, size), split_by_type=True)
            begun.append([dump(tmp_path / f"{size}.db")[table] for table in ("graphs", "feeders", "nodes")])
        assert begun[0] == begun[1] == begun[2]

    @pytest.mark.parametrize("after", range(1, 6))
    def test_a_replay_after_a_crash_comes_to_the_same(self, store: Path, after: int) -> None:
        with pytest.raises(Killed):
            ingest_list(ListSource(cut(self.LOG, 2)), store, dying(after), split_by_type=True)
        run(store, cut(self.LOG, 2), split_by_type=True)
        other = store.with_name("undisturbed.db")
        run(other, cut(self.LOG, 2), split_by_type=True)
        assert dump(store) == dump(other)
        assert self.shown(store)["town"] == (1, 3)

    def test_another_source_can_begin_it_in_other_steps(self, store: Path) -> None:
        follow(store, [("0", self.LOG[:3])])
        run(store, cut([at(4000, "a", "b", "town")], 1), name="file:town", step_us=2 * HOUR_US)
        with open_reader(f"sqlite:///{store}") as reader:
            assert (reader.graph("town").step_us, reader.graph("town").late) == (2 * HOUR_US, 1)
        # To the first source it is now a graph that another one fills.
        follow(store, [("0", self.LOG[:3]), ("0", self.LOG[3:6])])
        assert letters(store) == ["late", "late", "foreign"]

    def test_a_graph_that_is_split_is_no_other(self, store: Path) -> None:
        split = {"split_graphs": frozenset({"town"}), "split_by_type": True}
        follow(store, [("0", self.LOG[:4])], **split)
        assert self.shown(store) == {"g": (2, 0)}
        follow(store, [("0", self.LOG[:4]), ("0", self.LOG[4:])], **split)
        assert self.shown(store) == {"g": (3, 0), "town": (1, 3)}

    def test_a_part_that_only_duplicates_name(self, store: Path) -> None:
        log = [Event("a", "b", 4000 * HOUR_US, graph="g", type=type_, id="x") for type_ in ("like", "follow")]
        result = follow(store, [("0", [*log, at(4001, "a", "b")])], split_by_type=True, dedup_window_us=HOUR_US)
        assert result.duplicates == 1
        assert self.shown(store) == {"g": (1, 0), "g:like": (1, 0)}


def test_a_backfill_far_before_its_graph_is_refused(store: Path) -> None:
    run(store, cut([at(4000, "a", "b")], 1), name="live")
    before = dump(store)
    log = [at(0, "x", "y"), at(3990, "a", "b")]
    with pytest.raises(InputError) as caught:
        run(store, cut(log, 9), name="older", backfill=True, limits=Limits(max_empty_steps=3997))
    assert "graph 'g'" in caught.value.message
    assert "3,998 empty snapshots" in caught.value.message
    assert "3,989 of them" in caught.value.message
    assert "from 1970-01-01T01:00:00Z to 1970-06-16T06:00:00Z" in caught.value.message
    assert "max_empty_steps" in str(caught.value.fix)
    assert dump(store) == before
    run(store, cut(log, 9), name="older", backfill=True, limits=Limits(max_empty_steps=3998))
    assert len(counts_in_store(store)["g"]) == 4001


def test_a_graph_that_is_too_large_is_named_with_what_to_do(store: Path) -> None:
    log = [at(4000, "a", "b"), at(4001, "b", "c", "h"), at(4001, "c", "d"), at(4003, "a", "b")]
    with pytest.raises(StoreError, match="graph 'g' has 4 distinct nodes") as caught:
        follow(store, [("0", log)], limits=Limits(max_nodes=3))
    assert "start again, which goes on from the last commit" in str(caught.value.fix)
