"""Reports over HTTP: asked for, made beside the service, read in three forms, scheduled, delivered; seen by whom."""

import io
import json
import os
import shutil
import signal
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from forecasting.configured_schedules import take_schedules
from forecasting.job_worker import work as forecast_work
from forecasting.keys import Keys, Scope
from forecasting.report_worker import work
from forecasting.reports import making
from forecasting.reports.contents import ReportRequest
from forecasting.reports.pdf import PROGRAMS
from forecasting.reports.records import Reports
from forecasting.reports.schedules import Schedule, Schedules
from forecasting.service_file import ServiceFile, now_us
from infra.errors import GraphtideError
from infra.settings import Settings
from tests.conftest import lacking
from tests.integration.serving import save_model, served, service_settings, start_worker

JOBS = {"when_idle": False, "chunk_steps": 100, "lease_s": 2}
WAIT_S = 200.0


def chosen(toy_store: str, folder: Path, **reports: Any) -> Settings:
    targets = {"archive": {"kind": "folder", "path": str(folder / "out")}}
    return service_settings(toy_store, folder, jobs=JOBS, reports={"paths": 20, "targets": targets, **reports})


@contextmanager
def working(settings: Settings, *kinds: Any) -> Iterator[None]:
    stop = threading.Event()
    threads = [threading.Thread(target=kind, args=(settings, f"w{i}", stop)) for i, kind in enumerate(kinds or (work,))]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(WAIT_S)


def finished(client: httpx.Client, path: str, **headers: str) -> dict[str, Any]:
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until:
        body: dict[str, Any] = client.get(path, headers=headers).json()
        if body["status"] not in ("queued", "running"):
            return body
        time.sleep(0.05)
    raise AssertionError(f"{path} did not finish")


def test_report_is_made_and_its_numbers_are_those_of_the_service(toy_store: str, tmp_path: Path) -> None:
    settings = chosen(toy_store, tmp_path)
    save_model(toy_store, "toy", tmp_path / "models")
    with served(settings) as client, working(settings, work, forecast_work):
        asked = client.post("/v1/graphs/toy/reports", json={"horizon": 700})
        assert asked.status_code == 202, asked.text
        place = asked.headers["location"]
        done = finished(client, place)
        assert done["status"] == "done"
        assert done["summary"]
        page = client.get(place, headers={"Accept": "text/html"})
        assert page.headers["content-type"].startswith("text/html")
        assert page.headers["content-security-policy"].startswith("sandbox allow-scripts; default-src 'none'")
        assert "How the network changes" in page.text
        data = client.get(place, headers={"Accept": "application/zip"})
        with zipfile.ZipFile(io.BytesIO(data.content)) as archive:
            facts = json.loads(archive.read("report.json"))
        assert facts == done["facts"]
        job = client.post("/v1/graphs/toy/forecasts", json={"horizon": 700}).headers["location"]
        finished(client, job)
        result = client.get(f"{job}/result").json()
        assert result["provenance"] == facts["provenance"]
        for series in result["outputs"]:
            near = facts["near"]["columns"][series["name"]]
            np.testing.assert_array_equal(np.float32(near["mean"]), np.float32(series["mean_forecast"][:168]))
            np.testing.assert_array_equal(np.float32(near["q0.9"]), np.float32(series["quantiles"]["0.9"][:168]))
        listed = client.get("/v1/reports", params={"graph": "toy"}).json()["reports"]
        assert [row["id"] for row in listed] == [done["id"]]
        assert client.delete(place).status_code == 204
        assert client.get(place).status_code == client.delete(place).status_code == 404
        assert client.get(place, headers={"Accept": "text/html"}).status_code == 404


def test_what_cannot_be_is_a_problem_that_says_why(toy_store: str, tmp_path: Path) -> None:
    with served(chosen(toy_store, tmp_path)) as client:
        waiting = client.post("/v1/graphs/toy/reports").headers["location"]
        calls = [
            ("POST", "/v1/graphs/toy/reports", {"horizon": 0}, 422),
            ("POST", "/v1/graphs/toy/reports", {"horizons": 3}, 422),
            ("POST", "/v1/graphs/none/reports", {}, 404),
            ("GET", "/v1/reports/" + "0" * 32, None, 404),
            ("GET", "/v1/reports/x", None, 404),
            ("GET", "/v1/reports?limit=0", None, 422),
            ("PUT", "/v1/report-schedules/a", {"graph": "toy", "cron": "x"}, 422),
            ("PUT", "/v1/report-schedules/a", {"graph": "toy", "cron": "0 0 * * *", "timezone": "Mars"}, 422),
            ("PUT", "/v1/report-schedules/a", {"graph": "toy", "cron": "0 0 * * *", "deliver": ["no"]}, 422),
            ("PUT", "/v1/report-schedules/a", {"graph": "toy", "cron": "0 0 * * *", "missed": "no"}, 422),
            ("PUT", "/v1/report-schedules/a", {"graph": "toy", "cron": 5}, 422),
            ("PUT", "/v1/report-schedules/A b", {"graph": "toy", "cron": "0 0 * * *"}, 422),
            ("GET", "/v1/report-schedules/a", None, 404),
            ("DELETE", "/v1/report-schedules/a", None, 404),
            ("GET", "/v1/report-schedules/a/runs", None, 404),
        ]
        for method, path, body, status in calls:
            answer = client.request(method, path, json=body) if body is not None else client.request(method, path)
            assert answer.status_code == status, (path, answer.text)
            assert answer.headers["content-type"] == "application/problem+json"
        for wrong, field in (
            ({"cron": "x"}, "cron"),
            ({"timezone": "Mars"}, "timezone"),
            ({"deliver": ["no"]}, "deliver"),
        ):
            body = {"graph": "toy", "cron": "0 0 * * *", **wrong}
            (error,) = client.put("/v1/report-schedules/a", json=body).json()["errors"]
            assert error["field"] == field
        page = client.get(waiting, headers={"Accept": "text/html"})
        assert page.status_code == 409
        assert client.get(waiting, headers={"Accept": "image/png"}).status_code == 406


