"""Alerts over HTTP: judged beside the service, told to a receiver once, seen by those who may."""

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from forecasting.alerts.records import DELIVERIES, Alerts
from forecasting.configured_schedules import take_schedules
from forecasting.keys import Keys, Scope
from forecasting.report_worker import work
from forecasting.reports.deliveries import Deliveries
from forecasting.service_file import ServiceFile
from infra.errors import GraphtideError
from infra.settings import Settings
from stream.decoders.builder import DecodeOptions
from stream.ingest import IngestOptions, ingest
from stream.sources.files import FileSource
from tests.integration.serving import served, service_settings, start_worker
from tests.integration.test_report_service import JOBS, WAIT_S, working
from tests.unit.forecasting.test_report_targets import receiver

HOUR_S = 3600
BEGIN_S = 1_700_000_000 // HOUR_S * HOUR_S
BUSY, USUAL, STEPS = 400, 12, 48
LOW = {"kind": "forecast", "metric": "events", "below": 5, "within": 2, "probability": 0.5, "deliver": ["hook"]}
ODD = {"kind": "surprise", "metrics": ["events"], "false_discovery_rate": 0.3, "deliver": ["hook"]}
STALE = {"kind": "stale", "after": "1d", "deliver": ["hook"]}


class Town:
    """A store whose graphs grow by hours of so many events."""

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder}/store.db"
        self._folder = folder
        self._hours: Counter[str] = Counter()

    def grow(self, graph: str, *events: int) -> None:
        lines = []
        for count in events:
            begin_s = BEGIN_S + self._hours[graph] * HOUR_S
            self._hours[graph] += 1
            lines += [
                json.dumps({"src": f"n{i % 9}", "dst": f"n{(i + 1) % 9}", "ts": begin_s + i * HOUR_S / (count + 1)})
                for i in range(count)
            ]
        log = self._folder / f"{graph}-{self._hours[graph]}.ndjson"
        log.write_text("\n".join(lines) + "\n")
        ingest(FileSource(log, DecodeOptions(graph=graph)), self.url, IngestOptions())


@pytest.fixture
def town(tmp_path: Path) -> Town:
    found = Town(tmp_path)
    found.grow("town", *[USUAL + hour % 3 for hour in range(STEPS)])
    return found


Taken = Callable[[], list[tuple[str, dict[str, Any]]]]


@contextmanager
def receiving(*, fails: int = 0) -> Iterator[tuple[str, Taken]]:
    """Yield the address of a receiver that refuses the first `fails`, and what returns the keys and notices it took."""
    with receiver(*[503] * fails, 204) as (url, seen):
        yield (
            f"{url}/hook",
            lambda: [(headers["idempotency-key"], json.loads(body)) for _, _, headers, body in seen[fails:]],
        )


def settings_for(town: Town, folder: Path, hook: str = "http://127.0.0.1:9/hook", **alerts: Any) -> Settings:
    (secret := folder / "secret").write_text("s3cret")
    target = {"kind": "webhook", "url": hook, "secret_file": str(secret), "allow_private": True}
    theirs = {"kind": "folder", "path": str(folder / "theirs"), "graphs": ["harbour"]}
    reports = {"targets": {"hook": target, "theirs": theirs}, "timeout_s": 2, "retry_min_s": 0.1, "retry_max_s": 0.2}
    return service_settings(
        town.url, folder, jobs=JOBS, reports=reports, alerts={"paths": 50, "window": "1d", **alerts}
    )


def until(question: Any) -> Any:
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        if found := question():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come to that")


def test_alert_is_set_judged_told_seen_and_over(town: Town, tmp_path: Path) -> None:
    with receiving(fails=2) as (hook, taken):
        settings = settings_for(town, tmp_path, hook)
        with served(settings) as client, working(settings, work):
            answer = client.put("/v1/alert-rules/odd", json={"graph": "town", **ODD})
            assert answer.status_code == 201, answer.text
            assert client.put("/v1/alert-rules/odd", json={"graph": "town", **ODD}).status_code == 200
            until(lambda: client.get("/v1/alert-rules/odd").json()["evaluations"] == 0 and watched(settings))
            town.grow("town", USUAL)
            until(lambda: client.get("/v1/alert-rules/odd").json()["evaluations"] == 1)
            town.grow("town", BUSY)
            until(taken)
            (alert,) = client.get("/v1/alerts?graph=town&state=firing").json()["alerts"]
            assert (alert["rule"], alert["metric"]) == ("odd", "events")
            assert f"events of town was {BUSY}" in alert["summary"]
            assert client.post(f"/v1/alerts/{alert['id']}/acknowledge").json()["acknowledged_by"] == "anyone"
            meters = client.get("/metrics").text
            assert 'graphtide_alerts_firing{rule="odd"} 1.0' in meters
            assert 'graphtide_alert_failures_total{rule="odd"} 0.0' in meters
            town.grow("town", USUAL)
            until(lambda: len(taken()) == 2)
            whole = client.get(f"/v1/alerts/{alert['id']}").json()
            assert [one["state"] for one in whole["transitions"]] == ["resolved", "firing"]
            until(lambda: client.get(f"/v1/alerts/{alert['id']}").json()["transitions"][0]["deliveries"][0]["finished"])
            assert client.post(f"/v1/alerts/{alert['id']}/acknowledge").status_code == 409
            assert client.get("/v1/alerts?state=firing").json() == {"alerts": []}
            assert client.delete("/v1/alert-rules/odd").status_code == 204
    assert [notice["state"] for _, notice in taken()] == ["firing", "resolved"]
    assert len({key for key, _ in taken()}) == 2
    assert taken()[0][1]["links"]["page"] == "/graphs/town"


