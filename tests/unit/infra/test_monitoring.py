"""Rules ask for what is measured; every alert is shown to fire and to clear, and its runbook entry is there."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import lacking
from tests.monitoring import RULES, exported_names, metrics_of

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "infra" / "prometheus"
TESTS = sorted((FOLDER / "tests").glob("*.yml"))
SEVERITIES = {"page", "ticket"}


def rules() -> list[dict[str, Any]]:
    loaded = [yaml.safe_load(path.read_text()) for path in RULES]
    return [rule for document in loaded for group in document["groups"] for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}


def promtool(*arguments: object) -> None:
    tool("promtool", *arguments)


def tool(name: str, *arguments: object) -> str:
    program = shutil.which(name)
    if program is None:
        lacking(name, f"{name} is not on the PATH: .ci/servers installs it")
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def test_promtool_takes_the_configuration_and_the_rules() -> None:
    promtool("check", "config", "--syntax-only", FOLDER / "prometheus.yml")
    promtool("check", "rules", "--lint-fatal", *RULES)


def test_alertmanager_takes_its_example_and_sends_each_severity_its_way() -> None:
    path = FOLDER / "alertmanager.yml"
    tool("amtool", "check-config", path)
    for severity, receiver in (("page", "pages"), ("ticket", "tickets")):
        found = tool("amtool", "config", "routes", "test", f"--config.file={path}", f"severity={severity}")
        assert found == receiver
    assert {severity for alert in ALERTS.values() for severity in [alert["labels"]["severity"]]} == SEVERITIES


def test_what_the_example_inhibits_is_there() -> None:
    for rule in yaml.safe_load((FOLDER / "alertmanager.yml").read_text())["inhibit_rules"]:
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            (pattern,) = re.findall(r'alertname =~? "([^"]+)"', matcher)
            for part in re.split(r"\|(?![^(]*\))", pattern):
                assert [name for name in ALERTS if re.fullmatch(part, name)], part


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_alerts_fire_in_their_fault_and_clear_after_it(path: Path) -> None:
    promtool("test", "rules", path)


def test_every_alert_has_a_test_in_which_it_fires_and_clears() -> None:
    fires, silent = set(), set()
    for path in TESTS:
        for case in yaml.safe_load(path.read_text())["tests"]:
            for check in case["promql_expr_test"]:
                (name,) = re.findall(r'alertname="(\w+)"', check["expr"])
                (fires if check["exp_samples"] else silent).add(name)
    assert fires == silent == set(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_is_wrong_how_urgent_it_is_and_where_help_stands(name: str) -> None:
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in SEVERITIES
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    assert alert["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"


def test_the_runbook_has_an_entry_an_alert_with_its_urgency_and_no_other() -> None:
    text = (ROOT / "docs" / "runbook.md").read_text()
    entries = dict(re.findall(r"^### (\w+)\n\n\*(\w+)\.\*", text, re.MULTILINE))
    assert entries == {name: alert["labels"]["severity"] for name, alert in ALERTS.items()}


def test_rules_ask_only_for_what_is_exported_or_recorded(tmp_path: Path) -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    asked = set().union(*(metrics_of(rule["expr"]) for rule in rules()))
    assert asked, "no metric was found in the rules"
    assert asked - recorded <= exported_names(tmp_path)