def test_keys_see_and_change_what_is_of_their_graphs_only(toy_store: str, tmp_path: Path) -> None:
    settings = chosen(toy_store, tmp_path)
    with ServiceFile(settings.api.service_db) as file:
        keys = Keys(file)
        mine = keys.create("mine", Scope.WRITE, ["toy"])[1]
        reader = keys.create("reader", Scope.READ, ["toy"])[1]
        other = keys.create("other", Scope.ADMIN, ["other"])[1]
    with served(settings) as client:

        def call(token: str, method: str, path: str, body: Any = None) -> httpx.Response:
            return client.request(method, path, json=body, headers={"X-API-Key": token})

        place = call(mine, "POST", "/v1/graphs/toy/reports", {}).headers["location"]
        schedule = "/v1/report-schedules/weekly"
        spec = {"graph": "toy", "cron": "0 7 * * 1", "timezone": "Europe/Berlin", "deliver": ["archive"]}
        assert call(mine, "PUT", schedule, spec).status_code == 201
        assert call(mine, "PUT", schedule, spec).status_code == 200
        assert call(mine, "GET", "/v1/report-targets").json() == {"targets": [{"name": "archive", "kind": "folder"}]}
        assert call(other, "GET", "/v1/report-targets").json() == {"targets": []}
        assert call(other, "GET", "/v1/report-targets?graph=toy").status_code == 404
        for path in (place, schedule, f"{schedule}/runs"):
            assert call(other, "GET", path).status_code == 404
            assert call(mine, "GET", path).status_code == call(reader, "GET", path).status_code == 200
        assert call(other, "GET", "/v1/reports").json() == {"reports": []}
        assert call(other, "GET", "/v1/reports?graph=toy").status_code == 404
        assert call(other, "GET", "/v1/report-schedules").json() == {"schedules": []}
        assert call(other, "DELETE", schedule).status_code == call(other, "DELETE", place).status_code == 404
        assert call(other, "PUT", schedule, spec).status_code == 404
        for method, path, body in (
            ("DELETE", schedule, None),
            ("DELETE", place, None),
            ("PUT", schedule, spec),
            ("POST", "/v1/graphs/toy/reports", {}),
        ):
            assert call(reader, method, path, body).status_code == 403
        paused = call(mine, "PUT", schedule, {**spec, "paused": True}).json()
        assert (paused["paused"], paused["next"]) == (True, None)
        assert call(mine, "DELETE", schedule).status_code == call(mine, "DELETE", place).status_code == 204
        for path in ("/v1/reports", place, "/v1/report-schedules", schedule):
            assert client.get(path).status_code == 401


def test_a_schedule_makes_and_delivers_reports_of_its_slots(toy_store: str, tmp_path: Path) -> None:
    settings = chosen(toy_store, tmp_path)
    request = ReportRequest(100, 0, 20)
    with ServiceFile(settings.api.service_db) as file:
        hour_ago = now_us() - 3_600_000_000
        schedule = Schedule("often", "toy", "*/20 * * * *", "UTC", request, ("archive",), "all")
        Schedules(file, settings.reports, lambda: hour_ago).put(schedule, owner="")
        with working(settings, work, work), served(settings) as client:
            until = time.monotonic() + WAIT_S
            runs: list[dict[str, Any]] = []
            while time.monotonic() < until:
                runs = client.get("/v1/report-schedules/often/runs").json()["runs"]
                if len(runs) >= 3 and all(
                    d["status"] == "done" for r in runs for d in r["deliveries"] or [{"status": 0}]
                ):
                    break
                time.sleep(0.1)
    assert len(runs) in (3, 4)
    assert len({run["slot"] for run in runs}) == len(runs)
    for run in runs:
        lines = [entry["line"] for entry in run["log"]]
        assert lines == ["due", "begun, attempt 1", "made", "delivered to archive, try 1"]
    pages = sorted(path.name for path in (tmp_path / "out").glob("*.html"))
    named = sorted(f"toy-often-{run['slot'].replace(':', '')}" for run in runs)
    assert [name.rpartition("-")[0] for name in pages] == named


