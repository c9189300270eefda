"""Of those who set one schedule or rule at the same moment, each is asked about what the one before has set."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from forecasting.alerts.rulebook import RuleBook
from forecasting.alerts.rules import checked
from forecasting.reports.contents import ReportRequest
from forecasting.reports.schedules import Schedule, Schedules
from forecasting.service_file import ServiceFile
from infra.errors import UsageError
from infra.settings import AlertRuleSettings, AlertSettings, ReportSettings

N_PROCESSES = 4
Guard = Callable[[Any], None]


class TakenError(Exception):
    """The name is another's."""


@dataclass(frozen=True)
class Kind:
    """Schedules or rules: how one process sets the one called `x`, removes it, takes settings with it, and sees it."""

    put: Callable[[ServiceFile, str, Guard | None], bool]
    remove: Callable[[ServiceFile, Guard | None], bool]
    take: Callable[[ServiceFile, list[str]], None]
    seen: Callable[[ServiceFile], list[tuple[str, str, str]]]


def _schedule(owner: str) -> Schedule:
    return Schedule("x", owner, "0 7 * * 1", "UTC", ReportRequest(100, 0, 20))


def _schedules(file: ServiceFile) -> Schedules:
    return Schedules(file, ReportSettings())


def _rule(graph: str) -> AlertRuleSettings:
    return AlertRuleSettings(kind="stale", graph=graph, after="3h")


SCHEDULES = Kind(
    lambda file, owner, guard: _schedules(file).put(_schedule(owner), owner=owner, guard=guard)[1],
    lambda file, guard: _schedules(file).remove("x", guard),
    lambda file, names: _schedules(file).take_settings(
        [replace(_schedule("of-settings"), name=name) for name in names]
    ),
    lambda file: [(row.schedule.name, row.schedule.graph, row.origin) for row in _schedules(file).all()],
)
RULES = Kind(
    lambda file, owner, guard: RuleBook(file).put(checked("x", _rule(owner), {}), owner=owner, guard=guard)[1],
    lambda file, guard: RuleBook(file).remove("x", guard),
    lambda file, names: RuleBook(file).take_settings(
        AlertSettings(rules={name: _rule("of-settings") for name in names}), {}
    ),
    lambda file: [(row.rule.name, row.rule.spec.graph, row.origin) for row in RuleBook(file).all()],
)


@pytest.fixture(params=[SCHEDULES, RULES], ids=["schedules", "rules"])
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture
def files(service_db: Path | str) -> Iterator[list[ServiceFile]]:
    """Yield the connections of several processes to one place."""
    with ExitStack() as stack:
        yield [stack.enter_context(ServiceFile(service_db)) for _ in range(N_PROCESSES)]


def refuse(_known: object) -> None:
    raise TakenError


def test_one_of_several_who_create_a_name_at_once_wins(kind: Kind, files: list[ServiceFile]) -> None:
    barrier = threading.Barrier(N_PROCESSES)

    def create(number: int) -> bool | None:
        barrier.wait()
        try:
            return kind.put(files[number], f"g{number}", refuse)
        except TakenError:
            return None

    for _ in range(5):
        with ThreadPoolExecutor(N_PROCESSES) as pool:
            results = list(pool.map(create, range(N_PROCESSES)))
        assert sorted(results, key=str) == [None] * (N_PROCESSES - 1) + [True]
        assert kind.seen(files[0]) == [("x", f"g{results.index(True)}", "api")]
        assert kind.remove(files[0], None)


def test_what_is_asked_about_is_what_would_be_changed(kind: Kind, files: list[ServiceFile]) -> None:
    """While one process is asked, no other can change the row: the second waits, and is asked about the first's."""
    assert kind.put(files[0], "before", None)
    asked, go_on = threading.Event(), threading.Event()
    known: list[Any] = []

    def hold(row: Any) -> None:
        known.append(row)
        asked.set()
        assert go_on.wait(20)

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(kind.put, files[0], "first", hold)
        assert asked.wait(20)
        second = pool.submit(kind.put, files[1], "second", known.append)
        third = pool.submit(lambda: kind.seen(files[2]))
        assert third.result(20) == [("x", "before", "api")], "reads wait for nobody"
        assert not second.done()
        go_on.set()
        assert not first.result(20)
        assert not second.result(20)
    assert [row.owner for row in known] == ["before", "first"]


def test_a_refusal_changes_nothing(kind: Kind, files: list[ServiceFile]) -> None:
    assert kind.put(files[0], "mine", refuse), "there is none to ask about yet"
    for refused in (
        lambda: kind.put(files[1], "theirs", refuse),
        lambda: kind.put(files[1], "mine", refuse),
        lambda: kind.remove(files[1], refuse),
    ):
        with pytest.raises(TakenError):
            refused()
    assert kind.seen(files[1]) == [("x", "mine", "api")]
    assert kind.remove(files[1], lambda _: None)
    assert not kind.remove(files[1], refuse)


def test_settings_with_a_name_of_the_api_change_nothing_at_all(kind: Kind, files: list[ServiceFile]) -> None:
    kind.take(files[0], ["a", "old"])
    kind.put(files[1], "mine", None)
    before = kind.seen(files[0])
    with pytest.raises(UsageError, match="was set over the API"):
        kind.take(files[0], ["a", "b", "x"])
    assert kind.seen(files[0]) == before
    kind.take(files[0], ["b"])
    assert kind.seen(files[0]) == [("b", "of-settings", "config"), ("x", "mine", "api")]
