"""Requests of the dashboard that fail at first: the page says that it waits, asks again, and shows all in the end."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests import plain_http
from tests.e2e.test_dashboard import grow, says
from tests.integration.serving import served, service_settings

OpenPage = Callable[..., Any]
AWAY = "status of 503"


class Away:
    """Answers in the place of a service that is away: the first request to each path, and all to those `held`."""

    def __init__(self, *held: str) -> None:
        self.held = set(held)
        self.refused: set[str] = set()

    def __call__(self, route: Any) -> None:
        name = urlsplit(route.request.url).path.rpartition("/")[2]
        if name in self.refused and name not in self.held:
            route.continue_()
        else:
            self.refuse(name, route)

    def refuse(self, name: str, route: Any) -> None:
        self.refused.add(name)
        route.fulfill(status=503, json={"type": "urn:graphtide:problem:store-unavailable", "detail": "it is away"})


def test_all_of_a_graph_whose_first_requests_failed_fills_in(town: str, open_page: OpenPage) -> None:
    page, lists = open_page(town, expected=AWAY), ("reports", "report-schedules")
    away = Away(*lists)
    page.route("**/v1/**", away)
    page.goto(f"{town}/graphs/town")
    for place in ("#reports", "#schedules", "#fault"):
        says(page, place, r"it is away\. Asking again")
    assert page.get_by_text("Set a schedule").is_hidden()
    away.held.clear()
    says(page, "#reports", "There is no report yet")
    says(page, "#schedules", "No report of this graph")
    says(page, "#chart-says", "median")
    says(page, "#model", "layers")
    says(page, "#quality", "Watermark")
    page.locator("#fault").wait_for(state="hidden")
    page.get_by_text("Set a schedule").click()
    page.get_by_label("archive (folder)").wait_for()
    asked = {"town", "history", "forecast", "quality", "model", "report-targets"}
    assert asked.union(lists) <= away.refused


def test_the_overview_whose_first_requests_failed_fills_in(town: str, open_page: OpenPage) -> None:
    page, away = open_page(f"{town}/health", expected=AWAY), Away()
    page.route("**/v1/**", away)
    page.goto(town)
    page.locator(".spark polyline").wait_for(state="attached")
    assert {"graphs", "history"} <= away.refused


def test_a_window_moves_once_with_new_steps_however_often_they_are_asked_for(
    tmp_path: Path, open_page: OpenPage
) -> None:
    store = f"sqlite:///{tmp_path / 'store.db'}"
    grow(tmp_path, store, "live", range(400))
    window = "document.querySelector('#chart-says').textContent.split(' UTC.')[0].split(' to ').map(Date.parse)"
    with served(service_settings(store, tmp_path)) as client:
        page, away = open_page(str(client.base_url.join("/graphs/live")), expected=AWAY), Away()
        start = says(page, "#chart-says", "median")
        # Nearer than the forecast reaches: a window at its end could not move too far.
        page.get_by_role("button", name="Zoom in").click()
        page.wait_for_function("(before) => document.querySelector('#chart-says').textContent !== before", arg=start)
        before, counts = page.evaluate(window), says(page, "#quality", "Watermark")
        page.route("**/v1/graphs/live/quality", away)
        grow(tmp_path, store, "live", range(400, 420))
        page.wait_for_function("(before) => document.querySelector('#quality').innerText !== before", arg=counts)
        assert away.refused == {"quality"}
        assert page.evaluate(window) == [moment + 20 * 3_600_000 for moment in before]
        page.goto("about:blank")


def test_a_long_forecast_goes_on_where_nobody_says_how_long_it_takes(town: str, open_page: OpenPage) -> None:
    page, away = open_page(f"{town}/graphs/town", expected=AWAY), Away()
    says(page, "#chart-says", "median")
    page.route(re.compile("/v1/forecasts/[0-9a-f]+$"), lambda route: away.refuse("progress", route))
    # Each look at the clock finds it long enough ago that the page asked.
    page.evaluate("() => { let now = Date.now(); Date.now = () => (now += 3000); }")
    page.get_by_label("Steps ahead").fill("300")
    page.get_by_role("button", name="Run the forecast").click()
    says(page, "#long-says", "All 300 steps are there")
    assert away.refused == {"progress"}


@pytest.mark.parametrize("act", ["Cancel", "Metric"])
def test_a_long_forecast_that_is_not_wanted_before_it_is_there_is_cancelled(
    town: str, open_page: OpenPage, act: str
) -> None:
    asked: list[Any] = []

    def hold(route: Any) -> None:
        asked.append(route)

    page = open_page(f"{town}/graphs/town")
    says(page, "#chart-says", "median")
    page.route("**/v1/graphs/town/forecasts", hold)
    page.get_by_label("Steps ahead").fill("36500")
    page.get_by_role("button", name="Run the forecast").click()
    says(page, "#long-says", "Asking for the forecast")
    with page.expect_response(lambda answer: answer.request.method == "DELETE") as cancelled:
        if act == "Cancel":
            page.get_by_role("button", name="Cancel").click()
        else:
            page.get_by_role("combobox", name="Metric").select_option("reciprocity")
        asked[0].continue_()
    assert plain_http.get(cancelled.value.url).json()["status"] == "cancelled"
    if act == "Cancel":
        says(page, "#long-says", "The forecast was cancelled")
    else:
        assert page.locator("#long-state").is_hidden()
