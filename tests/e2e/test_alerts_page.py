"""Alerts in a real browser: counted on the page of all graphs, looked after by keyboard on that of one."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from forecasting.alert_worker import watch
from infra.settings import Settings
from tests.conftest import lacking
from tests.e2e.test_dashboard import grow, says
from tests.integration.serving import served, service_settings

OpenPage = Callable[..., Any]
# The steps are of 2020, so both are true from the first look on.
SILENT = {"kind": "stale", "graph": "town", "after": "1d"}
BUSY = {"kind": "forecast", "graph": "town", "metric": "events", "above": 0, "within": 24, "probability": 0.5}


@contextmanager
def watching(settings: Settings) -> Iterator[httpx.Client]:
    stop = threading.Event()
    watcher = threading.Thread(target=watch, args=(settings, stop), daemon=True)
    with served(settings) as client:
        watcher.start()
        try:
            yield client
        finally:
            stop.set()
            watcher.join(60)


@pytest.fixture
def firing(tmp_path: Path) -> Iterator[httpx.Client]:
    """Return a client of a service in whose graph `town` two alerts fire or soon will."""
    store = f"sqlite:///{tmp_path / 'store.db'}"
    grow(tmp_path, store, "town", range(300))
    grow(tmp_path, store, "quiet", range(300))
    with watching(service_settings(store, tmp_path)) as client:
        for name, rule in (("silent", SILENT), ("busy", BUSY)):
            assert client.put(f"/v1/alert-rules/{name}", json=rule).status_code == 201
        yield client


def test_alerts_are_counted_on_the_overview_and_looked_after_on_the_graphs_page(
    firing: httpx.Client, open_page: OpenPage
) -> None:
    page = open_page(str(firing.base_url))
    says(page, "#alerts-summary", r"2 alerts fire: 2 in town\.")
    page.locator("#alerts-firing").get_by_role("link", name="busy").click()
    page.wait_for_url("**/graphs/town")
    says(page, "#alerts-summary", r"^2 alerts fire\.$")
    says(page, "#alerts-firing li:has-text('busy')", "events of town is above 0 .* within 24 steps")
    one = page.locator("#alerts-firing li", has_text="silent")
    assert "No step of town has closed for" in one.inner_text()

    one.get_by_role("button", name="Acknowledge").focus()
    page.keyboard.press("Enter")
    says(page, "#alerts-firing li:has-text('silent')", "acknowledged by anyone")
    assert one.get_by_role("button", name="Acknowledge").count() == 0
    silence = one.get_by_role("button", name="Silence for 8 hours")
    silence.focus()
    page.keyboard.press("Space")
    end = one.get_by_role("button", name="End the silence")
    end.wait_for()
    page.wait_for_function("() => document.activeElement.textContent === 'End the silence'")
    assert page.locator("#said").inner_text() == "Nothing is delivered for 8 hours"

    firing.delete("/v1/alert-rules/silent")
    says(page, "#alerts-summary", r"^1 alert fires\.$")
    page.get_by_text("Those that are over").click()
    says(page, "#alerts-past", "the rule was removed")


def test_a_graph_without_alerts_shows_none(firing: httpx.Client, open_page: OpenPage) -> None:
    page = open_page(str(firing.base_url.join("/graphs/quiet")))
    says(page, "#chart-says", "every step")
    assert page.locator("#alerts-section").is_hidden()


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_axe_finds_nothing_serious_in_alerts(firing: httpx.Client, open_page: OpenPage, colours: str) -> None:
    # The policy of the page would keep axe from reading styles.
    page = open_page(str(firing.base_url), color_scheme=colours, bypass_csp=True)
    says(page, "#alerts-summary", "2 alerts fire")
    axe(page)
    firing.delete("/v1/alert-rules/silent")
    page.goto(str(firing.base_url.join("/graphs/town")))
    page.get_by_text("Those that are over").click()
    says(page, "#alerts-past", "the rule was removed")
    axe(page)


def axe(page: Any) -> None:
    try:
        from axe_playwright_python.sync_playwright import Axe  # noqa: PLC0415 - absent without the extra `test`
    except ImportError:
        lacking("browser", "the Python package axe-playwright-python is not installed")
    found = Axe().run(page).response["violations"]
    serious = [one for one in found if one["impact"] in {"serious", "critical"}]
    assert not serious, json.dumps([(one["id"], [node["html"] for node in one["nodes"]]) for one in serious], indent=1)
