"""The compose file gives users servers that keep their data, that nobody else reaches, with passwords of their own."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).parents[3] / "infra" / "docker"
SERVICES = ("kafka", "influxdb", "postgres", "redis")
VARIABLE = re.compile(r"(?<!\$)\$\{(GRAPHTIDE_[A-Z_]+)(?::[-?][^}]*)?\}")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    return loaded


def test_the_compose_file_has_the_servers_that_graphtide_works_with(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == set(SERVICES)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_listens_to_this_machine_only(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    assert service.get("network_mode") is None
    assert service["ports"]
    for port in service["ports"]:
        assert re.fullmatch(rf"127\.0\.0\.1:\$\{{GRAPHTIDE_{name.upper()}_PORT:-\d+\}}:\d+", port)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_keeps_its_data_in_a_named_volume_and_tells_its_health(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    assert {volume.partition(":")[0] for volume in service["volumes"]} <= set(compose["volumes"])
    assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_runs_a_named_version(compose: dict[str, Any], name: str) -> None:
    assert re.fullmatch(r"[a-z/]+:\d+(\.\d+)*", compose["services"][name]["image"])


@pytest.mark.parametrize("name", SERVICES)
def test_every_secret_must_come_from_outside(compose: dict[str, Any], name: str) -> None:
    secrets = {key: value for key, value in compose["services"][name]["environment"].items()
               if re.search("PASSWORD|TOKEN|AUTH", key)}  # fmt: skip
    assert bool(secrets) == (name != "kafka")
    for key, value in secrets.items():
        assert re.fullmatch(r"\$\{GRAPHTIDE_[A-Z_]+:\?[^}]+\}", value), key


def test_the_example_lists_every_variable_and_no_password() -> None:
    wanted = set(VARIABLE.findall((FOLDER / "compose.yaml").read_text()))
    lines = [line for line in (FOLDER / "example.env").read_text().splitlines() if line and not line.startswith("#")]
    listed = dict(line.split("=", 1) for line in lines)
    assert set(listed) == wanted
    assert all((value == "") == (not name.endswith("_PORT")) for name, value in listed.items())
