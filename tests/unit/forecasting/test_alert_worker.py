"""Watching a store that grows, is revised and goes away: each step judged once, each change told once."""

import json
from pathlib import Path

import pytest

from forecasting.alerts import evaluation, judging
from forecasting.alerts.watches import LostWatchError
from forecasting.reports.deliveries import DeliveryError
from forecasting.reports.targets import kinds
from infra.errors import ModelError
from infra.steps import HOUR_US, format_time
from tests.unit.forecasting.alert_cases import BEGUN, LOW, STALE, SURPRISE, GrowingStore, Side, steady


def test_surprise_is_found_when_its_step_closes_and_is_over_when_the_next_is_usual(side, store) -> None:
    side.rule("odd", **SURPRISE)
    assert side.watcher.look() == 1
    assert side.all() == []
    store.add(100)
    assert side.watcher.look() == 1
    assert (side.one().state, side.told()) == ("ok", [])
    store.add(5000)
    side.watcher.look()
    fired = side.one()
    assert (fired.state, fired.metric, fired.judged_us) == ("firing", "events", store.last_us)
    assert fired.facts["observed"] == 5000
    assert fired.facts["interval"][1] < 500
    assert fired.facts["step"] == format_time(store.last_us)
    store.add(100)
    side.watcher.look()
    assert side.told() == [(1, "firing"), (2, "resolved")]
    assert side.watcher.look() == 0


def test_forecast_is_judged_by_the_state_behind_each_step(side, store) -> None:
    side.rule("low", **LOW)
    side.watcher.look()
    assert side.one().facts["probability"] == 0
    store.add(*[0] * 30)
    side.watcher.look()
    fired = side.one()
    assert fired.state == "firing"
    assert fired.facts["probability"] > 0.5
    assert fired.facts["observed_until"] == format_time(store.last_us + HOUR_US)
    # Thirty missed steps were judged, and one change was told.
    assert side.book.all()[0].evaluations == 31
    assert side.told() == [(1, "firing")]


def test_pause_is_caught_up_with_one_judgement_a_step_and_one_message(side, store) -> None:
    side.rule("odd", **SURPRISE)
    side.watcher.look()
    store.add(100, 5000, 100, 100, 7000, 100, 100)
    side.watcher.look()
    assert side.book.all()[0].evaluations == 7
    states = [one.state for one in reversed(side.alerts.transitions(side.one().id))]
    assert states == ["firing", "resolved", "firing", "resolved"]
    assert side.told() == [(4, "resolved")]


def test_pause_longer_than_is_caught_up_with_skips_the_oldest_steps(tmp_path: Path, store) -> None:
    side = Side(tmp_path, store, catch_up_steps=3)
    side.rule("odd", **SURPRISE)
    side.watcher.look()
    store.add(5000, *[100] * 10)
    side.watcher.look()
    assert side.book.all()[0].evaluations == 3
    assert side.told() == []


def test_steps_that_were_judged_apart_or_at_once_end_alike(tmp_path: Path) -> None:
    events = [100, 5000, 100, 100, 7000]
    sides = []
    for name, at_once in (("apart", False), ("at once", True)):
        (folder := tmp_path / name).mkdir()
        store = GrowingStore()
        side = Side(folder, store)
        side.rule("odd", **SURPRISE, leads=[1, 3])
        side.rule("low", **LOW)
        side.watcher.look()
        for value in [events] if at_once else [[value] for value in events]:
            store.add(*value)
            side.watcher.look()
        sides.append([(row.rule, row.metric, row.state, row.changes, row.facts) for row in side.all()])
        side.file.close()
    assert sides[0] == sides[1]
    assert len(sides[0]) == 2


def test_only_final_steps_can_be_surprises(side, store) -> None:
    store.final = BEGUN
    side.rule("odd", **SURPRISE)
    side.watcher.look()
    store.add(5000, 100)
    side.watcher.look()
    assert side.all() == []
    # A revision before the step is final: the spike was never there.
    store.values = steady(BEGUN + 2, seed=3)
    side.watcher.look()
    store.final = BEGUN + 2
    side.watcher.look()
    assert (side.one().state, side.told()) == ("ok", [])


def test_steps_that_become_final_long_after_they_closed_are_judged(tmp_path: Path, store: GrowingStore) -> None:
    side = Side(tmp_path, store, catch_up_steps=2)
    store.final = BEGUN
    side.rule("odd", **SURPRISE)
    side.watcher.look()
    # More provisional steps than anything else looks back at.
    store.add(100, 5000, *[100] * 200)
    side.watcher.look()
    store.final = BEGUN + 2
    side.watcher.look()
    assert (side.one().state, side.one().facts["observed"]) == ("firing", 5000)
    side.file.close()


def test_step_is_held_to_the_forecast_that_was_kept_before_it(side, store) -> None:
    side.rule("odd", **SURPRISE)
    side.watcher.look()
    ((kept,),) = side.file.rows("SELECT step_us FROM alert_forecasts")
    assert kept == store.last_us + HOUR_US
    store.add(100)
    # The past reads otherwise by now; what was forecast of the step does not change by that.
    store.values[:BEGUN] *= 50
    side.watcher.look()
    assert side.one().state == "ok"
    assert side.one().facts["median"] < 200


