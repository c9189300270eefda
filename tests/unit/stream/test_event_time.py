"""Several partitions, idle ones, late events, revisions, clocks in the future, duplicates and backfills.

What must come out is known without them: the events that count, sorted, ingested in one batch.
"""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import StoreError
from infra.steps import HOUR_US, step_start_us
from stream.events import Event, EventBatch, Interner
from stream.sources.base import Claims, PartitionedBatch
from stream.windows import NEVER_US
from tests.unit.stream.ingest_cases import (
    ListSource,
    at,
    counts_in_store,
    cut,
    ingest_list,
    make_log,
    query,
    run,
    snapshot_rows,
    temporary_store,
)

Log = Sequence[Event]


def metrics_of(store: Path) -> list[tuple[object, ...]]:
    """Return all snapshots but their revisions, which depend on what was committed together."""
    return [(*row[:2], *row[3:]) for row in snapshot_rows(store)]


def metrics_of_log(log: Log) -> list[tuple[object, ...]]:
    with temporary_store() as store:
        run(store, cut(sorted(log, key=lambda event: event.ts_us), len(log)))
        return metrics_of(store)


def deal(log: Log, draw: random.Random, partitions: int, disorder_h: float) -> list[list[Event]]:
    """Return the logs of partitions: each event goes to one, a little out of order there."""
    dealt: list[list[Event]] = [[] for _ in range(partitions)]
    for event in sorted(log, key=lambda event: event.ts_us + draw.uniform(0, disorder_h) * HOUR_US):
        dealt[draw.randrange(partitions)].append(event)
    return dealt


def interleave(dealt: Sequence[Log], draw: random.Random, size: int, skew: float) -> list[tuple[str, Log]]:
    """Return batches of the partitions' logs in their order; the larger `skew`, the further one runs ahead."""
    batches: list[tuple[str, Log]] = []
    left = {str(number): list(log) for number, log in enumerate(dealt)}
    while any(left.values()):
        names = [name for name, log in left.items() if log]
        name = names[0] if draw.random() < skew else draw.choice(names)
        n = draw.randint(1, size)
        batches.append((name, left[name][:n]))
        left[name] = left[name][n:]
    return batches


def counted(dealt: Sequence[Log], *, bound_h: int, lateness_h: int) -> list[Event]:
    """Return the events that are not late, judged one by one."""
    kept = []
    for log in dealt:
        largest_us = NEVER_US
        for event in log:
            step_end_us = step_start_us(event.ts_us, HOUR_US) + HOUR_US
            if step_end_us + lateness_h * HOUR_US > largest_us - bound_h * HOUR_US:
                kept.append(event)
            largest_us = max(largest_us, event.ts_us)
    return kept


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    size=st.integers(1, 40),
    skew=st.sampled_from([0.0, 0.9]),
    bound_h=st.sampled_from([0, 3]),
    lateness_h=st.sampled_from([0, 2, 50]),
    wakes=st.booleans(),
)
def test_metrics_are_a_function_of_the_logs_of_the_partitions(
    seed: int, size: int, skew: float, bound_h: int, lateness_h: int, wakes: bool
) -> None:
    draw = random.Random(seed)
    dealt = deal(make_log(seed, 120), draw, 3, disorder_h=12)
    batches = interleave(dealt, draw, size, skew)
    # With idle partitions that come back, steps close long before the events that belong to them. One that never had
    # an event holds nothing back, so here only those fall idle that had one.
    idle = {
        number: draw.sample(seen, draw.randint(1, len(seen)))
        for number in range(1, len(batches))
        if (seen := sorted({name for name, _ in batches[:number]})) and draw.random() < 0.3
    }
    with temporary_store() as store:
        result = ingest_list(
            ListSource(batches, idle=idle if wakes else {}),
            store,
            out_of_orderness_us=bound_h * HOUR_US,
            allowed_lateness_us=lateness_h * HOUR_US,
            idle_hold_us=10**6 * HOUR_US,
        )
        expected = counted(dealt, bound_h=bound_h, lateness_h=lateness_h)
        assert result.late == 120 - len(expected)
        assert metrics_of(store) == metrics_of_log(expected)
        assert sum(graph.events for graph in result.graphs) == len(expected)


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), stop=st.integers(0, 12))
def test_a_run_with_revisions_goes_on_where_it_stopped(seed: int, stop: int) -> None:
    draw = random.Random(seed)
    dealt = deal(make_log(seed, 90), draw, 2, disorder_h=9)
    batches = interleave(dealt, draw, 15, 0.5)
    options = {"allowed_lateness_us": 4 * HOUR_US}
    with temporary_store() as store:
        with pytest.raises(KeyboardInterrupt):
            ingest_list(ListSource(batches, fail_after=min(stop, len(batches) - 1)), store, **options)
        ingest_list(ListSource(batches), store, **options)
        assert metrics_of(store) == metrics_of_log(counted(dealt, bound_h=0, lateness_h=4))


