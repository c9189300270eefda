"""The dashboard in a real browser: opened, looked at, operated by keyboard, kept true as the store grows."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forecasting.keys import Keys, Scope
from forecasting.service_file import ServiceFile
from stream.decoders.builder import DecodeOptions
from stream.ingest import IngestOptions, ingest
from stream.sources.files import FileSource
from tests.conftest import lacking
from tests.e2e.conftest import JOBS, WAIT_MS, serving_jobs
from tests.integration.serving import served, service_settings

OpenPage = Callable[..., Any]
HAS_DRAWN = "() => performance.getEntriesByName('graphtide-first-paint').length > 0"
# How many of a canvas' pixels are not empty; BokehJS draws inside shadow roots.
DRAWN_PIXELS = """() => {
  const find = (root) => [...root.querySelectorAll("*")].flatMap((one) =>
    [...(one.tagName === "CANVAS" ? [one] : []), ...(one.shadowRoot ? find(one.shadowRoot) : [])]);
  return Math.max(0, ...find(document.querySelector("#chart")).filter(({ width }) => width > 0).map((canvas) => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return data.filter((value, at) => at % 4 === 3 && value > 0).length;
  }));
}"""


def grow(folder: Path, store: str, graph: str, hours: range) -> None:
    log = folder / f"{graph}-{hours.start}.ndjson"
    lines = [{"src": f"n{hour % 7}", "dst": f"n{hour % 3}", "ts": 1_600_000_000 + 3600 * hour} for hour in hours]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    ingest(FileSource(log, DecodeOptions(graph=graph)), store, IngestOptions())


def says(page: Any, place: str, pattern: str, *, within_s: float = WAIT_MS / 1000) -> str:
    """Wait until a place says what it should; return what it says."""
    found = page.locator(place).filter(has_text=re.compile(pattern))
    found.wait_for(timeout=1000 * within_s)
    return str(found.inner_text())


def test_from_the_overview_to_a_chart(town: str, open_page: OpenPage) -> None:
    page = open_page(town)
    assert "1 graph" in says(page, "#summary", "events")
    page.locator(".spark polyline").wait_for(state="attached")
    page.get_by_role("link", name="town").click()
    page.wait_for_function(HAS_DRAWN)
    says(page, "#chart-says", "Forecast at the end: median")
    assert page.evaluate(DRAWN_PIXELS) > 5000
    says(page, "#age", r"^Observed until \d+ \w+ ago$")
    assert "mamba2" in says(page, "#model", "layers")
    assert "Watermark" in says(page, "#quality", "Dead letters")
    says(page, "#reports", "There is no report yet")


def test_the_overview_goes_on_counting_how_long_ago_the_last_step_was(town: str, open_page: OpenPage) -> None:
    page = open_page(town)
    before = says(page, ".graph [data-age-of]", "ago")
    # Nothing new comes; only the clock of the page goes on.
    page.evaluate("(ms) => { const now = Date.now; Date.now = () => now() + ms; }", 400 * 365.25 * 86_400_000)
    page.wait_for_function("(was) => document.querySelector('.graph [data-age-of]').textContent !== was", arg=before)
    assert "4" in says(page, ".graph [data-age-of]", "years ago")


def test_zoom_is_downsampled_far_and_exact_near(town: str, open_page: OpenPage) -> None:
    page = open_page(f"{town}/graphs/town")
    says(page, "#chart-says", "every step")
    page.get_by_role("button", name="All").click()
    says(page, "#chart-says", "steps a point")
    assert page.locator("#legend-range").is_visible()
    page.get_by_role("button", name="1 w").click()
    says(page, "#chart-says", "every step")
    page.get_by_text("The data behind the chart").click()
    tables = page.locator("#chart-tables table")
    tables.nth(1).wait_for()
    assert "Observed" in tables.first.inner_text()


def test_metric_intervals_and_horizon(town: str, open_page: OpenPage) -> None:
    page = open_page(f"{town}/graphs/town")
    says(page, "#chart-says", "median")
    page.get_by_role("combobox", name="Metric").select_option("reciprocity")
    says(page, "#chart-says", "Observed reciprocity")
    before = page.evaluate(DRAWN_PIXELS)
    page.get_by_label("95 %").uncheck()
    assert page.locator("#legend-95").is_hidden()
    page.get_by_label("80 %").uncheck()
    page.wait_for_timeout(300)
    assert page.evaluate(DRAWN_PIXELS) != before
    page.get_by_role("combobox", name="Forecast").select_option("0")
    page.wait_for_function("() => !document.querySelector('#chart-says').textContent.includes('median')")


def test_the_keyboard_moves_and_zooms(town: str, open_page: OpenPage) -> None:
    page = open_page(f"{town}/graphs/town")
    start = says(page, "#chart-says", "median")
    page.locator("#chart").focus()
    for key in ("ArrowLeft", "+", "Home"):
        page.keyboard.press(key)
        page.wait_for_function("(before) => document.querySelector('#chart-says').textContent !== before", arg=start)
        start = page.locator("#chart-says").inner_text()
    assert "steps a point" in start
    page.keyboard.press("End")
    says(page, "#chart-says", "every step")


def test_dragging_pans_and_tells_what_is_under_the_pointer(town: str, open_page: OpenPage) -> None:
    page = open_page(f"{town}/graphs/town")
    before = says(page, "#chart-says", "median")
    box = page.locator("#chart").bounding_box()
    page.mouse.move(box["x"] + 400, box["y"] + 150)
    page.mouse.down()
    page.mouse.move(box["x"] + 700, box["y"] + 150, steps=5)
    page.mouse.up()
    page.wait_for_function("(before) => document.querySelector('#chart-says').textContent !== before", arg=before)
    page.mouse.move(box["x"] + 500, box["y"] + 200)
    page.get_by_text("observed:").first.wait_for()


def test_new_steps_appear_by_themselves(tmp_path: Path, open_page: OpenPage) -> None:
    store = f"sqlite:///{tmp_path / 'store.db'}"
    grow(tmp_path, store, "live", range(300))
    with served(service_settings(store, tmp_path)) as client:
        page = open_page(str(client.base_url.join("/graphs/live")))
        says(page, "#facts", "300 steps")
        before = says(page, "#chart-says", "median")
        grow(tmp_path, store, "live", range(300, 320))
        says(page, "#facts", "320 steps")
        says(page, "#said", "20 new steps")
        assert page.locator("#chart-says").inner_text() != before
        assert "The general model answers" in says(page, "#model", "graphtide train live")
        assert "on other graphs" in says(page, "#resting", "hold up to step")
        page.goto("about:blank")


def test_a_stream_that_is_one_too_many_is_asked_for_again(tmp_path: Path, open_page: OpenPage) -> None:
    store = f"sqlite:///{tmp_path / 'store.db'}"
    grow(tmp_path, store, "live", range(300))
    refused = []

    def refuse_first(route: Any) -> None:
        if refused:
            route.continue_()
            return
        refused.append(route.request.url)
        route.fulfill(status=429, json={"type": "urn:graphtide:problem:too-many-subscribers", "detail": "too many"})

    with served(service_settings(store, tmp_path)) as client:
        page = open_page(str(client.base_url), expected="status of 429")
        page.route("**/v1/graphs/live/live", refuse_first)
        page.goto(str(client.base_url.join("/graphs/live")))
        says(page, "#chart-says", "median")
        grow(tmp_path, store, "live", range(300, 320))
        says(page, "#facts", "320 steps")
        assert len(refused) == 1
        assert page.locator("#fault").is_hidden()
        page.goto("about:blank")


def test_a_long_forecast_fills_in_and_can_be_left(town: str, open_page: OpenPage) -> None:
    page = open_page(f"{town}/graphs/town")
    says(page, "#chart-says", "median")
    page.evaluate(
        """() => {
          window.progress = [];
          const place = document.querySelector("#long-says");
          new MutationObserver(() => window.progress.push(place.textContent)).observe(place, { childList: true });
        }"""
    )
    page.get_by_label("Steps ahead").fill("600")
    page.get_by_role("button", name="Run the forecast").click()
    says(page, "#long-says", "All 600 steps are there")
    steps = [int(found[1]) for text in page.evaluate("window.progress") if (found := re.match(r"(\d+) of 600", text))]
    assert steps == sorted(set(steps))
    assert len(steps) > 3
    assert (steps[0] < 600, steps[-1]) == (True, 600)
    page.get_by_role("button", name="Back to the short forecast").click()
    assert page.locator("#long-state").is_hidden()


def test_a_long_forecast_can_be_cancelled(town: str, open_page: OpenPage) -> None:
    page = open_page(f"{town}/graphs/town")
    says(page, "#chart-says", "median")
    page.get_by_label("Steps ahead").fill("36500")
    page.get_by_role("button", name="Run the forecast").click()
    page.get_by_role("button", name="Cancel").click()
    says(page, "#long-says", "The forecast was cancelled")
    assert page.get_by_role("button", name="Run the forecast").is_enabled()


def test_a_key_is_asked_for_and_shows_its_graphs_alone(tmp_path: Path, open_page: OpenPage) -> None:
    store = f"sqlite:///{tmp_path / 'store.db'}"
    for graph in ("red", "blue"):
        grow(tmp_path, store, graph, range(60))
    settings = service_settings(store, tmp_path, jobs=JOBS)
    with ServiceFile(settings.api.service_db) as file:
        _, token = Keys(file).create("red", Scope.READ, ["red"])
    with serving_jobs(settings) as address:
        page = open_page(address, expected=r"status of 40[134]")
        page.get_by_role("textbox", name="API key").fill("gt_wrong")
        page.get_by_role("button", name="Use this key").click()
        page.get_by_text("This key is not valid").wait_for()
        page.get_by_role("textbox", name="API key").fill(token)
        page.keyboard.press("Enter")
        page.get_by_role("link", name="red").wait_for()
        assert page.get_by_role("link", name="blue").count() == 0
        page.get_by_role("link", name="red").click()
        says(page, "#chart-says", "median")
        says(page, "#quality", "Late events")
        assert "Dead letters" not in page.locator("#quality").inner_text()
        page.get_by_role("button", name="Run the forecast").click()
        says(page, "#long-says", "Ask for a key with scope write")
        page.goto(f"{address}/graphs/blue")
        says(page, "#fault", "there is no graph 'blue'")
        assert token not in page.content()
        page.get_by_role("button", name="Forget the key").click()
        page.get_by_role("textbox", name="API key").wait_for()


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_axe_finds_nothing_serious(town: str, open_page: OpenPage, colours: str) -> None:
    try:
        from axe_playwright_python.sync_playwright import Axe  # noqa: PLC0415 - absent without the extra `test`
    except ImportError:
        lacking("browser", "the Python package axe-playwright-python is not installed")
    axe = Axe()
    for path, ready in (("/", ".spark polyline"), ("/graphs/town", "#model dl")):
        # The policy of the page would keep axe from reading styles.
        page = open_page(town + path, color_scheme=colours, bypass_csp=True)
        page.locator(ready).first.wait_for(state="attached")
        if path != "/":
            says(page, "#chart-says", "median")
            page.get_by_text("The data behind the chart").click()
            page.locator("#chart-tables table").first.wait_for()
            page.get_by_role("combobox", name="Scenarios").select_option("3")
            page.get_by_text("Set a schedule").click()
            page.get_by_label("archive (folder)").wait_for()
        found = axe.run(page).response["violations"]
        serious = [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]
        assert serious == []


@pytest.mark.parametrize("path", ["/", "/graphs/town"])
def test_a_phone_needs_no_sideways_scrolling(town: str, open_page: OpenPage, path: str) -> None:
    page = open_page(town + path, viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
    page.locator("h1").wait_for()
    if path != "/":
        says(page, "#chart-says", "median")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_the_switch_between_light_and_dark_is_kept(town: str, open_page: OpenPage) -> None:
    page = open_page(f"{town}/graphs/town", color_scheme="light")
    says(page, "#chart-says", "median")
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(colour)
    page.get_by_role("button", name="Switch to dark colours").click()
    assert page.evaluate(colour) != light
    page.wait_for_timeout(300)
    assert page.evaluate(DRAWN_PIXELS) > 5000
    page.reload()
    page.get_by_role("button", name="Switch to light colours").wait_for()
