"""A report: equal runs are equal, its numbers are the forecast's, and it says what it rests on."""

import io
import json
import re
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from forecasting.live import LiveState
from forecasting.reports import findings
from forecasting.reports.calendar import Scale
from forecasting.reports.contents import ReportRequest
from forecasting.reports.documents import last_forecast
from forecasting.reports.index import entry, render_index
from forecasting.reports.making import Report, ReportCancelledError, make_report
from forecasting.resolving import CalibratedOn
from infra.errors import StoreError, UsageError
from infra.schema import METRIC_INDEX, METRIC_NAMES
from infra.steps import DAY_US, HOUR_US, WEEK_US, format_time
from models.baselines import ProfileLevel
from models.contract import History
from stream.store.base import GraphInfo, SnapshotTable
from tests.unit.forecasting.forecast_cases import START_US, some_history

STEPS = 24 * 80


class Reader:
    """A store with one graph."""

    def __init__(self, history: History, *, late: int = 0, final_us: int | None = None) -> None:
        self.history, self.late, self.final_us = history, late, final_us

    def graph(self, name: str) -> GraphInfo:
        history = self.history
        events = int(history.values[:, 0].sum())
        last_us = history.start_us + (len(history) - 1) * history.step_us
        return GraphInfo(
            name, history.step_us, len(history), events, history.start_us, last_us, self.late, self.final_us
        )

    def graphs(self) -> list[GraphInfo]:
        return [self.graph("toy")]

    def snapshots(self, name: str, **_: object) -> SnapshotTable:
        history = self.history
        starts = history.start_us + np.arange(len(history), dtype=np.int64) * history.step_us
        return SnapshotTable(
            name, history.step_us, METRIC_NAMES, starts, np.zeros(len(history), dtype=np.int64), history.values
        )

    def close(self) -> None: ...

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *exc: object) -> None: ...


def valid_history(steps: int = STEPS) -> History:
    """Steps that hold the invariants of the schema."""
    history = some_history(steps)
    values = history.values
    for smaller, larger in (("unique_edges", "events"), ("new_edges", "unique_edges"), ("new_nodes", "active_nodes")):
        a, b = METRIC_INDEX[smaller], METRIC_INDEX[larger]
        values[:, a] = np.minimum(values[:, a], values[:, b])
    for total, new in (("total_nodes", "new_nodes"), ("total_edges", "new_edges")):
        values[:, METRIC_INDEX[total]] = 50 + values[:, METRIC_INDEX[new]].cumsum()
    return history


def state_of(history: History) -> LiveState:
    floor = ProfileLevel()
    state = floor.update(floor.start(history.step_us, history.start_us), history.values)
    next_us = history.start_us + len(history) * history.step_us
    reason = "there is no model of 'toy'; train one: graphtide train toy"
    return LiveState("toy", history.step_us, next_us, len(history), "d", floor, state, None, reason)


def made(tmp_path, history: History | None = None, *, horizon: int = 1500, **more) -> Report:
    history = valid_history() if history is None else history
    given = {"made": "2026-01-01T00:00:00Z", **more}
    request = ReportRequest(horizon, 0, 40)
    return make_report(Reader(history), state_of(history), request, chunk_steps=256, **given)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return made(tmp_path_factory.mktemp("models"))


def test_two_runs_differ_in_their_date_alone(report: Report, tmp_path) -> None:
    again = made(tmp_path)
    assert again.bundle == report.bundle
    later = made(tmp_path, made="2027-02-03T00:00:00Z")
    assert {**later.facts, "made": ""} == {**report.facts, "made": ""}
    assert later.html.replace(b"2027-02-03T00", b"2026-01-01T00") == report.html


def test_threads_change_nothing(report: Report, tmp_path) -> None:
    threaded = made(tmp_path, use_threads=True)
    assert (threaded.html, threaded.bundle) == (report.html, report.bundle)