class TestRevisions:
    def test_a_late_event_within_the_allowance_writes_a_higher_revision(self, tmp_path: Path) -> None:
        log = [at(1, "a", "b"), at(2, "b", "c"), at(4, "a", "b"), at(1.5, "c", "d"), at(4.5, "a", "b")]
        ingest_list(
            ListSource([("", log[:3]), ("", log[3:])], bounded=False),
            tmp_path / "s.db",
            allowed_lateness_us=3 * HOUR_US,
        )
        revisions = dict(query(tmp_path / "s.db", "SELECT step_start_us / 3600000000, revision FROM snapshots"))
        # c was first seen at 2 before: that step has a new node less, and every later total one more edge and node.
        assert revisions == {1: 1, 2: 1, 3: 1}
        rows = counts_in_store(tmp_path / "s.db")["g"]
        assert [row["new_nodes"] for row in rows.values()] == [4, 0, 0]
        assert [row["total_nodes"] for row in rows.values()] == [4, 4, 4]
        assert [row["total_edges"] for row in rows.values()] == [2, 3, 3]

    def test_an_event_before_the_first_step_adds_steps(self, tmp_path: Path) -> None:
        log = [at(5, "a", "b"), at(7, "a", "b"), at(2, "x", "y")]
        ingest_list(ListSource(cut(log, 2)), tmp_path / "s.db", allowed_lateness_us=9 * HOUR_US)
        assert metrics_of(tmp_path / "s.db") == metrics_of_log(log)
        assert [row["events"] for row in counts_in_store(tmp_path / "s.db")["g"].values()] == [1, 0, 0, 1, 0, 1]

    def test_what_is_final_stays(self, tmp_path: Path) -> None:
        # Partition 1 sleeps for longer than it is waited for.
        batches = [("0", [at(1, "a", "b")]), ("1", [at(1, "a", "b")]), ("0", [at(90, "a", "b")]), ("0", [])]
        back = ("1", [at(2, "x", "y"), at(85, "x", "y"), at(95, "x", "y")])
        result = ingest_list(
            ListSource([*batches, back], idle={2: "1"}, bounded=False), tmp_path / "s.db", idle_hold_us=10 * HOUR_US
        )
        assert result.late == 1
        assert [reject.reason for reject in result.rejects] == ["late: its step is final"]
        rows = counts_in_store(tmp_path / "s.db")["g"]
        assert (rows[2 * HOUR_US]["events"], rows[85 * HOUR_US]["events"]) == (0, 1)

    def test_a_step_whose_edges_are_gone_cannot_be_revised(self, tmp_path: Path) -> None:
        log = [*(at(hour, "a", "b") for hour in (1, 2, 4, 60, 61)), at(2, "x", "y"), at(3, "x", "y"), at(62, "a", "b")]
        with pytest.raises(StoreError):  # the store holds another step size now
            run(tmp_path / "s.db", cut([at(1, "a", "b")], 1))
            run(tmp_path / "s.db", cut(log, 1), name="other", step_us=2 * HOUR_US)
        batches = [("0", log[:5]), ("1", [at(60, "a", "b")]), ("0", [at(70, "a", "b")])]
        source = ListSource(batches, bounded=False)
        ingest_list(source, tmp_path / "t.db", keep_edges_us=8 * HOUR_US)
        more = [at(2, "x", "y"), at(3, "x", "y"), at(59, "x", "y"), at(66, "x", "y")]
        late = ingest_list(ListSource([("", more)], name="older"), tmp_path / "t.db", backfill=True)
        assert [reject.reason.split(":")[0] for reject in late.rejects] == ["late"]
        assert "no longer kept" in late.rejects[0].reason
        rows = counts_in_store(tmp_path / "t.db")["g"]
        assert [rows[hour * HOUR_US]["events"] for hour in (2, 3, 59)] == [1, 1, 1]

    @pytest.mark.parametrize("size", [1, 2, 5])
    def test_an_old_step_that_was_empty_is_revised_whatever_the_cut(self, tmp_path: Path, size: int) -> None:
        source = ListSource(cut([at(hour, "a", "b") for hour in (1, 60, 70)], 1), bounded=False)
        ingest_list(source, tmp_path / "s.db", keep_edges_us=8 * HOUR_US)
        more = [at(-3, "x", "y"), at(-3, "x", "z"), at(3, "x", "y"), at(3.5, "x", "z"), at(3.5, "x", "z")]
        assert run(tmp_path / "s.db", cut(more, size), name="older", backfill=True).late == 0
        rows = counts_in_store(tmp_path / "s.db")["g"]
        assert [rows[hour * HOUR_US]["events"] for hour in (-3, 3)] == [2, 3]
        assert [rows[hour * HOUR_US]["unique_edges"] for hour in (-3, 3)] == [2, 2]


