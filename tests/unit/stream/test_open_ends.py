"""A log that was cut off in the middle of a step, whose last step stays open for what follows."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.steps import HOUR_US
from stream.events import Event
from tests.unit.stream.growth_cases import Runs, add, lines_of
from tests.unit.stream.ingest_cases import at, cut, make_log, query, run, snapshot_rows, temporary_store

LOG = [at(10.2, "a", "b"), at(10.9, "b", "a"), at(13.0, "a", "c"), at(13.5, "c", "d")]


def one_graph(seed: int) -> list[Event]:
    return [event for event in make_log(seed, 40) if event.graph == "g"]


def test_the_step_of_the_last_event_stays_open(tmp_path: Path) -> None:
    result = run(tmp_path / "store.db", cut(LOG, 3), close_last=False)
    (graph,) = result.graphs
    assert (graph.snapshots, graph.last_step_us, graph.events) == (3, 12 * HOUR_US, 2)
    assert (result.events, result.ended, result.last_us) == (4, True, int(13.5 * HOUR_US))


def test_earlier_steps_close_whatever_may_come_out_of_order(tmp_path: Path) -> None:
    result = run(tmp_path / "store.db", cut(LOG, 3), close_last=False, out_of_orderness_us=100 * HOUR_US)
    assert result.graphs[0].last_step_us == 12 * HOUR_US


def test_a_log_within_one_step_has_no_snapshot_yet(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    assert run(store, cut(LOG[:2], 1), close_last=False).graphs[0].snapshots == 0
    run(store, cut(LOG[2:], 1), name="list:2")
    assert [row[1] for row in snapshot_rows(store)] == [hour * HOUR_US for hour in (10, 11, 12, 13)]


@given(seed=st.integers(0, 30), data=st.data())
def test_a_log_in_two_pieces_comes_to_what_it_is_in_one(seed: int, data: st.DataObject) -> None:
    log = one_graph(seed)
    at_event = data.draw(st.integers(1, len(log) - 1))
    with temporary_store() as whole:
        run(whole, cut(log, 7))
        expected = snapshot_rows(whole)
    with temporary_store() as store:
        run(store, cut(log[:at_event], 5), close_last=False)
        run(store, cut(log[at_event:], 3), name="list:2")
        # Revisions too: none of its steps was closed before all of it was there.
        assert snapshot_rows(store) == expected


@pytest.mark.parametrize("closes", [True, False])
def test_a_file_that_grows_goes_on_in_its_open_step(tmp_path: Path, closes: bool) -> None:
    path, runs, whole = tmp_path / "log.txt", Runs(tmp_path), Runs(tmp_path, "whole.db")
    path.write_text(lines_of(0, 0.5, 1.2, 3.1, 3.3))
    runs.run(path, close_last=False)
    add(path, lines_of(3.4, 3.9, 5.2))
    runs.run(path, close_last=closes)
    whole.run(path, close_last=closes)
    assert runs.snapshots() == whole.snapshots()
    assert not query(runs.store, "SELECT 1 FROM snapshots WHERE revision > 0")
