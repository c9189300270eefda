"""Alerts of a graph that is made anew under its name: they go on from where they stand, by the steps of the new one."""

import pytest

from infra.steps import HOUR_US
from tests.unit.forecasting.alert_cases import BEGUN, LOW, STALE, SURPRISE, steady


@pytest.mark.parametrize("spec", [LOW, STALE], ids=["forecast", "stale"])
def test_alerts_of_a_graph_whose_steps_begin_again_go_on(side, store, spec) -> None:
    store.add(*[0] * 200)
    side.now = store.last_us + 50 * HOUR_US
    side.rule("watched", **spec)
    side.watcher.look()
    assert side.told() == [(1, "firing")]
    # Another log, which ends before what was judged.
    store.values = steady(BEGUN, seed=5)
    side.now = store.last_us + HOUR_US
    side.watcher.look()
    assert (side.one().state, side.one().judged_us) == ("resolved", store.last_us)
    store.add(*[0] * 30)
    side.now = store.last_us + 50 * HOUR_US
    side.watcher.look()
    side.watcher.look()
    assert side.told() == [(1, "firing"), (2, "resolved"), (3, "firing")]


def test_steps_are_not_held_to_the_forecasts_of_the_graph_of_before(side, store) -> None:
    store.add(*[9000] * 4)
    side.rule("odd", **SURPRISE)
    side.watcher.look()
    store.values = steady(BEGUN + 3, seed=5)
    side.watcher.look()
    store.add(100, 100)
    side.watcher.look()
    assert side.one().state == "ok"
    assert side.one().facts["median"] < 200
    assert side.told() == []


def test_look_that_is_behind_what_was_judged_makes_no_graph_anew(side, store, monkeypatch) -> None:
    side.rule("silent", **STALE)
    before = side.watcher._states.catalog()
    store.add(*[100] * 5)
    side.now = store.last_us + 2 * HOUR_US
    side.watcher.look()
    assert side.one().state == "ok"
    catalogs = [before]
    true = side.watcher._states.catalog
    monkeypatch.setattr(side.watcher._states, "catalog", lambda: catalogs.pop() if catalogs else true())
    side.watcher.look()
    assert catalogs == []
    assert (side.one().state, side.one().judged_us) == ("ok", store.last_us)


def test_steps_that_become_final_are_not_held_to_the_graph_of_before(side, store) -> None:
    store.final = BEGUN
    side.rule("odd", **SURPRISE)
    store.add(9000)
    side.watcher.look()
    store.add(*[9000] * 4)
    side.watcher.look()
    store.values = steady(BEGUN + 3, seed=5)
    store.final = BEGUN + 2
    side.watcher.look()
    assert side.all() == []