def test_steps_that_only_waited_for_a_partition_close_when_it_is_gone(tmp_path: Path) -> None:
    class Handing(ListSource):
        def batches(self, claims: Claims) -> Iterator[PartitionedBatch]:
            yield from super().batches(claims)
            claims.release(["1"])
            yield PartitionedBatch(EventBatch.from_events([], Interner()), ())

    batches = [("1", [at(1, "a", "b", "h")]), ("0", [at(1, "a", "b"), at(5, "a", "b")])]
    ingest_list(Handing(batches, bounded=False), tmp_path / "s.db")
    assert query(tmp_path / "s.db", "SELECT name, count(*) FROM snapshots JOIN graphs ON graph_id = id GROUP BY 1") == [
        ("g", 4)
    ]


class TestFuture:
    def test_a_clock_in_the_future_does_not_make_the_others_late(self, tmp_path: Path) -> None:
        log = [at(1, "a", "b"), at(900, "x", "y"), at(2, "a", "b"), at(3.5, "a", "c")]
        result = run(tmp_path / "s.db", cut(log, 1), max_ahead_us=HOUR_US, now_us=lambda: 3 * HOUR_US, keep_rejects=10)
        assert (result.late, result.rejected, result.events) == (0, 1, 3)
        assert "ahead of the clock by more than 1h" in result.rejects[0].reason
        assert metrics_of(tmp_path / "s.db") == metrics_of_log([log[0], *log[2:]])

    def test_a_graph_that_has_nothing_else_is_not_made(self, tmp_path: Path) -> None:
        log = [at(1, "a", "b"), at(900, "x", "y", graph="h")]
        run(tmp_path / "s.db", cut(log, 9), max_ahead_us=0, now_us=lambda: 3 * HOUR_US)
        assert query(tmp_path / "s.db", "SELECT name FROM graphs") == [("g",)]


