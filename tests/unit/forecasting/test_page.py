"""The page: it needs nothing but itself, its numbers are the forecast's, and no text breaks out of its place."""

import json
import math
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from forecasting.reports import plots
from forecasting.reports.outlook import Outlook
from forecasting.reports.page import (
    ForecastPage,
    render,
    tiles,
)
from forecasting.reports.phrases import day, duration_words, number, step_words
from forecasting.reports.standing import Comparison, Score, Standing
from infra.schema import METRIC_INDEX, METRIC_NAMES, METRICS, QUANTILE_LEVELS
from infra.steps import DAY_US, HOUR_US, WEEK_US
from models.contract import History
from tests.unit.forecasting.forecast_cases import cut, some_forecast, some_history

CARD = {
    "architecture": {"d_model": 8, "reach_steps": 500},
    "data": [{"steps": 800, "step": "1h", "first_step": "a", "until": "b", "digest": "d1"}],
    "scores": {
        "iterations": 7,
        "elapsed_s": 1.5,
        "stopped": "the time budget",
        "validation_loss": 0.2,
        "untrained_validation_loss": 0.3,
    },
    "seed": 5,
    "digest": "d2",
}
WEEK = 168


def gathered(history: History, steps: int) -> Outlook:
    first_us = history.start_us + len(history) * history.step_us
    outlook = Outlook(first_us=first_us, step_us=history.step_us, near_steps=WEEK, block_steps=WEEK)
    for chunk in cut(some_forecast(steps), 300):
        outlook.add(chunk)
    return outlook


def a_standing() -> Standing:
    better, worse, undefined = Score(0.5, 0.6, "drift"), Score(0.7, 0.6, "drift"), Score(math.nan, math.nan, "")
    rows = (
        Comparison("events", 1, better, better, 0.81, 0.95, 40),
        Comparison("events", 24, worse, worse, 0.5, 0.6, 40),
        Comparison("new_nodes", 1, undefined, undefined, math.nan, math.nan, 0),
    )
    ratios = {("mamba2", h, s): 0.9 for h in (1, 24) for s in ("mase", "wql")}
    ratios |= {("drift", h, s): 0.8 + h / 100 for h in (1, 24) for s in ("mase", "wql")}
    against = {(1, "mase"): 1.1, (1, "wql"): 1.1, (24, "mase"): 0.9, (24, "wql"): 0.9}
    return Standing("mamba2", (1, 24), rows, ratios, against, {1: 40, 24: 40})


@pytest.fixture(scope="module")
def page() -> ForecastPage:
    history = some_history(900)
    return ForecastPage(
        graph="toy",
        source="A toy",
        history=history,
        outlook=gathered(history, 1000),
        model="mamba2",
        card=CARD,
        held_out=gathered(history.part(0, 900 - WEEK), WEEK).near(),
        standing=a_standing(),
        held_out_steps=2 * WEEK,
        files={"near.csv": "the next steps"},
    )


