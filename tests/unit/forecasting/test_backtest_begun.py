"""A backtest that was ended goes on with the steps that it began with, though its graphs have grown."""

import os
from pathlib import Path

import pytest

from forecasting.backtests.begun import Begun
from forecasting.evaluation import begun
from infra.settings import Settings
from models.contract import History
from tests.unit.forecasting.forecast_cases import some_history

GROWN = {graph: some_history(60, seed) for seed, graph in enumerate(("ash", "elm"))}
BEFORE = {"ash": GROWN["ash"].part(0, 50)}


def lengths(histories: dict[str, History]) -> dict[str, int]:
    return {graph: len(history) for graph, history in histories.items()}


@pytest.fixture
def beginning(tmp_path: Path) -> Begun:
    found = Begun.of(tmp_path / "begun", {"horizons": [1]})
    found.write(BEFORE, {"ash": 40})
    return found


def test_it_goes_on_with_what_it_saw_until_it_has_ended(beginning: Begun) -> None:
    seen = beginning.seen(GROWN)
    # The other graph was not there.
    assert lengths(seen) == {"ash": 50, "elm": 60}
    assert (seen["ash"].values == BEFORE["ash"].values).all()
    assert lengths(Begun.of(beginning.path.parent, {"horizons": [1]}).seen(GROWN))["ash"] == 50
    beginning.end()
    assert lengths(beginning.seen(GROWN)) == {"ash": 60, "elm": 60}
    beginning.end()


def test_what_was_seen_last_counts(beginning: Begun) -> None:
    beginning.write({graph: history.part(0, 55) for graph, history in GROWN.items()}, {"ash": 40, "elm": 20})
    assert lengths(beginning.seen(GROWN)) == {"ash": 55, "elm": 55}


def test_another_command_begins_with_the_newest_steps(beginning: Begun) -> None:
    assert lengths(Begun.of(beginning.path.parent, {"horizons": [1, 24]}).seen(GROWN))["ash"] == 60


def test_a_graph_that_is_not_the_same_any_more_begins_anew(beginning: Begun) -> None:
    ash = GROWN["ash"]
    values = ash.values.copy()
    values[39] += 1
    assert len(beginning.seen({"ash": History(ash.step_us, ash.start_us, values)})["ash"]) == 60
    values = ash.values.copy()
    # Behind the first origin: the training holds, and a part that saw this step has another name.
    values[40] += 1
    assert len(beginning.seen({"ash": History(ash.step_us, ash.start_us, values)})["ash"]) == 50
    assert len(beginning.seen({"ash": History(ash.step_us, ash.start_us + 1, ash.values)})["ash"]) == 60
    assert len(beginning.seen({"ash": ash.part(0, 45)})["ash"]) == 45


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"ash": 5}', '{"ash": [50, {}]}', '{"ash": [50, [1]]}'])
def test_a_damaged_file_is_none(beginning: Begun, text: str) -> None:
    beginning.path.write_text(text)
    assert lengths(beginning.seen(GROWN))["ash"] == 60


def test_what_began_longer_ago_than_parts_are_kept_is_forgotten(beginning: Begun) -> None:
    os.utime(beginning.path, (0, 0))
    assert lengths(beginning.seen(GROWN))["ash"] == 60
    Begun.of(beginning.path.parent, "another").end()
    assert not beginning.path.exists()


def test_the_same_command_is_told_by_what_it_asks(tmp_path: Path) -> None:
    def path(graphs: tuple[str, ...] = ("a", "b"), **sections: dict[str, object]) -> Path:
        return begun(graphs, Settings(models={"directory": tmp_path}, **sections)).path  # type: ignore[arg-type]

    assert path() == path(("b", "a", "a")) == path(backtest={"workers": 3})
    others = [
        path(("a",)),
        path(()),
        path(backtest={"horizons": (1,)}),
        path(backtest={"floors": ("all",)}),
        path(training={"max_iterations": 7}),
        path(forecast={"seed": 9}),
    ]
    assert len({path(), *others}) == 7


def test_a_command_that_still_runs_is_not_one_that_was_ended(beginning: Begun) -> None:
    with beginning.alone() as running, beginning.alone() as second:
        assert running == beginning
        assert second is None
    with beginning.alone() as again:
        assert again == beginning
