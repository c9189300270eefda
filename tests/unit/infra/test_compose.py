"""The compose file gives users Graphtide and its servers: kept data, reached by nobody else, healthy in order."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from forecasting.bench.servers.base import servers_folder
from tests.conftest import lacking
from tests.docs_blocks import pages

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "infra" / "docker"
SERVICES = ("kafka", "influxdb", "postgres", "redis")
OURS = ("key", "ingest", "api")
WATCHING = ("prometheus", "grafana")
# They do one thing and end.
ONCE = ("topic", "key")
VARIABLE = re.compile(r"(?<!\$)\$\{(GRAPHTIDE_[A-Z_]+)(?::[-?][^}]*)?\}")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    return loaded


def test_the_compose_file_has_the_servers_that_graphtide_works_with(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {*SERVICES, *OURS, *WATCHING, "topic"}


@pytest.mark.parametrize("name", [*SERVICES, "api", *WATCHING])
def test_a_service_listens_to_this_machine_only(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    assert service.get("network_mode") is None
    assert service["ports"]
    for port in service["ports"]:
        assert re.fullmatch(rf"127\.0\.0\.1:\$\{{GRAPHTIDE_{name.upper()}_PORT:-\d+\}}:\d+", port)


@pytest.mark.parametrize("name", [*SERVICES, *WATCHING])
def test_a_service_keeps_its_data_in_a_named_volume_and_tells_its_health(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    named = {volume.partition(":")[0] for volume in service["volumes"] if not volume.endswith(":ro")}
    assert named
    assert named <= set(compose["volumes"])
    assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")


@pytest.mark.parametrize("name", [*SERVICES, *WATCHING])
def test_a_service_runs_a_named_version(compose: dict[str, Any], name: str) -> None:
    assert re.fullmatch(r"[a-z/]+:v?\d+(\.\d+)*", compose["services"][name]["image"])


@pytest.mark.parametrize("name", SERVICES)
def test_every_secret_must_come_from_outside(compose: dict[str, Any], name: str) -> None:
    secrets = {key: value for key, value in compose["services"][name]["environment"].items()
               if re.search("PASSWORD|TOKEN|AUTH", key)}  # fmt: skip
    assert bool(secrets) == (name != "kafka")
    for key, value in secrets.items():
        assert re.fullmatch(r"\$\{GRAPHTIDE_[A-Z_]+:\?[^}]+\}", value), key


def test_the_example_lists_every_variable_and_no_password() -> None:
    text = (FOLDER / "compose.yaml").read_text()
    secrets = re.findall(r"^    environment: (GRAPHTIDE_\w+)$", text, re.MULTILINE)
    wanted = {*VARIABLE.findall(text), *secrets}
    lines = [line for line in (FOLDER / "example.env").read_text().splitlines() if line and not line.startswith("#")]
    listed = dict(line.split("=", 1) for line in lines)
    assert set(listed) == wanted
    assert all((value == "") == bool(re.search("PASSWORD|TOKEN", name)) for name, value in listed.items())


@pytest.mark.parametrize("name", OURS)
def test_our_containers_have_no_right_that_they_do_not_need(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    assert service["user"] == "10001:10001"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not service.get("privileged")


def test_services_wait_for_what_they_need_to_be_healthy(compose: dict[str, Any]) -> None:
    order = {"topic": {"kafka"}, "ingest": {"topic", "postgres", "influxdb"}, "api": {"key", "postgres", "redis"},
             "prometheus": {"api", "ingest"}, "grafana": {"prometheus"}}  # fmt: skip
    for name, wanted in order.items():
        waits = compose["services"][name]["depends_on"]
        assert set(waits) == wanted
        for other, how in waits.items():
            assert how["condition"] == ("service_completed_successfully" if other in ONCE else "service_healthy")


def test_the_image_and_compose_agree_on_user_folder_and_ports() -> None:
    dockerfile = (FOLDER / "Dockerfile").read_text()
    assert re.search(r"^USER 10001:10001$", dockerfile, re.MULTILINE)
    assert re.search(r'^VOLUME \["/data"\]$', dockerfile, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK .*\n.*/livez", dockerfile, re.MULTILINE)
    assert "--require-hashes" in dockerfile
    final = dockerfile[dockerfile.rindex("\nFROM ") :]
    assert "g++" not in final
    assert "pip install" not in final


def test_the_reference_implementation_takes_both_files(tmp_path: Path) -> None:
    program = servers_folder() / "compose-go-2.6.0" / "cmd"
    if not program.is_file():
        lacking("compose", f"{program} is not there; run .ci/servers")
    shutil.copytree(FOLDER.parent, tmp_path / "infra")
    folder = tmp_path / "infra" / "docker"
    # The program reads no environment: what has to be given is put in its place.
    text = (folder / "compose.yaml").read_text()
    (folder / "compose.yaml").write_text(re.sub(r"\$\{(\w+):\?[^}]*\}", r"given-\1", text))
    call = [str(program), "compose.yaml", "compose.cuda.yaml"]
    done = subprocess.run(call, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    api = yaml.safe_load(done.stdout)["services"]["api"]
    assert "GRAPHTIDE_BACKEND=cuda" in api["environment"]
    assert api["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]


def test_the_pages_name_files_and_services_that_are_there(compose: dict[str, Any]) -> None:
    found = [
        call
        for text in pages(ROOT).values()
        for call in re.findall(r"docker compose ((?:-f \S+ )+)(up|exec|down)([^\n`#]*)", text)
    ]
    assert {action for _, action, _ in found} == {"up", "exec", "down"}
    for files, action, rest in found:
        assert all((ROOT / file).is_file() for file in files.replace("-f ", "").split()), files
        words = [word for word in rest.split() if not word.startswith("--")]
        named = words[:1] if action == "exec" else words
        assert set(named) <= set(compose["services"]), (action, rest)
    for page, text in pages(ROOT).items():
        for source in re.findall(r"^cp (infra/\S+) ", text, re.MULTILINE):
            assert (ROOT / source).is_file(), (page, source)


def test_the_linter_of_dockerfiles_finds_nothing() -> None:
    program = servers_folder() / "hadolint-2.15.1" / "bin" / "hadolint"
    if not program.is_file():
        lacking("hadolint", f"{program} is not there; run .ci/servers")
    done = subprocess.run([program, FOLDER / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