class Elements(HTMLParser):
    """Collects elements, and the text of each kind."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._inside: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._inside.append(tag)
        self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.texts[self._inside[-1]][-1] += data

    def by_id(self, name: str) -> str:
        scripts = [attributes for tag, attributes in self.found if tag == "script"]
        return self.texts["script"][[attributes.get("id") for attributes in scripts].index(name)]


@pytest.fixture(scope="module")
def html(page: ForecastPage) -> str:
    return render(page)


def test_page_asks_nothing_from_any_host(html: str) -> None:
    elements = Elements(html)
    for tag, attributes in elements.found:
        assert not {"src", "href", "srcset", "action", "data", "poster"} & set(attributes), tag
    assert not {"link", "img", "iframe", "object", "base"} & set(elements.texts)
    metas = [attributes for tag, attributes in elements.found if tag == "meta"]
    (policy,) = [meta["content"] for meta in metas if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy
    assert "*" not in policy


def test_page_is_one_document_that_can_be_read_aloud(html: str) -> None:
    elements = Elements(html)
    kinds = [tag for tag, _ in elements.found]
    assert elements.found[0] == ("html", {"lang": "en"})
    assert elements.texts["title"] == ["toy: forecast to 24 Mar 2021"]
    assert kinds.count("h1") == 1
    assert all(attributes.get("scope") for tag, attributes in elements.found if tag == "th")
    assert kinds.count("caption") == kinds.count("table") == 2
    charts = [attributes for _, attributes in elements.found if attributes.get("role") == "img"]
    assert [chart["id"] for chart in charts] == ["chart-near", "chart-held-out", "chart-far"]
    texts = json.loads(elements.by_id("texts"))
    assert set(texts) == set(METRIC_NAMES)
    for metric in METRICS:
        assert texts[metric.name]["meaning"] == metric.meaning
        for chart in ("near", "held-out", "far"):
            assert texts[metric.name][chart].startswith(f"Line chart of {metric.name.replace('_', ' ')} ")


def test_choices_of_the_page_are_all_metrics(html: str) -> None:
    radios = [attributes for tag, attributes in Elements(html).found if tag == "input"]
    assert sorted(str(radio["value"]) for radio in radios) == sorted(METRIC_NAMES)
    assert [radio["value"] for radio in radios if "checked" in radio] == ["events"]


def test_numbers_of_the_charts_are_those_of_the_forecast(html: str, page: ForecastPage) -> None:
    numbers = json.loads(Elements(html).by_id("numbers"))
    whole = some_forecast(1000)
    for name in ("events", "reciprocity", "total_nodes"):
        index = METRIC_INDEX[name]
        near = numbers[name]["near"]
        np.testing.assert_allclose(near["q0.1"], whole.quantiles[:WEEK, index, QUANTILE_LEVELS.index(0.1)], rtol=1e-5)
        np.testing.assert_allclose(near["seen"], page.history.values[-2 * WEEK :, index], rtol=1e-5)
        held = numbers[name]["held-out"]
        np.testing.assert_allclose(held["seen"], page.history.values[-3 * WEEK :, index], rtol=1e-5)
        assert len(numbers[name]["far"]["mean"]) == 1000 // WEEK
        low, high = near["y"]
        assert low <= min(near["seen"] + near["q0.025"])
        assert high >= max(near["seen"] + near["q0.975"])
    assert numbers["events"]["near"]["y"][0] == 0
    assert numbers["total_nodes"]["far"]["y"][0] > 0


def test_summary_is_the_forecasts_own(page: ForecastPage, html: str) -> None:
    events, active, new, total = tiles(page.history, page.outlook)
    whole, history = some_forecast(1000), page.history
    ahead = whole.mean[WEEK : 5 * WEEK].mean(axis=0)  # the last four whole weeks of 1000 steps
    recent = history.values[-4 * WEEK :].mean(axis=0)
    for tile, name, scale in ((events, "events", 24), (active, "active_nodes", 1), (new, "new_nodes", 24)):
        index = METRIC_INDEX[name]
        assert tile.then == number(scale * ahead[index])
        assert tile.details == (f"now {number(scale * recent[index])}",)
        assert tile.change == f"{round(100 * (ahead[index] / recent[index] - 1)):+d} %".replace("-", "−")  # noqa: RUF001
    at_end = whole.quantiles[-1, METRIC_INDEX["total_nodes"]]
    low, median, high = (number(at_end[QUANTILE_LEVELS.index(level)]) for level in (0.1, 0.5, 0.9))
    assert total.then == median
    assert total.details[0] == f"80 % interval {low} to {high}"
    for tile in (events, active, new, total):
        assert f"{tile.then}<span" in html


@pytest.mark.parametrize(("horizon", "compared"), [(5, 5), (24, 24), (100, 96), (2 * WEEK, 2 * WEEK)])
def test_summary_of_a_short_forecast_is_free_of_the_rhythm_of_the_day(horizon: int, compared: int) -> None:
    history = some_history(900)
    events, *_ = tiles(history, gathered(history, horizon))
    ahead = some_forecast(horizon).mean[-compared:, METRIC_INDEX["events"]].mean()
    assert events.then == number(24 * ahead)


def test_page_says_where_floors_are_better_and_where_training_ended(html: str) -> None:
    words = " ".join(html.split())
    assert "One step ahead the best floor is better: the model&#39;s loss is 10% above it." in words
    assert "Up to 24 steps ahead its loss is 10% below the best floor&#39;s." in words
    assert '<span class="worse">drift</span>' in html
    assert "Intervals were trained up to 500 steps ahead, to 3 Mar 2021; beyond that" in words


def test_no_text_breaks_out_of_its_place(page: ForecastPage) -> None:
    nasty = "</script><script>alert(\"1\")</script><b title='x'>&"
    before = Elements(render(page))
    after = Elements(
        render(replace(page, graph=nasty, source=nasty, model=nasty, notes=(nasty,), files={nasty: nasty}))
    )
    assert after.texts["title"] == [f"{nasty}: forecast to 24 Mar 2021"]
    count = [tag for tag, _ in after.found].count("script")
    assert count == [tag for tag, _ in before.found].count("script")
    assert "b" not in after.texts


def test_page_of_a_floor_needs_no_card() -> None:
    history = some_history(30, step_us=DAY_US)
    html = render(ForecastPage("toy", "A toy", history, gathered(history, 9), "drift", {}, notes=("too short",)))
    elements = Elements(html)
    assert [attributes["id"] for _, attributes in elements.found if attributes.get("role") == "img"] == ["chart-near"]
    assert "drift, a floor" in html
    assert "too short" in html
    assert "Events a day" in html


def test_large_page_stays_small() -> None:
    history = some_history(56_410)
    html = render(ForecastPage("toy", "A toy", history, gathered(history, 36_500), "mamba2", CARD))
    assert len(html.encode()) < 5_000_000


def test_constant_metric_still_has_a_range() -> None:
    history = History(HOUR_US, 0, np.zeros((WEEK, len(METRICS))))
    outlook = gathered(history, 200)
    near = outlook.near()
    flat = replace(near, mean=np.zeros_like(near.mean), quantiles=np.zeros_like(near.quantiles))
    panel = plots.Panel("near", np.arange(WEEK) * HOUR_US, history.values, flat)
    assert plots.series(panel, "events")["y"] == [0.0, 1.0]
    low, high = plots.series(panel, "total_nodes")["y"]
    assert low < high


@pytest.mark.parametrize(
    ("duration_us", "said"),
    [
        (WEEK_US, "week"),
        (8 * WEEK_US, "8 weeks"),
        (36 * HOUR_US, "36 hours"),
        (DAY_US, "day"),
        (HOUR_US // 4, "15m"),
    ],
)
def test_durations_are_said_in_words(duration_us: int, said: str) -> None:
    assert duration_words(duration_us) == said


def test_words() -> None:
    assert day(1_457_222_400_000_000) == "6 Mar 2016"
    assert [step_words(us) for us in (HOUR_US, DAY_US, HOUR_US // 4)] == ["an hour", "a day", "in 15m"]
    assert [number(value) for value in (0.0, 3.14159, 31.4159, 314.159, 31415.9)] == [
        "0.00", "3.14", "31.4", "314", "31,416",
    ]  # fmt: skip