def test_the_months_of_the_summary_keep_their_capitals(report: Report) -> None:
    assert re.search(r"(The week of \d+ |^)[A-Z][a-z]{2} \d{4} is expected to bring", report.facts["summary"][0])


def test_nodes_that_were_counted_are_a_whole_number(tmp_path) -> None:
    history = valid_history()
    history.values[:, METRIC_INDEX["total_nodes"]] = np.minimum(history.values[:, METRIC_INDEX["total_nodes"]], 80)
    assert any(said.endswith("; it has 80.") for said in made(tmp_path, history, horizon=48).facts["summary"])


def test_near_numbers_are_those_of_the_rollout(report: Report) -> None:
    live = state_of(valid_history())
    (chunk,) = live.model.rollout(live.state, 168, seed=0)
    near = report.facts["near"]
    assert near["start"] == format_time(live.next_step_us)
    for name in ("events", "reciprocity", "total_nodes"):
        np.testing.assert_allclose(near["columns"][name]["mean"], chunk.mean[:, METRIC_INDEX[name]], rtol=1e-6)
        np.testing.assert_allclose(
            near["columns"][name]["q0.9"], chunk.quantiles[:, METRIC_INDEX[name], 9], rtol=1e-6, atol=1e-9
        )


def test_bundle_holds_the_same_numbers_as_the_facts(report: Report) -> None:
    with zipfile.ZipFile(io.BytesIO(report.bundle)) as archive:
        names = archive.namelist()
        assert set(names) == {
            *("README.txt", "report.json", "card.json"),
            *("periods.csv", "periods.parquet", "near.csv", "near.parquet"),
        }
        facts = json.loads(archive.read("report.json"))
        assert facts == json.loads(json.dumps(report.facts))
        lines = archive.read("periods.csv").decode().splitlines()
    header = lines[0].split(",")
    rows = [dict(zip(header, line.split(","), strict=True)) for line in lines[1:]]
    months = [row for row in rows if (row["scale"], row["column"]) == ("month", "events") and not row["observed"]]
    assert [float(row["q0.5"]) for row in months] == facts["periods"]["month"]["columns"]["events"]["q0.5"]


def test_report_says_that_a_floor_answers_and_that_history_is_short(report: Report) -> None:
    said = " ".join(report.facts["summary"])
    assert "No trained model answers here but a simple method" in said
    assert "The history is short" in said
    html = report.html.decode()
    assert "graphtide train toy" in html
    assert "This is the first report of this graph that is kept." in html


def of_model(on: CalibratedOn, reason: str | None = None) -> Report:
    """A report of a state that a trained model answers for, as far as a report can see."""
    history = valid_history(24 * 21)
    found = {"calibrated_until_step": 2048, "skill_until_step": 1000, "calibrated_on": on}
    live = replace(state_of(history), model_digest="ab", degraded_reason=reason, **found)
    return make_report(Reader(history), live, ReportRequest(200, 0, 20), made="2026-01-01T00:00:00Z", chunk_steps=256)


@pytest.mark.parametrize("on", CalibratedOn)
def test_report_says_on_which_graphs_it_was_found_how_far_the_forecast_holds(on: CalibratedOn) -> None:
    made_of = of_model(on)
    assert json.loads(json.dumps(made_of.facts))["provenance"]["calibrated_on"] == on
    said = f"At the training, on {on}, intervals were found to hold up to step 2,048"
    assert said in made_of.html.decode()
    assert "up to step 1,000." in made_of.html.decode()
    general = "how far its intervals hold was found on other graphs" in " ".join(made_of.facts["summary"])
    assert general == (on is CalibratedOn.OTHER_GRAPHS)


def test_report_of_a_floor_claims_nothing_of_how_far_it_holds(report: Report) -> None:
    assert report.facts["provenance"]["calibrated_on"] is None
    assert "At the training" not in report.html.decode()


