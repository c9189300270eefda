"""`graphtide alerts`: what a rule would say now, what fires, and what is said of mistakes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from forecasting.alerts.rulebook import RuleBook
from forecasting.configured_schedules import take_schedules
from forecasting.service_file import ServiceFile
from infra.configuration import load_settings
from tests.conftest import Ran

Cli = Callable[..., Ran]
RULES = """
[store]
url = "{store}"
[alerts]
paths = 50
[reports.targets.archive]
kind = "folder"
path = "out"
[alerts.rules.busy]
kind = "forecast"
graph = "toy"
metric = "events"
above = 0
within = "1d"
deliver = ["archive"]
[alerts.rules.never]
kind = "forecast"
graph = "*"
metric = "events"
above = 1e9
aggregate = "day"
within = "2d"
deliver = ["archive"]
[alerts.rules.odd]
kind = "surprise"
graph = "*"
metrics = ["events", "active_nodes"]
[alerts.rules.silent]
kind = "stale"
graph = "toy"
after = "1d"
[alerts.rules.elsewhere]
kind = "stale"
graph = "harbour"
after = "1d"
"""


@pytest.fixture
def configured(clean_environment: Path, toy_store: str) -> Path:
    (clean_environment / "config.toml").write_text(RULES.format(store=toy_store))
    return clean_environment


def judged(graphtide: Cli, *arguments: str) -> list[dict[str, object]]:
    ran = graphtide("alerts", "test", *arguments, "--json")
    assert ran.code == 0, ran.err
    found: list[dict[str, object]] = json.loads(ran.out)
    return found


def test_rule_is_judged_now_and_nothing_is_kept_or_sent(graphtide: Cli, configured: Path) -> None:
    (busy,) = judged(graphtide, "busy")
    assert (busy["verdict"], busy["would_tell"]) == ("fire", ["archive"])
    assert busy["facts"]["probability"] > 0.9  # type: ignore[index]
    (never,) = judged(graphtide, "never")
    assert (never["verdict"], never["would_tell"]) == ("clear", [])
    assert never["facts"]["probability"] == 0  # type: ignore[index]
    odd = judged(graphtide, "odd", "--graph", "toy")
    assert [one["metric"] for one in odd] == ["events", "active_nodes"]
    assert judged(graphtide, "silent")[0]["verdict"] == "fire"
    shown = graphtide("alerts", "test", "busy")
    assert shown.code == 0
    assert "with a probability of" in shown.out
    assert "archive" in shown.out
    assert not (configured / "out").exists()
    listed = graphtide("alerts", "list", "--json")
    assert (listed.code, json.loads(listed.out)) == (0, [])


def test_rules_of_the_settings_are_those_of_the_service_once_it_starts(configured: Path) -> None:
    settings = load_settings().values
    take_schedules(settings)
    with ServiceFile(settings.api.service_db) as file:
        assert [row.rule.name for row in RuleBook(file).all()] == ["busy", "elsewhere", "never", "odd", "silent"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["test", "bsy"], 2, "there is no alert rule 'bsy'"),
        (["test", "busy", "--graph", "tyo"], 1, "tyo"),
        (["test", "elsewhere"], 1, "no graph that 'elsewhere' watches"),
        (["test", "elsewhere", "--graph", "toy"], 2, "does not watch 'toy'"),
        (["list", "--state", "burning"], 2, "some of ok, firing, resolved"),
    ],
)
@pytest.mark.usefixtures("configured")
def test_mistakes_are_named(graphtide: Cli, arguments: list[str], code: int, said: str) -> None:
    ran = graphtide("alerts", *arguments)
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err
    assert "Traceback" not in ran.err


def test_rule_that_cannot_work_is_named_with_its_table(graphtide: Cli, configured: Path) -> None:
    path = configured / "config.toml"
    path.write_text(path.read_text() + '[alerts.rules.bad]\nkind = "stale"\ngraph = "toy"\n')
    ran = graphtide("alerts", "test", "bad")
    assert ran.code == 2
    assert "[alerts.rules.bad]" in ran.err
    assert "a duration" in ran.err
