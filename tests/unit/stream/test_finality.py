"""No step is final that a partition which feeds its graph can still revise, whoever reads the partition or nobody."""

from pathlib import Path

import pytest

from infra.steps import HOUR_US
from tests.unit.stream.ingest_cases import at, ingest_list, query, snapshot_rows
from tests.unit.stream.sharing_cases import Claim, Read, Release, ScriptSource

BOTH = ("0", "1")
FED = [Claim(BOTH), Read("0", [at(1, "a", "b")]), Read("1", [at(1, "a", "b")])]


def final_h(store: Path) -> int | None:
    ((final_us,),) = query(store, "SELECT final_us FROM graphs")
    return None if final_us is None else int(str(final_us)) // HOUR_US


def test_a_partition_that_nobody_reads_holds_back_what_is_final(tmp_path: Path) -> None:
    store = tmp_path / "s.db"
    alone = [*FED, Release(["1"]), Read("0", [at(900, "a", "b")])]
    ingest_list(ScriptSource(alone, BOTH), store)
    assert final_h(store) is None
    back = [Claim(BOTH), Read("1", [at(2, "x", "y"), at(901, "x", "y")])]
    assert ingest_list(ScriptSource(back, BOTH), store).late == 0
    assert final_h(store) == 900
    whole = tmp_path / "whole.db"
    ingest_list(ScriptSource([*FED, back[1], Read("0", [at(900, "a", "b")])]), whole)
    assert [(*row[:2], *row[3:]) for row in snapshot_rows(store)] == [
        (*row[:2], *row[3:]) for row in snapshot_rows(whole)
    ]


@pytest.mark.parametrize(("hours", "final"), [(30, 20), (300, 290)])
def test_one_that_is_no_more_holds_it_back_like_an_idle_one(tmp_path: Path, hours: int, final: int) -> None:
    # The topic of partition 1 is gone, or no longer chosen.
    gone = [*FED, Release(["1"]), Read("0", [at(hours, "a", "b")])]
    ingest_list(ScriptSource(gone, ["0"]), tmp_path / "s.db", idle_hold_us=10 * HOUR_US)
    assert final_h(tmp_path / "s.db") == final


def test_that_a_partition_was_idle_is_forgotten_with_its_reader(tmp_path: Path) -> None:
    silent = [*FED, Read("1"), Release(["1"]), Read("0", [at(900, "a", "b")])]
    ingest_list(ScriptSource(silent, BOTH), tmp_path / "s.db", idle_hold_us=10 * HOUR_US)
    assert final_h(tmp_path / "s.db") is None


def test_other_graphs_do_not_wait_for_it(tmp_path: Path) -> None:
    script = [*FED, Release(["1"]), Read("0", [at(10, "a", "b", "h"), at(900, "a", "b", "h")])]
    ingest_list(ScriptSource(script, BOTH), tmp_path / "s.db")
    finals = dict(query(tmp_path / "s.db", "SELECT name, final_us / 3600000000 FROM graphs"))
    assert finals == {"g": None, "h": 900}


def test_ids_are_remembered_as_long_as_their_graph_waits(tmp_path: Path) -> None:
    def with_id(hour: float, graph: str = "g") -> list:
        event = at(hour, "a", "b", graph)
        return [type(event)(event.src, event.dst, event.ts_us, graph=graph, id=f"e{hour}")]

    script = [*FED, Read("1", with_id(1.5)), Release(["1"]), Read("0", with_id(900))]
    again = [Claim(BOTH), Read("1", with_id(1.5))]
    ingest_list(ScriptSource(script, BOTH), tmp_path / "s.db")
    assert ingest_list(ScriptSource(again, BOTH), tmp_path / "s.db").duplicates == 1