def test_general_model_in_the_place_of_a_damaged_one_is_no_simple_method() -> None:
    made_of = of_model(CalibratedOn.OTHER_GRAPHS, "the model of 'toy' cannot be used")
    html = made_of.html.decode()
    assert "The general model answers: " in html
    assert "simple method answers" not in html
    assert not any("simple method" in sentence for sentence in made_of.facts["summary"])
    assert "simple method" not in render_index([entry(made_of.facts, "toy.html")], "today")


def test_next_report_scores_the_last(report: Report, tmp_path) -> None:
    longer = valid_history(STEPS + 48)
    longer.values[:STEPS] = valid_history().values
    following = made(tmp_path, longer, previous=report.facts)
    past = following.facts["past"]
    assert past["made"] == "2026-01-01T00:00:00Z"
    (events,) = [score for score in past["scores"] if score["metric"] == "events"]
    assert events["n"] == 48
    near = report.facts["near"]["columns"]["events"]
    seen = longer.values[STEPS:, 0]
    assert events["mae"] == pytest.approx(np.abs(seen - near["q0.5"][:48]).mean())
    assert events["in_80"] == pytest.approx(((seen >= near["q0.1"][:48]) & (seen <= near["q0.9"][:48])).mean())
    assert events["naive_mae"] == pytest.approx(np.abs(seen - longer.values[STEPS - 168 : STEPS - 120, 0]).mean())
    assert {move["column"] for move in past["moves"]} == {"events", "active_nodes", "total_nodes"}
    # Of a month, and said to be one.
    (start,) = {move["start"] for move in past["moves"] if move["scale"] == "month"}
    month = np.datetime64(start.removesuffix("Z")).item().strftime("%b %Y")
    assert f"What both forecast of {month}:" in following.html.decode()
    assert f"Of the first {events['n']} steps after the last report" in " ".join(following.facts["summary"])


def test_forecast_of_other_steps_is_not_scored(report: Report, tmp_path) -> None:
    assert last_forecast(report.facts, HOUR_US) is not None
    assert last_forecast(report.facts, DAY_US) is None


def test_report_of_replaced_snapshots_is_refused(tmp_path) -> None:
    live = state_of(valid_history())
    with pytest.raises(StoreError, match="replaced"):
        make_report(Reader(valid_history(100)), live, ReportRequest(10, 0, 20), made="x", chunk_steps=10)


def test_report_that_would_end_behind_the_last_date_is_refused(tmp_path) -> None:
    history = valid_history(20)
    live = state_of(replace(history, step_us=12 * WEEK_US))
    with pytest.raises(UsageError, match="36,500 steps of 12w end behind the year 9999") as caught:
        make_report(Reader(history), live, ReportRequest(36_500, 0, 20), made="x", chunk_steps=512)
    assert caught.value.fix is not None
    assert "at most 34," in caught.value.fix


def test_report_can_be_stopped(tmp_path) -> None:
    asked = iter([False, True])
    with pytest.raises(ReportCancelledError):
        made(tmp_path, cancelled=lambda: next(asked))


def test_changes_compare_periods_of_one_length(report: Report) -> None:
    assert set(report.facts["periods"]) == {"day", "week", "month"}
    assert report.facts["changes"]["scale"] == "week"


@pytest.mark.parametrize("step_us", [2 * DAY_US, 5 * HOUR_US])
def test_changes_compare_no_weeks_that_hold_more_steps_than_others(step_us: int) -> None:
    history = some_history(60, step_us=step_us)
    live = state_of(history)
    found = make_report(Reader(history), live, ReportRequest(60, 0, 20), made="x", chunk_steps=60)
    assert "week" in found.facts["periods"]
    assert found.facts["changes"] == {"scale": None, "rows": []}