class TestDuplicates:
    @staticmethod
    def event(hour: float, id_: str | None, graph: str = "g") -> Event:
        return Event("a", "b", int(hour * HOUR_US), graph=graph, id=id_)

    @pytest.mark.parametrize("size", [1, 2, 9])
    def test_an_id_counts_once_in_its_graph_and_window(self, tmp_path: Path, size: int) -> None:
        event = self.event
        log = [event(1, "x"), event(1, "x"), event(1.5, "x", "h"), event(1.6, None), event(1.7, None), event(2, "x")]
        log += [event(2.5, "x"), event(9, "y")]
        result = run(tmp_path / "s.db", cut(log, size), out_of_orderness_us=9 * HOUR_US, dedup_window_us=HOUR_US)
        # At 2 the window of an hour still holds, at 2.5 it does not.
        assert result.duplicates == 2
        assert result.events == 8
        assert sum(graph.events for graph in result.graphs) == 6

    def test_they_are_known_after_a_restart(self, tmp_path: Path) -> None:
        event = self.event
        batches = [("0", [event(1, "x")]), ("1", [event(1, "x"), event(1.1, "z")]), ("1", [event(1.2, "z")])]
        with pytest.raises(KeyboardInterrupt):
            ingest_list(ListSource(batches, fail_after=1), tmp_path / "s.db")
        assert ingest_list(ListSource(batches), tmp_path / "s.db").duplicates == 2

    def test_they_are_known_as_long_as_their_step_takes_events(self, tmp_path: Path) -> None:
        # The watermark is past the window of the id, in the middle of the step that the event belongs to.
        event = self.event
        log = [event(1.1, "x"), event(1.9, "y"), event(1.1, "x")]
        result = run(tmp_path / "s.db", cut(log, 1), dedup_window_us=HOUR_US // 10)
        assert (result.duplicates, result.late) == (1, 0)

    def test_ids_can_be_left_alone(self, tmp_path: Path) -> None:
        assert run(tmp_path / "s.db", cut([self.event(1, "x")] * 3, 9), dedup_window_us=0).duplicates == 0

    def test_they_count_once_in_the_graphs_of_their_type_too(self, tmp_path: Path) -> None:
        log = [Event("a", "b", HOUR_US, graph="g", type="like", id="x")] * 2
        result = run(tmp_path / "s.db", cut(log, 9), split_by_type=True)
        assert {graph.name: graph.events for graph in result.graphs} == {"g": 1, "g:like": 1}


class TestBackfill:
    @settings(max_examples=15)
    @given(seed=st.integers(0, 10**6), size=st.integers(1, 60))
    def test_an_older_log_is_as_if_it_had_been_there(self, seed: int, size: int) -> None:
        log = make_log(seed, 100)
        draw = random.Random(seed)
        missing = [event for event in log if draw.random() < 0.4] or log[:1]
        there = [event for event in log if event not in missing] or log[-1:]
        # The live source goes on; what of the backfill lies beyond its watermark waits for it.
        with temporary_store() as store:
            live = [*there, at(4000, "z", "z", "g"), at(4000, "z", "z", "h")]
            ingest_list(ListSource(cut(live, 30), name="live", bounded=False), store)
            result = ingest_list(ListSource(cut(missing, size), name="older"), store, backfill=True)
            assert (result.late, result.ended) == (0, True)
            expected = metrics_of_log([*there, *missing, at(4000, "z", "z", "g"), at(4000, "z", "z", "h")])
            closed = [row for row in expected if int(str(row[1])) < 4000 * HOUR_US]
            assert metrics_of(store) == closed

    def test_without_it_the_store_refuses_and_names_it(self, tmp_path: Path) -> None:
        run(tmp_path / "s.db", cut([at(5, "a", "b")], 1), name="one")
        with pytest.raises(StoreError) as caught:
            run(tmp_path / "s.db", cut([at(1, "a", "b")], 1), name="two")
        assert "--backfill" in str(caught.value.fix)