def test_killed_workers_lose_no_report_and_no_delivery(toy_store: str, tmp_path: Path) -> None:
    settings = chosen(toy_store, tmp_path, timeout_s=0.1)
    with ServiceFile(settings.api.service_db) as file:
        hour_ago = now_us() - 3_600_000_000
        schedule = Schedule("often", "toy", "*/15 * * * *", "UTC", ReportRequest(3000, 0, 40), ("archive",), "all")
        Schedules(file, settings.reports, lambda: hour_ago).put(schedule, owner="")
        reports = Reports(file, settings.reports, settings.jobs)
        kills = 0
        process = start_worker("forecasting.report_worker", settings, "w0", log_level=40)
        until = time.monotonic() + 2 * WAIT_S
        try:
            while time.monotonic() < until:
                rows = reports.newest(schedule="often", limit=9)
                running = [row for row in rows if row.status == "running"]
                if kills < 3 and running and running[0].attempts < 3:
                    time.sleep(0.15 * kills)
                    os.kill(process.pid, signal.SIGKILL)
                    process.wait()
                    kills += 1
                    process = start_worker("forecasting.report_worker", settings, f"w{kills}", log_level=40)
                files = list((tmp_path / "out").glob("*.html")) if (tmp_path / "out").exists() else []
                if len(rows) >= 4 and len(files) == len(rows):
                    break
                time.sleep(0.05)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(WAIT_S)
        rows = reports.newest(schedule="often", limit=9)
        assert kills == 3
        assert {row.status for row in rows} == {"done"}
        assert len({row.slot_us for row in rows}) == len(rows) == len(files)
        for row in rows:
            assert sum(line == "made" for _, line in reports.log(row.id)) == 1


def test_report_of_a_graph_that_is_not_there_fails_and_says_so(toy_store: str, tmp_path: Path) -> None:
    settings = chosen(toy_store, tmp_path)
    with ServiceFile(settings.api.service_db) as file, working(settings):
        reports = Reports(file, settings.reports, settings.jobs)
        wanted = reports.create("", "gone", ReportRequest(10, 0, 20))
        until = time.monotonic() + WAIT_S
        while (row := reports.get(wanted.id)) and row.status in ("queued", "running") and time.monotonic() < until:
            time.sleep(0.05)
        assert row is not None
        assert (row.status, row.problem) == ("failed", "the store has no snapshots of 'gone'")


def test_service_refuses_to_start_with_a_target_that_lacks_something(toy_store: str, tmp_path: Path) -> None:
    with pytest.raises(GraphtideError, match="has no path"):
        take_schedules(chosen(toy_store, tmp_path, targets={"x": {"kind": "folder"}}))


def test_a_report_is_printed_once_and_without_a_browser_the_answer_says_so(toy_store: str, tmp_path: Path) -> None:
    settings = chosen(toy_store, tmp_path)
    if not any(map(shutil.which, PROGRAMS)):
        lacking("browser", f"there is no {' or '.join(PROGRAMS)} on the PATH")
    wanted = {"Accept": "application/pdf"}
    with served(settings) as client, working(settings):
        place = client.post("/v1/graphs/toy/reports", json={"horizon": 50}).headers["location"]
        assert finished(client, place)["status"] == "done"
        printed = client.get(place, headers=wanted)
        assert (printed.status_code, printed.headers["content-type"]) == (200, "application/pdf")
        assert printed.content.startswith(b"%PDF-")
        assert client.get(place, headers=wanted).content == printed.content
    without = chosen(toy_store, tmp_path, browser="no-such-browser")
    with served(without) as client, working(without):
        assert client.get(place, headers=wanted).content == printed.content
        place = client.post("/v1/graphs/toy/reports", json={"horizon": 50}).headers["location"]
        assert finished(client, place)["status"] == "done"
        told = client.get(place, headers=wanted)
        assert (told.status_code, told.json()["type"]) == (503, "urn:graphtide:problem:not-printed")
        assert "no-such-browser" not in told.text
        assert int(told.headers["retry-after"]) > 0


def test_a_report_that_ends_every_worker_is_given_up(
    toy_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: object, **_named: object) -> None:
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr(making, "make_report", broken)
    settings = chosen(toy_store, tmp_path)
    with ServiceFile(settings.api.service_db) as file:
        reports = Reports(file, settings.reports, settings.jobs)
        wanted = reports.create("", "toy", ReportRequest(10, 0, 20))
        for number in range(settings.jobs.max_attempts):
            with pytest.raises(ZeroDivisionError):
                work(settings, f"w{number}", threading.Event())
        assert reports.claim("another") is None
        row = reports.get(wanted.id)
    assert row is not None
    assert row.status == "failed"