def test_revision_judges_the_step_anew_and_takes_back_what_no_longer_holds(side, store) -> None:
    store.final = BEGUN
    side.rule("low", **LOW)
    store.add(*[0] * 30)
    side.watcher.look()
    assert side.one().state == "firing"
    store.values[BEGUN:] = steady(30, seed=2)
    side.watcher.look()
    assert side.one().state == "resolved"
    assert side.told() == [(1, "firing"), (2, "resolved")]
    assert side.watcher.look() == 0


def test_silent_graph_is_told_by_the_clock_and_over_with_the_next_step(side, store) -> None:
    side.rule("silent", **STALE)
    side.watcher.look()
    assert side.one().state == "ok"
    side.now = store.last_us + HOUR_US + 3 * HOUR_US
    side.watcher.look()
    side.watcher.look()
    assert (side.one().state, side.one().metric) == ("firing", "")
    store.add(100, 100, 100)
    side.watcher.look()
    assert side.told() == [(1, "firing"), (2, "resolved")]


def test_two_processes_tell_a_change_once(tmp_path: Path, side: Side, store: GrowingStore) -> None:
    other = Side(tmp_path, store, side.settings.api.service_db)
    side.rule("odd", **SURPRISE)
    side.rule("silent", **STALE)
    for _ in range(3):
        store.add(5000)
        for one in (side, other, side):
            one.now = store.last_us + 9 * HOUR_US
            one.watcher.look()
        store.add(100)
        for one in (other, side, other):
            one.watcher.look()
    rows = {row.rule: row for row in side.all()}
    changes = rows["odd"].changes + rows["silent"].changes
    assert rows["odd"].state == "resolved"
    assert len(side.told()) == changes
    other.file.close()


def test_graph_that_another_process_judges_is_left_to_it_until_its_lease_is_over(
    tmp_path: Path, side: Side, store: GrowingStore
) -> None:
    side.rule("odd", **SURPRISE)
    side.watcher.look()
    store.add(5000)
    slow = side.watcher._watches.claim("town", "what it saw")
    assert slow is not None
    other = Side(tmp_path, store, side.settings.api.service_db)
    other.now = side.now
    assert other.watcher.look() == 0
    other.now += int(other.settings.jobs.lease_s * 1e6) + 1
    assert other.watcher.look() == 1
    assert side.one().state == "firing"
    with pytest.raises(LostWatchError):
        side.watcher._watches.renew(slow)
    other.file.close()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ModelError("the model made no forecast"), "town: the model made no forecast"),
        (ZeroDivisionError("x"), "town: something went wrong that should not; the log has it"),
    ],
)
def test_failure_is_counted_told_and_tried_again_later(side, store, monkeypatch, error, said) -> None:
    side.rule("low", **LOW)

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(evaluation, "judge_forecasts", fail)
    assert side.watcher.look() == 0
    assert side.watcher.look() == 0
    (row,) = side.book.all()
    assert (row.failures, row.problem) == (1, said)
    monkeypatch.undo()
    side.watcher._retry_at.clear()
    assert side.watcher.look() == 1
    assert side.book.all()[0].problem is None


def test_rule_that_does_not_fit_the_steps_says_so_and_holds_up_no_other(side, store) -> None:
    side.rule("daily", kind="forecast", metric="events", below=1, within=5, aggregate="day")
    side.rule("low", **LOW)
    side.watcher.look()
    rows = {row.rule.name: row for row in side.book.all()}
    assert "no day ends" in (rows["daily"].problem or "")
    assert [row.rule for row in side.all()] == ["low"]


def fired(side: Side, store: GrowingStore) -> None:
    side.rule("odd", **SURPRISE)
    side.watcher.look()
    store.add(5000)
    side.watcher.look()
    assert side.one().state == "firing"


def test_silence_holds_back_what_is_told_and_its_end_tells_what_is_still_news(side, store) -> None:
    side.rule("odd", **SURPRISE)
    side.watcher.look()
    store.add(100)
    side.watcher.look()
    side.alerts.silence(side.one().id, side.now + HOUR_US)
    store.add(5000)
    side.watcher.look()
    assert (side.one().state, side.told()) == ("firing", [])
    side.now += 2 * HOUR_US
    side.watcher.look()
    assert side.told() == [(1, "firing")]
    side.alerts.silence(side.one().id, side.now + HOUR_US)
    store.add(100, 5000)
    side.watcher.look()
    side.alerts.silence(side.one().id, None)
    side.watcher.look()
    # It was over and has begun again meanwhile: those who were told know all that matters.
    assert side.one().changes == 3
    assert side.told() == [(1, "firing")]


