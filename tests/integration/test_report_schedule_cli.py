"""`graphtide report schedule`: the calendar from the command line, and what is said of mistakes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from forecasting.configured_schedules import take_schedules
from infra.configuration import load_settings
from tests.conftest import Ran

Cli = Callable[..., Ran]
SETTINGS = """
[reports]
horizon = 720
[reports.targets.archive]
kind = "folder"
path = "out"
[reports.schedules.nightly]
graph = "town"
cron = "30 2 * * *"
"""
MONDAY = ("monday", "--graph", "town", "--cron", "0 7 * * 1", "--timezone", "Europe/Berlin", "--deliver", "archive")


@pytest.fixture(autouse=True)
def configured(clean_environment: Path) -> None:
    (clean_environment / "config.toml").write_text(SETTINGS)
    take_schedules(load_settings().values)


def names(graphtide: Cli) -> list[str]:
    return [row["name"] for row in json.loads(graphtide("report", "schedule", "list", "--json").out)]


def test_schedule_is_set_listed_and_removed(graphtide: Cli) -> None:
    added = graphtide("report", "schedule", "add", *MONDAY, "--horizon", "48")
    assert (added.code, added.out) == (0, "")
    assert "Schedule 'monday': next at " in added.err
    rows = json.loads(graphtide("report", "schedule", "list", "--json").out)
    (monday,) = [row for row in rows if row["name"] == "monday"]
    told = {name: monday[name] for name in ("cron", "timezone", "horizon", "deliver", "missed", "origin")}
    assert told == {
        "cron": "0 7 * * 1",
        "timezone": "Europe/Berlin",
        "horizon": 48,
        "deliver": ["archive"],
        "missed": "latest",
        "origin": "api",
    }
    assert monday["next"] in added.err
    assert "Europe/Berlin" in graphtide("report", "schedule", "list").out
    # One of the same name is replaced; the settings' horizon counts where none is given.
    assert graphtide("report", "schedule", "add", *MONDAY, "--missed", "all").code == 0
    rows = json.loads(graphtide("report", "schedule", "list", "--json").out)
    assert [(row["horizon"], row["missed"]) for row in rows if row["name"] == "monday"] == [(720, "all")]
    none = graphtide("report", "schedule", "runs", "monday")
    assert (none.code, none.out, none.err) == (0, "", "No time of 'monday' has come yet.\n")
    assert graphtide("report", "schedule", "remove", "monday").code == 0
    assert names(graphtide) == ["nightly"]


def test_schedule_of_a_graph_that_the_store_lacks_is_set_and_told(graphtide: Cli) -> None:
    # Nothing is known of a store that is not there.
    assert "note:" not in graphtide("report", "schedule", "add", *MONDAY).err
    Path("log.ndjson").write_text('{"src": "a", "dst": "b", "ts": 1767225600}\n')
    assert graphtide("ingest", "log.ndjson", "--graph", "town").code == 0
    assert "note:" not in graphtide("report", "schedule", "add", *MONDAY).err
    ran = graphtide("report", "schedule", "add", "sunday", "--graph", "nope", "--cron", "0 7 * * 0")
    assert (ran.code, ran.out) == (0, "")
    assert "note: the store has no graph 'nope' yet" in ran.err
    assert names(graphtide) == ["monday", "nightly", "sunday"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["add", *MONDAY, "--missed", "some"], "give one of latest, all, skip"),
        (["add", *MONDAY, "--cron", "every monday"], "cron cannot be 'every monday'"),
        (["add", *MONDAY, "--timezone", "Mars/Olympus"], "Mars/Olympus"),
        (["add", *MONDAY, "--deliver", "atticc"], "atticc"),
        (["add", "nightly", *MONDAY[1:]], "stands in the settings"),
        (["remove", "nightly"], "remove [reports.schedules.nightly]"),
        (["remove", "sunday"], "there is no schedule 'sunday'"),
        (["runs", "sunday"], "there is no schedule 'sunday'"),
    ],
)
def test_mistakes_are_named_and_change_nothing(graphtide: Cli, arguments: list[str], said: str) -> None:
    ran = graphtide("report", "schedule", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert names(graphtide) == ["nightly"]
