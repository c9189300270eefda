"""Reports and scenarios in a real browser: made, read, scheduled, paused and deleted beside a graph that grows."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from forecasting.keys import Keys, Scope
from forecasting.service_file import ServiceFile
from tests import plain_http
from tests.e2e.conftest import JOBS, WAIT_MS, serving_jobs
from tests.e2e.test_dashboard import grow, says
from tests.integration.serving import service_settings
from tests.unit.forecasting.test_reports import made

OpenPage = Callable[..., Any]


def settings_of(store: str, folder: Path) -> Any:
    targets = {"archive": {"kind": "folder", "path": str(folder / "archive")}}
    return service_settings(store, folder, jobs=JOBS, reports={"paths": 20, "targets": targets})


def test_from_the_overview_to_a_scheduled_report(tmp_path: Path, open_page: OpenPage) -> None:
    store = f"sqlite:///{tmp_path / 'store.db'}"
    grow(tmp_path, store, "live", range(400))
    with serving_jobs(settings_of(store, tmp_path)) as address:
        page = open_page(address, expected="status of 422")
        page.get_by_role("link", name="live").click()
        says(page, "#chart-says", "median")

        grow(tmp_path, store, "live", range(400, 410))
        says(page, "#facts", "410 steps")

        page.get_by_label("Steps ahead").fill("300")
        page.get_by_role("button", name="Run the forecast").click()
        says(page, "#long-says", "All 300 steps are there")

        page.locator("#report-horizon").fill("200")
        page.get_by_role("button", name="Make a report").click()
        page.locator("#reports .state.done").wait_for()
        with page.expect_popup() as opened:
            page.get_by_role("link", name="Open the report").click()
        report = opened.value
        report.get_by_role("heading", name="How the network changes").wait_for()
        report.close()

        page.get_by_text("Set a schedule").click()
        page.get_by_label("Name", exact=True).fill("each-minute")
        page.get_by_label("When").fill("often")
        page.get_by_role("button", name="Set the schedule").click()
        says(page, "#schedule-cron-fault", "cron cannot be 'often'")
        assert page.evaluate("document.activeElement.id") == "schedule-cron"
        page.get_by_label("When").fill("* * * * *")
        page.get_by_label("Time zone").fill("Europe/Berlin")
        page.locator("#schedule-horizon").fill("100")
        page.get_by_label("archive (folder)").check()
        page.get_by_role("button", name="Set the schedule").click()
        says(page, "#schedules", "each-minute")
        assert page.locator("#schedule-cron-fault").is_hidden()
        kept = plain_http.get(f"{address}/v1/report-schedules/each-minute").json()
        assert (kept["cron"], kept["timezone"], kept["deliver"]) == ("* * * * *", "Europe/Berlin", ["archive"])

        # Set a minute earlier, it is due. It comes by itself, and is delivered.
        with ServiceFile(tmp_path / "service.db") as file, file.transaction() as connection:
            connection.execute("UPDATE report_schedules SET planned_us = planned_us - 60000000")
        says(page, "#reports", "by the schedule each-minute", within_s=60 + WAIT_MS / 1000)
        # What is deleted before it was delivered is not delivered.
        end = time.monotonic() + WAIT_MS / 1000
        while not (delivered := list((tmp_path / "archive").glob("live-each-minute-*.html"))):
            assert time.monotonic() < end, "the report was not delivered"
            page.wait_for_timeout(100)
        page.locator("#schedules").get_by_text("Runs").click()
        says(page, "#schedules", "begun, attempt 1")
        page.get_by_role("button", name="Pause the schedule").click()
        says(page, "#schedules .state", "paused")
        # To change it resumes it not.
        page.get_by_role("button", name="Change the schedule").click()
        page.locator("#schedule-horizon").fill("99")
        page.get_by_role("button", name="Set the schedule").click()
        says(page, "#schedule-says", "next when it is resumed")
        kept = plain_http.get(f"{address}/v1/report-schedules/each-minute").json()
        assert (kept["horizon"], kept["paused"]) == (99, True)
        page.get_by_role("button", name="Delete the schedule").click()
        page.get_by_role("button", name="Cancel").last.click()
        says(page, "#schedules", "each-minute")
        page.get_by_role("button", name="Delete the schedule").click()
        page.locator("#confirm-yes").click()
        says(page, "#schedules", "No report of this graph is made by the calendar")
        many = page.locator("#reports li").count()
        page.get_by_role("button", name="Delete the report").first.click()
        page.keyboard.press("Escape")
        assert page.locator("#reports li").count() == many
        page.get_by_role("button", name="Delete the report").first.click()
        page.locator("#confirm-yes").click()
        page.wait_for_function("(many) => document.querySelectorAll('#reports li').length < many", arg=many)
        page.goto("about:blank")
        # Who has got it keeps it.
        assert all(file.is_file() for file in delivered)


def test_the_last_column_of_what_changes_is_seen_on_a_desk(tmp_path: Path, open_page: OpenPage) -> None:
    file = tmp_path / "toy.html"
    file.write_bytes(made(tmp_path).html)
    region = open_page(file.as_uri()).get_by_role("region", name="Changes", exact=True)
    assert "the week of" in region.inner_text()
    wide, room = region.evaluate("region => [region.scrollWidth, region.clientWidth]")
    assert wide <= room


def test_scenarios_are_drawn_and_drawn_again(town: str, open_page: OpenPage) -> None:
    page = open_page(f"{town}/graphs/town")
    says(page, "#chart-says", "median")
    assert page.locator("#scenario-others").is_hidden()
    page.get_by_role("combobox", name="Scenarios").select_option("3")
    said = says(page, "#chart-says", "3 scenarios end there")
    assert page.locator("#legend-scenarios").is_visible()
    page.get_by_role("button", name="Draw others").click()
    page.wait_for_function("(before) => document.querySelector('#chart-says').textContent !== before", arg=said)
    assert page.locator("#scenario-seed").input_value() == "1"
    page.locator("#scenario-seed").fill("0")
    page.wait_for_function("(before) => document.querySelector('#chart-says').textContent === before", arg=said)
    page.get_by_text("The data behind the chart").click()
    page.get_by_role("columnheader", name="Scenario 3").wait_for()
    page.get_by_label("Steps ahead").fill("200")
    page.get_by_role("button", name="Run the forecast").click()
    says(page, "#long-says", "All 200 steps are there")
    says(page, "#chart-says", "3 scenarios end there")


def test_with_a_key_a_report_is_saved_and_who_only_reads_is_told(tmp_path: Path, open_page: OpenPage) -> None:
    store = f"sqlite:///{tmp_path / 'store.db'}"
    grow(tmp_path, store, "red", range(300))
    settings = settings_of(store, tmp_path)
    with ServiceFile(settings.api.service_db) as file:
        keys = Keys(file)
        writer, reader = (keys.create(scope.name.lower(), scope, ["red"])[1] for scope in (Scope.WRITE, Scope.READ))
    with serving_jobs(settings) as address:
        page = open_page(f"{address}/graphs/red", expected=r"status of 40[13]")
        page.get_by_role("textbox", name="API key").fill(writer)
        page.keyboard.press("Enter")
        says(page, "#chart-says", "median")
        page.locator("#report-horizon").fill("100")
        page.get_by_role("button", name="Make a report").click()
        with page.expect_download() as saved:
            page.get_by_role("button", name="Save the page").click()
        assert b"How the network changes" in Path(saved.value.path()).read_bytes()
        page.get_by_role("button", name="Forget the key").click()
        page.get_by_role("textbox", name="API key").fill(reader)
        page.keyboard.press("Enter")
        says(page, "#reports", "done")
        page.get_by_role("button", name="Make a report").click()
        says(page, "#report-fault", "Ask for a key with scope write")
        assert writer not in page.content()
        assert re.search(r"100 steps", page.locator("#reports").inner_text())
        assert json.loads(page.evaluate("JSON.stringify(Object.keys(localStorage))")) in ([], ["graphtide-theme"])
        page.goto("about:blank")