def test_acknowledgement_lasts_until_the_alert_is_over(side, store) -> None:
    fired(side, store)
    assert side.alerts.acknowledge(side.one().id, "ann")
    assert side.alerts.acknowledge(side.one().id, "bob")
    assert side.one().acknowledged_by == "ann"
    store.add(100)
    side.watcher.look()
    assert side.one().acknowledged_by is None
    assert not side.alerts.acknowledge(side.one().id, "ann")


def test_rule_that_is_changed_or_removed_ends_its_alerts_and_says_so(side, store) -> None:
    fired(side, store)
    side.rule("odd", **SURPRISE)
    assert side.one().state == "firing"
    side.rule("odd", **(SURPRISE | {"false_discovery_rate": 0.2}))
    assert side.one().state == "resolved"
    assert side.alerts.transitions(side.one().id)[0].facts["ended"] == "the rule was changed"
    assert side.told() == [(1, "firing"), (2, "resolved")]
    assert side.book.remove("odd")
    assert not side.book.remove("odd")
    side.now += 2 * 3600 * 1_000_000
    side.alerts.sweep()
    assert len(side.all()) == 1, "what is not delivered yet stays"
    assert side.deliver() == 2
    side.alerts.sweep()
    assert side.all() == []


def test_rule_that_is_removed_while_an_age_is_judged_fires_no_more(side, store, monkeypatch) -> None:
    side.rule("silent", **STALE)
    side.now = store.last_us + HOUR_US + 3 * HOUR_US
    side.watcher.look()
    assert side.one().state == "firing"
    judge = judging.judge_stale

    def removed_meanwhile(*arguments):
        assert side.book.remove("silent")
        return judge(*arguments)

    monkeypatch.setattr("forecasting.alert_worker.judge_stale", removed_meanwhile)
    side.watcher.look()
    assert side.one().state == "resolved"
    assert side.told() == [(1, "firing"), (2, "resolved")]


def test_rule_that_is_removed_under_silence_tells_those_who_know_and_no_others(side, store) -> None:
    fired(side, store)
    side.alerts.silence(side.one().id, side.now + HOUR_US)
    side.book.remove("odd")
    assert side.told() == [(1, "firing"), (2, "resolved")]
    side.rule("odd", **SURPRISE)
    store.add(100)
    side.watcher.look()
    for row in side.all():
        side.alerts.silence(row.id, side.now + HOUR_US)
    store.add(5000)
    side.watcher.look()
    side.book.remove("odd")
    assert side.told() == [(1, "firing"), (2, "resolved")]


def test_rules_of_the_settings_come_and_go_with_them(tmp_path: Path, store: GrowingStore) -> None:
    with_rule = Side(tmp_path, store, rules={"odd": {"kind": "surprise", "graph": "*", "deliver": ["one"]}})
    with_rule.rule("mine", **STALE)
    with_rule.book.take_settings(with_rule.settings.alerts, with_rule.settings.reports.targets)
    assert [(row.rule.name, row.origin) for row in with_rule.book.all()] == [("mine", "api"), ("odd", "config")]
    without = Side(tmp_path, store)
    without.book.take_settings(without.settings.alerts, without.settings.reports.targets)
    assert [row.rule.name for row in without.book.all()] == ["mine"]


def test_delivery_says_in_words_and_facts_what_has_changed(side, store, tmp_path: Path) -> None:
    fired(side, store)
    assert side.deliver() == 1
    texts = sorted((tmp_path / "one").iterdir())
    assert [path.suffix for path in texts] == [".json", ".txt"]
    said = json.loads(texts[0].read_text())
    assert (said["rule"], said["graph"], said["metric"], said["state"]) == ("odd", "town", "events", "firing")
    assert said["links"]["page"] == "/graphs/town"
    text = texts[1].read_text()
    assert "events of town was 5,000 in the step" in text
    assert "outside the 95 % interval" in text
    assert "/silence" in text


def test_what_waits_to_be_tried_again_waits_for_the_end_of_a_silence(side, store, monkeypatch) -> None:
    fired(side, store)
    is_down = True

    def send(*_: object) -> None:
        if is_down:
            raise DeliveryError("not now")

    monkeypatch.setattr(kinds, "send", send)
    assert side.deliver() == 1
    side.alerts.silence(side.one().id, side.now + 8 * HOUR_US)
    is_down = False
    side.now += HOUR_US
    assert side.deliver() == 0
    side.now += 8 * HOUR_US
    assert side.deliver() == 1


def test_what_is_over_never_arrives_before_what_began(side, store, monkeypatch) -> None:
    fired(side, store)
    store.add(100)
    side.watcher.look()
    sent, is_down = [], True

    def send(parcel, _targets, _name: str, _timeout_s: float) -> None:
        if is_down:
            raise DeliveryError("not now")
        sent.append((parcel.key, parcel.notice["state"]))

    monkeypatch.setattr(kinds, "send", send)
    assert side.deliver() == 1
    side.now += int(side.settings.reports.retry_max_s * 1e6)
    is_down = False
    assert side.deliver() == 2
    assert [state for _, state in sent] == ["firing", "resolved"]
    assert len({key for key, _ in sent}) == 2
    assert side.deliver() == 0