def watched(settings: Settings) -> bool:
    with ServiceFile(settings.api.service_db) as file:
        return bool(file.rows("SELECT 1 FROM alert_watches WHERE ground != ''"))


def test_bad_rule_is_a_problem_that_names_the_member(town: Town, tmp_path: Path) -> None:
    settings = settings_for(town, tmp_path, max_rules_per_key=1)
    good = {"graph": "town", **LOW}
    calls = [
        ({**good, "metric": "evnts"}, "metric"),
        ({**good, "probability": 1}, "probability"),
        ({**good, "probability": 0}, "probability"),
        ({**good, "within": "soon"}, "within"),
        ({**good, "within": 0}, "within"),
        ({**good, "deliver": ["nowhere"]}, "deliver"),
        ({**good, "deliver": ["theirs"]}, "deliver"),
        ({**good, "deliver": "hook"}, "deliver"),
        ({**good, "below": "x"}, "below"),
        ({**good, "bellow": 3}, "bellow"),
        ({**good, "above": 3}, "above"),
        ({"graph": "town", "kind": "stale"}, "after"),
        ({"graph": "town", "kind": "surprise", "leads": [0]}, "leads"),
        ({"graph": "town"}, "kind"),
        ({**good, "graph": 7}, "graph"),
    ]
    with served(settings) as client:
        for body, field in calls:
            answer = client.put("/v1/alert-rules/quiet", json=body)
            assert answer.status_code == 422, (body, answer.text)
            assert answer.headers["content-type"] == "application/problem+json"
            (error,) = answer.json()["errors"]
            assert error["field"] == field
            assert error["allowed"]
        assert client.put("/v1/alert-rules/A", json=good).json()["errors"][0]["field"] == "name"
        assert client.put("/v1/alert-rules/quiet", json={**good, "graph": "twon"}).status_code == 404
        assert client.put("/v1/alert-rules/quiet", json=good).status_code == 201
        assert client.put("/v1/alert-rules/more", json=good).status_code == 429
        assert client.get("/v1/alerts?state=burning").status_code == 422
        assert client.get("/v1/alerts?graph=twon").status_code == 404
        assert client.get("/v1/alerts/x").status_code == 404
        for body in ({"for": "soon"}, {"for": "9999d"}, {}, {"until": 3}):
            assert client.post(f"/v1/alerts/{'0' * 32}/silence", json=body).status_code == 404


