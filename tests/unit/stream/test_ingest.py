import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import InputError, StoreError
from infra.steps import DAY_US, HOUR_US, step_start_us
from stream.closing import Limits
from stream.events import Event, Reject
from stream.ingest import Ingest, IngestOptions
from stream.progress import IngestProgress
from stream.store import open_reader, open_writer
from tests.unit.stream.ingest_cases import (
    ListSource,
    at,
    counts_by_hand,
    counts_in_store,
    cut,
    dump,
    ingest_list,
    make_log,
    query,
    run,
    snapshot_rows,
    temporary_store,
)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def late_by_hand(log: list[Event], bound_us: int) -> list[bool]:
    largest_us, late = -(2**60), []
    for event in log:
        late.append(step_start_us(event.ts_us, HOUR_US) + HOUR_US <= largest_us - bound_us)
        largest_us = max(largest_us, event.ts_us)
    return late


class TestSnapshots:
    def test_every_step_from_the_first_event_to_the_last_has_one(self, store: Path) -> None:
        result = run(store, cut([at(10.2, "a", "b"), at(10.9, "b", "a"), at(13.0, "a", "c")], 2))
        with open_reader(f"sqlite:///{store}") as reader:
            table = reader.snapshots("g", metrics=("events", "new_nodes", "new_edges", "total_nodes", "total_edges"))
        assert table.step_start_us.tolist() == [hour * HOUR_US for hour in (10, 11, 12, 13)]
        assert table.values.tolist() == [[2, 2, 2, 2, 2], [0, 0, 0, 2, 2], [0, 0, 0, 2, 2], [1, 1, 1, 3, 3]]
        (graph,) = result.graphs
        assert (graph.events, graph.nodes, graph.edges, graph.snapshots) == (3, 3, 3, 4)
        assert (graph.first_step_us, graph.last_step_us) == (10 * HOUR_US, 13 * HOUR_US)

    def test_a_graph_that_falls_silent_ends_with_empty_steps(self, store: Path) -> None:
        run(store, cut([at(1, "a", "b", "g"), at(4, "a", "b", "h")], 1))
        counts = counts_in_store(store)
        assert [row["events"] for row in counts["g"].values()] == [1, 0, 0, 0]
        assert [row["events"] for row in counts["h"].values()] == [1]

    @settings(max_examples=25)
    @given(seed=st.integers(0, 10**6), sizes=st.lists(st.integers(8, 60), min_size=1, max_size=4), data=st.data())
    def test_neither_order_within_the_bound_nor_the_cut_matters(
        self, seed: int, sizes: list[int], data: st.DataObject
    ) -> None:
        log = make_log(seed, 150)
        bound_us = data.draw(st.sampled_from([0, HOUR_US // 2, 30 * HOUR_US]))
        draw = random.Random(seed + 1)
        arrived = sorted(log, key=lambda event: event.ts_us + draw.uniform(0, bound_us))
        with temporary_store() as first, temporary_store() as second:
            run(first, cut(log, len(log)))
            result = run(second, cut(arrived, *sizes), out_of_orderness_us=bound_us)
            assert result.late == 0
            assert snapshot_rows(first) == snapshot_rows(second)
            assert counts_in_store(second) == counts_by_hand(log)

    @settings(max_examples=25)
    @given(seed=st.integers(0, 10**6), size=st.integers(8, 70), bound_h=st.sampled_from([0, 1, 4]))
    def test_late_events_are_a_function_of_the_log_alone(self, seed: int, size: int, bound_h: int) -> None:
        log = make_log(seed, 120)
        random.Random(seed).shuffle(log)
        late = late_by_hand(log, bound_h * HOUR_US)
        with temporary_store() as store:
            result = run(store, cut(log, size), out_of_orderness_us=bound_h * HOUR_US)
            assert result.late == sum(late)
            assert result.events == len(log)
            counted = [event for event, is_late in zip(log, late, strict=True) if not is_late]
            # A graph that only late events name has not begun.
            by_graph = {
                graph: sum(is_late for event, is_late in zip(log, late, strict=True) if event.graph == graph)
                for graph in {event.graph for event in counted}
            }
            assert {graph.name: graph.late for graph in result.graphs} == by_graph
            assert {reject.reason for reject in result.rejects} == (
                {"late: its step had closed before it came"} if any(late) else set()
            )
            assert _spans_aside(counts_in_store(store)) == _spans_aside(counts_by_hand(counted))

    def test_small_caches_and_chunks_change_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        log = make_log(3, 400)
        run(tmp_path / "plain.db", cut(log, 37))
        for name in ("KNOWN_NAMES", "KNOWN_NODES", "KNOWN_EDGES"):
            monkeypatch.setattr(f"stream.store.sql.dictionary.{name}", 3)
        monkeypatch.setattr("stream.store.sql.open_steps.HELD_ROWS", 3)
        monkeypatch.setattr("stream.closing._CHUNK_STEPS", 5)
        monkeypatch.setattr("stream.closing._CHUNK_EDGES", 4)
        run(tmp_path / "small.db", cut(log, 37))
        assert dump(tmp_path / "small.db") == dump(tmp_path / "plain.db")

    def test_the_cut_changes_no_row_of_any_table_but_the_position(self, tmp_path: Path) -> None:
        log = make_log(5, 300)
        dumps = []
        for size in (1, 17, 300):
            run(tmp_path / f"{size}.db", cut(log, size), split_by_type=True)
            dumps.append(dump(tmp_path / f"{size}.db"))
            del dumps[-1]["partitions"]
        assert dumps[0] == dumps[1] == dumps[2]

    def test_split_by_type_keeps_a_graph_for_each_type(self, tmp_path: Path) -> None:
        log = make_log(7, 200)
        run(tmp_path / "split.db", cut(log, 41), split_by_type=True)
        split = [Event(e.src, e.dst, e.ts_us, f"{e.graph}:{e.type}") for e in log if e.type]
        by_hand = counts_by_hand([*log, *split])
        assert counts_in_store(tmp_path / "split.db") == by_hand
        assert set(by_hand) == {"g", "h", "g:like", "g:reply", "h:like", "h:reply"}


class TestPartitions:
    def test_steps_wait_for_the_slowest_partition(self, store: Path) -> None:
        source = ListSource(
            [("0", [at(1, "a", "b")]), ("1", [at(1.5, "c", "d")]), ("0", [at(9, "a", "b")]), ("1", [at(3, "a", "d")])],
            bounded=False,
        )
        result = ingest_list(source, store)
        assert not result.ended
        assert result.late == 0
        assert [row["events"] for row in counts_in_store(store)["g"].values()] == [2, 0]

    def test_an_event_is_judged_by_its_own_partition(self, store: Path) -> None:
        source = ListSource(
            [("0", [at(1, "a", "b")]), ("1", [at(1, "a", "b")]), ("0", [at(50, "a", "b")]), ("1", [at(2, "a", "b")])]
        )
        assert ingest_list(source, store).late == 0
        source = ListSource([("0", [at(1, "a", "b"), at(50, "a", "b"), at(2, "a", "b")])], name="other", bounded=False)
        with temporary_store() as other:
            assert ingest_list(source, other).late == 1

    def test_steps_wait_for_a_partition_that_has_no_event_yet(self, store: Path) -> None:
        source = ListSource(
            [("0", [at(1, "a", "b"), at(9, "a", "b")]), ("1", [at(2, "a", "c"), at(10, "a", "c")]), ("0", [])],
            bounded=False,
        )
        closed: list[int] = []
        result = ingest_list(source, store, lambda progress: closed.append(progress.snapshots))
        assert result.late == 0
        assert closed[:2] == [0, 8]
        assert counts_in_store(store)["g"][2 * HOUR_US]["events"] == 1


class TestAgain:
    def test_the_same_bounded_source_changes_nothing(self, store: Path) -> None:
        batches = cut(make_log(1, 100), 30)
        first = run(store, batches)
        before = store.read_bytes()
        source = ListSource(batches)
        again = ingest_list(source, store)
        assert (first.unchanged, again.unchanged) == (False, True)
        assert again.graphs == first.graphs
        assert source.read == 0
        assert store.read_bytes() == before

    @pytest.mark.parametrize("stop", [0, 1, 4, 9])
    def test_an_interrupted_run_goes_on_where_it_stopped(self, tmp_path: Path, stop: int) -> None:
        batches = cut(make_log(2, 200), 20)
        run(tmp_path / "whole.db", batches)
        with pytest.raises(KeyboardInterrupt):
            ingest_list(ListSource(batches, fail_after=stop), tmp_path / "parts.db")
        rest = ListSource(batches)
        result = ingest_list(rest, tmp_path / "parts.db")
        assert rest.read == 200 - 20 * stop
        assert result.events == 200
        assert dump(tmp_path / "parts.db") == dump(tmp_path / "whole.db")

    def test_the_result_can_be_asked_after_an_interruption(self, store: Path) -> None:
        with open_writer(f"sqlite:///{store}") as writer:
            job = Ingest(ListSource(cut(make_log(2, 50), 20), fail_after=2), writer, IngestOptions())
            with pytest.raises(KeyboardInterrupt):
                job.run()
            assert (job.result().events, job.result().ended) == (40, False)

    def test_another_step_size_is_refused(self, store: Path) -> None:
        batches = cut([at(1, "a", "b")], 1)
        run(store, batches)
        for name in ("list:test", "list:next"):
            with pytest.raises(StoreError, match=r"'g' is kept in steps of 1h, not of 1d"):
                run(store, batches, name=name, step_us=DAY_US)

    @pytest.mark.parametrize("before", [True, False])
    def test_another_choice_of_graphs_is_refused(self, store: Path, before: bool) -> None:
        batches = cut([at(1, "a", "b", type_="reply")], 1)
        run(store, batches, split_by_type=before)
        with pytest.raises(StoreError, match="was ingested with"):
            run(store, batches, split_by_type=not before)


class TestSecondSource:
    def test_it_may_go_on_after_the_last_closed_step(self, store: Path) -> None:
        first, second = [at(1, "a", "b")], [at(4, "a", "c"), at(4.5, "a", "b")]
        run(store, cut(first, 9), name="january")
        run(store, cut(second, 9), name="february")
        assert counts_in_store(store) == counts_by_hand([*first, *second])

    @pytest.mark.parametrize("hour", [0.5, 3.9])
    def test_it_must_not_begin_before(self, store: Path, hour: float) -> None:
        run(store, cut([at(1, "a", "b"), at(3, "a", "b")], 9), name="january")
        before = dump(store)
        with pytest.raises(StoreError, match=r"closed up to 1970-01-01T04:00:00Z.*filled from january") as caught:
            run(store, cut([at(hour, "a", "b"), at(5, "a", "b")], 9), name="february")
        assert "--graph" in str(caught.value.fix)
        assert dump(store) == before

    def test_it_must_wait_for_the_end_of_the_first(self, store: Path) -> None:
        ingest_list(ListSource(cut([at(1, "a", "b")], 1), name="follow:log", bounded=False), store)
        before = dump(store)
        with pytest.raises(StoreError, match="still being filled from follow:log"):
            run(store, cut([at(1, "a", "b")], 1), name="file:log")
        assert dump(store) == before

    def test_other_graphs_are_free(self, store: Path) -> None:
        run(store, cut([at(5, "a", "b", "g")], 1), name="one")
        run(store, cut([at(1, "a", "b", "h")], 1), name="two")
        assert set(counts_in_store(store)) == {"g", "h"}

    def test_what_comes_out_of_order_behind_closed_steps_is_late(self, store: Path) -> None:
        run(store, cut([at(10, "a", "b")], 1), name="one")
        result = run(store, cut([at(11, "a", "b"), at(10.5, "a", "b")], 1), name="two", out_of_orderness_us=5 * HOUR_US)
        assert result.late == 1
        assert [row["events"] for row in counts_in_store(store)["g"].values()] == [1, 1]


class TestRefusals:
    def test_a_gap_that_makes_too_many_empty_steps(self, store: Path) -> None:
        log = [at(1, "a", "b"), at(2, "a", "b"), at(500, "a", "b"), at(501, "a", "b")]
        limits = Limits(max_empty_steps=400)
        run(store, cut(log[:2], 1), name="before")
        before = dump(store)
        with pytest.raises(InputError) as caught:
            run(store, cut(log[2:], 9), name="after", limits=limits)
        assert "497 empty snapshots" in caught.value.message
        assert "from 1970-01-01T03:00:00Z to 1970-01-21T20:00:00Z" in caught.value.message
        assert "max_empty_steps" in str(caught.value.fix)
        assert dump(store) == before
        run(store, cut(log[2:], 9), name="after", limits=Limits(max_empty_steps=497))
        assert len(counts_in_store(store)["g"]) == 501

    def test_too_small_a_step_is_found_before_memory_is_taken(self, store: Path) -> None:
        with pytest.raises(InputError, match="empty snapshots"):
            run(store, cut([at(1, "a", "b"), at(1_000_000, "a", "b")], 9), step_us=1_000_000)
        assert not store.exists()

    @pytest.mark.parametrize(("limits", "setting"), [(Limits(max_nodes=3), "nodes"), (Limits(max_edges=2), "edges")])
    def test_more_nodes_or_edges_than_allowed(self, store: Path, limits: Limits, setting: str) -> None:
        log = [at(1, "a", "b"), at(2, "b", "c"), at(3, "c", "d"), at(4, "d", "a")]
        with pytest.raises(StoreError) as caught:
            run(store, cut(log, 1), limits=limits)
        assert caught.value.place == f"[metrics] max_{setting}"
        assert len(snapshot_rows(store)) == 2


class TestReports:
    def test_progress_is_told_after_each_commit(self, store: Path) -> None:
        told: list[IngestProgress] = []
        log = [at(1, "a", "b"), at(2.5, "a", "b"), at(4, "a", "b")]
        ingest_list(ListSource(cut(log, 2)), store, told.append)
        assert [(p.events, p.snapshots, p.event_time_us) for p in told] == [
            (2, 1, 2.5 * HOUR_US),
            (3, 4, 4 * HOUR_US),
        ]

    def test_rejects_are_counted_and_sampled(self, store: Path) -> None:
        rejects = [Reject(f"log, line {n}", "x", "no time") for n in range(5)]
        source = ListSource(cut([at(1, "a", "b"), at(2, "a", "b")], 1), rejects={0: rejects[:3], 1: rejects[3:]})
        result = ingest_list(source, store, keep_rejects=4)
        assert result.rejected == 5
        assert list(result.rejects) == rejects[:4]

    def test_a_batch_that_moves_nothing_is_not_committed(self, store: Path) -> None:
        class Beating(ListSource):
            def batches(self, claims):  # type: ignore[no-untyped-def]
                for batch in super().batches(claims):
                    yield batch
                    still = tuple(replace(part, begin=0, end=0) for part in batch.parts)
                    yield replace(batch, events=type(batch.events).from_events([], batch.events.interner), parts=still)

        told: list[IngestProgress] = []
        source = Beating(cut([at(1, "a", "b")], 1), bounded=False)
        ingest_list(source, store, told.append)
        assert len(told) == 1

    def test_nodes_and_edges_know_where_they_were_first_seen(self, store: Path) -> None:
        run(store, cut([at(1, "a", "b"), at(2, "b", "a"), at(2, "c", "c"), at(3, "a", "b")], 2))
        names = dict(query(store, "SELECT name, first_step_us FROM nodes JOIN node_steps USING (id)"))
        assert names == {"a": HOUR_US, "b": HOUR_US, "c": 2 * HOUR_US}
        steps = query(
            store,
            "SELECT s.name, d.name, e.first_step_us FROM edges e JOIN nodes s ON pair >> 32 = s.id"
            " JOIN nodes d ON pair & 4294967295 = d.id",
        )
        assert set(steps) == {("a", "b", HOUR_US), ("b", "a", 2 * HOUR_US), ("c", "c", 2 * HOUR_US)}


def _spans_aside(counts: dict[str, dict[int, dict[str, int]]]) -> dict[str, list[dict[str, int]]]:
    """Keep the steps with events: where late events end a log, they still say how far it reaches."""
    return {graph: [row for row in rows.values() if row["events"]] for graph, rows in counts.items()}