def test_years_of_weeks_are_compared() -> None:
    assert [scale for scale in Scale if scale.is_even(WEEK_US)] == ["week", "year"]
    assert [scale for scale in Scale if scale.is_even(HOUR_US)] == ["day", "week", "year"]
    # Steps of 36 and a half days: a leap year may have eleven of them.
    assert not Scale.YEAR.is_even(365 * DAY_US // 10)


@pytest.mark.parametrize(("step_us", "span"), [(4 * WEEK_US, "4 weeks"), (30 * DAY_US, "30 days")])
def test_steps_that_fill_no_period_evenly_are_not_told_to_wait_for_more(step_us: int, span: str) -> None:
    history = some_history(60, step_us=step_us)
    found = make_report(Reader(history), state_of(history), ReportRequest(60, 0, 20), made="x", chunk_steps=60)
    assert found.facts["changes"] == {"scale": None, "rows": []}
    page = found.html.decode()
    assert f"Steps of {span} fill no period of the calendar evenly" in page
    assert "wait for more history" not in page


def test_dead_network_stays_as_it_is_and_no_spread_is_claimed(tmp_path) -> None:
    history = valid_history(24 * 21)
    history.values[:] = 0
    live = replace(state_of(history), model_digest="ab", degraded_reason=None, calibrated_on=CalibratedOn.THIS_GRAPH)
    live = replace(live, calibrated_until_step=10, skill_until_step=10)
    found = make_report(Reader(history), live, ReportRequest(24 * 21, 0, 20), made="x", chunk_steps=256)
    said = " ".join(found.facts["summary"])
    assert "No change by then on 80% of the paths or more: new nodes, in total; total nodes, at the end; events" in said
    assert "do not agree" not in said
    assert "the intervals stay narrower" not in said
    assert "For events, the last year has no spread that the intervals could be held to." in said
    assert {row["direction"] for row in found.facts["changes"]["rows"] if row["then"] == 0} == {"stays"}
    assert entry(found.facts, "toy.html").agreement is None


def test_what_rises_falls_or_is_open() -> None:
    def change(above: float) -> findings.Change:
        return findings.Change("growth", "events", "sum", 10, 12, 9, 14, above, None)  # type: ignore[arg-type]

    assert [change(share).direction for share in (0.95, 0.1, 0.6, 0.5)] == ["rises", "falls", "is open", "is open"]
    assert change(0.1).agreement == 0.9


def test_quality_finds_gaps_revisions_and_late_events() -> None:
    history = valid_history(100)
    history.values[:, 0] = np.maximum(history.values[:, 0], 1)
    history.values[[5, 40, 41, 42], 0] = 0
    final_us = START_US + 97 * HOUR_US
    reader = Reader(history, late=7, final_us=final_us)
    table = reader.snapshots("toy")
    table = replace(table, revision=np.where(np.arange(100) == 9, 2, 0))
    found = findings.quality(reader.graph("toy"), table)
    assert (found.empty_steps, found.longest_gap_steps, found.longest_gap_us) == (4, 3, START_US + 40 * HOUR_US)
    assert (found.revised_steps, found.late, found.provisional_steps) == (1, 7, 3)
    calm = findings.quality(Reader(valid_history(5)).graph("toy"), Reader(valid_history(5)).snapshots("toy"))
    assert calm.provisional_steps is None


def test_past_is_not_scored_where_it_does_not_fit() -> None:
    history = valid_history(200)
    end = history.start_us + 200 * HOUR_US
    columns = np.zeros((10, len(METRIC_NAMES), 6))
    assert findings.past_scores(history, end, columns) == []
    assert findings.past_scores(history, history.start_us - DAY_US, columns) == []
    assert findings.past_scores(history, end - HOUR_US - 1, columns) == []


def test_index_puts_what_changes_most_first_and_escapes(report: Report) -> None:
    def facts(graph: str, then: float) -> dict:
        rows = [{"column": "events", "now": 100.0, "then": then, "above": 0.9, "direction": "is open"}]
        return {**report.facts, "graph": graph, "changes": {"scale": "month", "rows": rows}}

    entries = [
        entry(facts(graph, then), f"{graph}.html") for graph, then in (("calm", 101), ("<wild>", 40), ("up", 180))
    ]
    page = render_index(entries, "today")
    assert page.index("&lt;wild&gt;") < page.index(">up<") < page.index(">calm<")
    assert "<wild>" not in page