def test_keys_see_and_change_alerts_of_their_graphs_only(town: Town, tmp_path: Path) -> None:
    town.grow("harbour", *[USUAL] * STEPS)
    settings = settings_for(town, tmp_path)
    with ServiceFile(settings.api.service_db) as file:
        keys = Keys(file)
        mine = keys.create("mine", Scope.WRITE, ["town"])[1]
        reader = keys.create("reader", Scope.READ, ["town"])[1]
        other = keys.create("other", Scope.WRITE, ["harbour"])[1]
        admin = keys.create("admin", Scope.ADMIN, ["*"])[1]

    def call(token: str, method: str, path: str, body: Any = None) -> httpx.Response:
        return client.request(method, path, json=body, headers={"X-API-Key": token})

    with served(settings) as client, working(settings, work):
        everything = {"graph": "*", **STALE, "deliver": []}
        assert call(mine, "PUT", "/v1/alert-rules/mine", everything).status_code == 201
        assert call(admin, "PUT", "/v1/alert-rules/all", everything).status_code == 201
        until(lambda: len(call(admin, "GET", "/v1/alerts").json()["alerts"]) == 3)
        for token, graph, count in ((mine, "town", 2), (reader, "town", 2), (other, "harbour", 1)):
            seen = call(token, "GET", "/v1/alerts").json()["alerts"]
            assert [one["graph"] for one in seen] == [graph] * count
        assert [one["name"] for one in call(mine, "GET", "/v1/alert-rules").json()["rules"]] == ["mine"]
        assert call(other, "GET", "/v1/alert-rules").json() == {"rules": []}
        (alert,) = [one for one in call(mine, "GET", "/v1/alerts").json()["alerts"] if one["rule"] == "mine"]
        place = f"/v1/alerts/{alert['id']}"
        looked = 0
        for path, methods in call(admin, "GET", "/openapi.json").json()["paths"].items():
            for method in methods:
                if "{alert}" in path:
                    theirs = call(other, method.upper(), path.replace("{alert}", alert["id"]), {"for": "1h"})
                    none = call(other, method.upper(), path.replace("{alert}", "0" * 32), {"for": "1h"})
                    assert theirs.status_code == 404
                    assert theirs.text == none.text, "what is hidden looks as if it were not there"
                    assert client.request(method.upper(), path.replace("{alert}", alert["id"])).status_code == 401
                    looked += 1
                if path == "/v1/alert-rules/{name}" and method != "put":
                    theirs = call(other, method.upper(), "/v1/alert-rules/mine")
                    assert theirs.text == call(other, method.upper(), "/v1/alert-rules/none").text
                    looked += 1
        assert looked == 6
        assert call(other, "PUT", "/v1/alert-rules/mine", everything).status_code == 409
        assert call(other, "PUT", "/v1/alert-rules/new", {**everything, "graph": "town"}).status_code == 404
        assert call(other, "PUT", "/v1/alert-rules/new", {**everything, "graph": "tow*"}).status_code == 404
        assert call(mine, "PUT", "/v1/alert-rules/mine", {**everything, "deliver": ["theirs"]}).status_code == 422
        for method, path, body in (
            ("PUT", "/v1/alert-rules/mine", everything),
            ("DELETE", "/v1/alert-rules/mine", None),
            ("POST", f"{place}/acknowledge", None),
            ("POST", f"{place}/silence", {"for": "1h"}),
            ("DELETE", f"{place}/silence", None),
        ):
            assert call(reader, method, path, body).status_code == 403
        assert call(mine, "POST", f"{place}/silence", {"for": "1h"}).json()["silenced_until"] is not None
        assert call(mine, "POST", f"{place}/silence", {"for": "soon"}).status_code == 422
        assert call(mine, "DELETE", f"{place}/silence").json()["silenced_until"] is None
        assert call(mine, "DELETE", "/v1/alert-rules/mine").status_code == 204
        assert call(mine, "GET", place).json()["state"] == "resolved"


def test_killed_workers_lose_no_change_and_double_none(town: Town, tmp_path: Path) -> None:
    with receiving() as (hook, taken):
        settings = settings_for(town, tmp_path, hook)
        settings = settings.model_copy(update={"reports": settings.reports.model_copy(update={"timeout_s": 0.2})})
        with served(settings) as client:
            assert client.put("/v1/alert-rules/odd", json={"graph": "town", **ODD}).status_code == 201
        worker = start_worker("forecasting.report_worker", settings, "w0", log_level=40)
        try:
            until(lambda: watched(settings))
            with ServiceFile(settings.api.service_db) as file:
                alerts = Alerts(file, keep_s=3600)
                for kill in range(4):
                    town.grow("town", BUSY if kill % 2 == 0 else USUAL)
                    # Later each time: before it looks, while it judges, while it delivers, behind that.
                    time.sleep(0.03 + 0.25 * kill)
                    os.kill(worker.pid, signal.SIGKILL)
                    worker.wait()
                    worker = start_worker("forecasting.report_worker", settings, f"w{kill + 1}", log_level=40)
                    until(
                        lambda number=kill + 1: (
                            [row.changes for row in alerts.newest(["town"], ["firing", "resolved"], limit=9)]
                            == [number]
                        )
                    )
                until(lambda: len({key for key, _ in taken()}) == 4)
                deliveries = Deliveries(file, settings.reports, lease_s=1, queue=DELIVERIES)
                (row,) = alerts.newest(["town"], ["resolved"], limit=9)
                changes = alerts.transitions(row.id)
                until(lambda: all(one.status == "done" for change in changes for one in deliveries.of(change.id)))
        finally:
            assert worker.stdin is not None
            worker.stdin.close()
            worker.wait(WAIT_S)
    states = {key: notice["state"] for key, notice in taken()}
    assert Counter(states.values()) == {"firing": 2, "resolved": 2}
    numbers = [notice["number"] for _, notice in taken()]
    assert numbers == sorted(numbers)


def test_service_refuses_to_start_with_a_rule_that_cannot_work(town: Town, tmp_path: Path) -> None:
    rules = {"quiet": {"kind": "forecast", "graph": "town", "metric": "events"}}
    with pytest.raises(GraphtideError, match="either below or above") as caught:
        take_schedules(settings_for(town, tmp_path, rules=rules))
    assert "[alerts.rules.quiet]" in str(caught.value)
