"""Schedules and rules whose name another takes just before they are written: what holds by then is answered."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from forecasting.alerts.rulebook import RuleBook
from forecasting.alerts.rules import checked
from forecasting.keys import Keys, Scope
from forecasting.reports.contents import ReportRequest
from forecasting.reports.schedules import Schedule, Schedules
from forecasting.service_file import ServiceFile
from infra.settings import AlertRuleSettings, AlertSettings, ReportSettings, Settings
from tests.integration.serving import problem, served, service_settings

SCHEDULE = {"graph": "toy", "cron": "0 7 * * 1"}
RULE = {"graph": "toy", "kind": "stale", "after": "3h"}
Intrude = Callable[[ServiceFile], Any]


def _schedule(graph: str) -> Schedule:
    return Schedule("x", graph, "0 7 * * 1", "UTC", ReportRequest(100, 0, 20))


def _rule(graph: str) -> AlertRuleSettings:
    return AlertRuleSettings(**{**RULE, "graph": graph})


# Which class, where, what is set, and who comes before: a key of another graph, the settings, a key of this graph.
SCHEDULES = (
    Schedules,
    "/v1/report-schedules/x",
    SCHEDULE,
    lambda file: Schedules(file, ReportSettings()).put(_schedule("other"), owner="other"),
    lambda file: Schedules(file, ReportSettings()).take_settings([_schedule("toy")]),
    lambda file: Schedules(file, ReportSettings()).put(_schedule("toy"), owner="same"),
)
RULES = (
    RuleBook,
    "/v1/alert-rules/x",
    RULE,
    lambda file: RuleBook(file).put(checked("x", _rule("other"), {}), owner="other"),
    lambda file: RuleBook(file).take_settings(AlertSettings(rules={"x": _rule("toy")}), {}),
    lambda file: RuleBook(file).put(checked("x", _rule("toy"), {}), owner="same"),
)


@pytest.fixture(scope="module")
def settings(toy_store: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return service_settings(toy_store, tmp_path_factory.mktemp("taken"))


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[httpx.Client]:
    with ServiceFile(settings.api.service_db) as file:
        token = Keys(file).create("toy", Scope.WRITE, ["toy"])[1]
    with served(settings) as client:
        client.headers["X-API-Key"] = token
        yield client


@pytest.fixture
def before(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[type, str, Intrude], None]]:
    """Return what lets another process come before the next call of a method."""
    place = settings.api.service_db
    assert isinstance(place, Path)

    def arrange(kind: type, method: str, intrude: Intrude) -> None:
        real = getattr(kind, method)

        def second(*args: Any, **options: Any) -> Any:
            monkeypatch.setattr(kind, method, real)
            with ServiceFile(place) as file:
                kinds[kind](file)
                intrude(file)
            return real(*args, **options)

        monkeypatch.setattr(kind, method, second)

    kinds: dict[type, Intrude] = {
        Schedules: lambda file: Schedules(file, ReportSettings()).remove("x"),
        RuleBook: lambda file: RuleBook(file).remove("x"),
    }
    yield arrange
    with ServiceFile(place) as file:
        for remove in kinds.values():
            remove(file)


@pytest.mark.parametrize(
    ("kind", "path", "body", "other", "config", "same"), [SCHEDULES, RULES], ids=["schedules", "rules"]
)
def test_who_comes_second_is_told_what_holds_by_then(
    client: httpx.Client,
    before: Callable[[type, str, Intrude], None],
    kind: type,
    path: str,
    body: dict[str, Any],
    other: Intrude,
    config: Intrude,
    same: Intrude,
) -> None:
    for intrude in (other, config):
        before(kind, "put", intrude)
        problem(client.put(path, json=body), 409, "name-taken")
    before(kind, "put", same)
    assert client.put(path, json=body).status_code == 200
    for intrude, status in ((other, 404), (config, 409), (lambda _: None, 404), (same, 204)):
        before(kind, "put", lambda _: None)
        assert client.put(path, json=body).status_code == 201
        before(kind, "remove", intrude)
        assert client.delete(path).status_code == status


@pytest.mark.parametrize(
    ("kind", "path", "body", "change"),
    [(*SCHEDULES[:3], {"paused": True}), (*RULES[:3], {"after": "4h"})],
    ids=["schedules", "rules"],
)
def test_what_was_set_is_answered_though_another_removes_it_at_once(
    client: httpx.Client,
    monkeypatch: pytest.MonkeyPatch,
    kind: type,
    path: str,
    body: dict[str, Any],
    change: dict[str, Any],
) -> None:
    real = kind.put  # type: ignore[attr-defined]

    def put(self: Any, *args: Any, **options: Any) -> Any:
        found = real(self, *args, **options)
        self.remove("x")
        return found

    for given, status in (({**body, **change}, 201), (body, 200), (body, 200)):
        told = client.put(path, json=given)
        assert (told.status_code, told.json()) == (status, client.get(path).json())
    kept = told.json()
    assert client.delete(path).status_code == 204
    monkeypatch.setattr(kind, "put", put)
    told = client.put(path, json=body)
    assert told.status_code == 201
    assert told.json() == {**kept, "created": told.json()["created"]}
    assert client.get(path).status_code == 404
