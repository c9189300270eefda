"""The Helm chart renders what several versions of Kubernetes take, with no more rights than are needed."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from forecasting.bench.servers.base import servers_folder
from infra.configuration import load_settings
from tests.conftest import lacking

CHART = Path(__file__).parents[3] / "infra" / "helm" / "graphtide"
# The oldest that the chart takes, one in between, and the newest whose schemas are known.
VERSIONS = ("1.29.0", "1.33.0", "1.37.0")
VALUES = (None, "gpu", "scaled", "small")
# Of the operator of Prometheus, whose schemas are not Kubernetes' own.
OF_OTHERS = {"ServiceMonitor", "PrometheusRule"}


def helm(*arguments: object) -> "subprocess.CompletedProcess[str]":
    program = shutil.which("helm") or servers_folder() / "helm-3.18.6" / "helm"
    if not Path(program).is_file():
        lacking("helm", f"{program} is not there; run .ci/servers")
    return subprocess.run([str(program), *map(str, arguments)], capture_output=True, text=True, check=False)


@cache
def rendered(values: str | None, version: str = "1.33.0") -> tuple[dict[str, Any], ...]:
    given = () if values is None else ("--values", CHART / "ci" / f"{values}-values.yaml")
    done = helm("template", "town", CHART, "--namespace", "town", "--kube-version", version, *given)
    assert done.returncode == 0, done.stderr
    return tuple(document for document in yaml.safe_load_all(done.stdout) if document)


def of_kind(kind: str, values: str | None = None) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in rendered(values) if one["kind"] == kind}


def pods(values: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    for document in rendered(values):
        if document["kind"] in {"Deployment", "StatefulSet"}:
            yield document["metadata"]["name"], document["spec"]["template"]["spec"]


def containers(values: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, pod in pods(values):
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            yield f"{name}/{container['name']}", container


def test_helm_finds_nothing_to_complain_of() -> None:
    for values in VALUES[1:]:
        done = helm(
            "lint", "--strict", "--kube-version", "1.33.0", CHART, "--values", CHART / "ci" / f"{values}-values.yaml"
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("values", VALUES)
def test_kubernetes_takes_what_is_rendered(values: str | None, version: str) -> None:
    kinds = set()
    for document in rendered(values, version):
        kinds.add(document["kind"])
        if document["kind"] not in OF_OTHERS:
            kubernetes_validate.validate(document, version.rpartition(".")[0], strict=True)
    assert {"Deployment", "StatefulSet", "Service", "ConfigMap", "ServiceAccount"} <= kinds


@pytest.mark.parametrize("values", VALUES)
def test_nothing_runs_as_root_or_writes_outside_its_volumes(values: str | None) -> None:
    for name, pod in pods(values):
        assert pod["automountServiceAccountToken"] is False, name
        context = pod["securityContext"]
        assert (context["runAsNonRoot"], context["runAsUser"]) == (True, 10001)
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    for name, container in containers(values):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False, name
        assert context["readOnlyRootFilesystem"] is True, name
        assert context["capabilities"] == {"drop": ["ALL"]}, name
        assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/data", "/tmp"}


@pytest.mark.parametrize("values", VALUES)
def test_every_container_has_bounds_and_what_listens_has_probes(values: str | None) -> None:
    for name, container in containers(values):
        resources = container["resources"]
        assert {"cpu", "memory"} <= set(resources["requests"]), name
        assert "memory" in resources["limits"], name
        if container.get("ports"):
            ports = {port["name"] for port in container["ports"]}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                assert container[probe]["httpGet"]["port"] in ports, f"{name} {probe}"


def test_workloads_are_apart_and_run_commands_that_there_are() -> None:
    found = {name: container.get("args", [""])[0] for name, container in containers("scaled")}
    assert found == {
        "town-graphtide-ingest/ingest": "ingest",
        "town-graphtide-readers/api": "serve",
        "town-graphtide-service/key": found["town-graphtide-service/key"],
        "town-graphtide-service/api": "serve",
        "town-graphtide-service/workers": "work",
        "town-graphtide-service/scheduler": "report",
    }
    import typer  # noqa: PLC0415

    from forecasting.cli.app import app  # noqa: PLC0415

    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert {"ingest", "serve", "work", "report"} <= set(commands)


@pytest.mark.parametrize("values", VALUES)
def test_settings_are_known_and_secrets_come_by_reference(
    values: str | None, monkeypatch: pytest.MonkeyPatch, clean_environment: Path
) -> None:
    (settings,) = (
        one["data"] for one in of_kind("ConfigMap", values).values() if "dashboards" not in one["metadata"]["name"]
    )
    given = dict(settings)
    for name, container in containers(values):
        for variable in container.get("env", ()):
            if re.search("PASSWORD|TOKEN", variable["name"]):
                assert set(variable) == {"name", "valueFrom"}, name
                assert "secretKeyRef" in variable["valueFrom"], name
            else:
                given[variable["name"]] = variable["value"]
    assert not [key for key in settings if re.search("PASSWORD|TOKEN", key)]
    for key, value in given.items():
        monkeypatch.setenv(key, value)
    loaded = load_settings(config=None, flags={}).values
    assert loaded.store.url.startswith("postgresql://")


def test_the_shared_cache_is_named_to_what_answers_with_its_password_by_reference() -> None:
    given = {
        name: variable["valueFrom"]
        for name, container in containers("scaled")
        for variable in container.get("env", ())
        if variable["name"] == "GRAPHTIDE_CACHE__REDIS_PASSWORD"
    }
    reference = {"secretKeyRef": {"name": "redis", "key": "password"}}
    assert given == {"town-graphtide-service/api": reference, "town-graphtide-readers/api": reference}
    settings = of_kind("ConfigMap", "scaled")["town-graphtide"]["data"]
    assert settings["GRAPHTIDE_CACHE__REDIS_URL"] == "redis://redis:6380/0"
    assert "GRAPHTIDE_CACHE__REDIS_URL" not in of_kind("ConfigMap", "small")["town-graphtide"]["data"]


def test_pods_may_be_moved_one_at_a_time() -> None:
    budgets = of_kind("PodDisruptionBudget", "scaled")
    assert set(budgets) == {"town-graphtide-ingest", "town-graphtide-service", "town-graphtide-readers"}
    for budget in budgets.values():
        assert budget["spec"]["maxUnavailable"] == 1
    assert not of_kind("PodDisruptionBudget", "small")


def test_replicas_follow_lag_and_queue() -> None:
    scalers = of_kind("HorizontalPodAutoscaler", "scaled")
    metrics = {name: scaler["spec"]["metrics"][0]["pods"]["metric"]["name"] for name, scaler in scalers.items()}
    assert metrics == {
        "town-graphtide-ingest": "graphtide_ingest_lag_records",
        "town-graphtide-readers": "graphtide_forecast_queue_length",
    }
    for name, scaler in scalers.items():
        assert scaler["spec"]["minReplicas"] >= 2
        # A number of replicas in the template would undo what the scaler did at each upgrade.
        assert "replicas" not in of_kind("Deployment", "scaled")[name]["spec"]


def test_the_network_lets_in_callers_and_prometheus_and_out_what_is_needed() -> None:
    policies = of_kind("NetworkPolicy", "scaled")
    assert set(policies) == {"town-graphtide-ingest", "town-graphtide-service", "town-graphtide-readers"}
    for name, policy in policies.items():
        spec = policy["spec"]
        assert spec["policyTypes"] == ["Ingress", "Egress"]
        allowed = {port["port"] for rule in spec["ingress"] for port in rule["ports"]}
        assert allowed == ({"metrics"} if name.endswith("ingest") else {"http"})
        assert all(rule["from"] for rule in spec["ingress"]), "an empty list lets in everyone"
        # Only what answers requests has answers to share.
        cache = set() if name.endswith("ingest") else {6380}
        assert {port["port"] for rule in spec["egress"] for port in rule["ports"]} == {53, 9092, 5432, 8086} | cache
    service = policies["town-graphtide-service"]["spec"]["ingress"]
    assert service[0]["from"] == [{"namespaceSelector": {"matchLabels": {"team": "dashboards"}}}]
    for document in of_kind("NetworkPolicy").values():
        selected = document["spec"]["podSelector"]["matchLabels"]
        labels = [
            one["spec"]["template"]["metadata"]["labels"]
            for kind in ("Deployment", "StatefulSet")
            for one in of_kind(kind).values()
        ]
        assert sum(selected.items() <= of.items() for of in labels) == 1


def test_a_gpu_is_asked_for_where_it_computes() -> None:
    found = dict(containers("gpu"))
    workers = found.pop("town-graphtide-service/workers")
    assert workers["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert workers["image"] == "graphtide:cuda"
    assert {"name": "GRAPHTIDE_BACKEND", "value": "cuda"} in workers["env"]
    for name, other in found.items():
        assert "nvidia.com/gpu" not in other["resources"]["limits"], name
        assert other["image"] == "graphtide:cpu", name
    (pod,) = [pod for name, pod in pods("gpu") if name.endswith("service")]
    assert pod["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert pod["tolerations"][0]["key"] == "nvidia.com/gpu"


def test_rules_and_dashboards_are_those_of_the_repository() -> None:
    rules = of_kind("PrometheusRule", "gpu")
    files = {path.stem: yaml.safe_load(path.read_text()) for path in (CHART / "files" / "rules").glob("*.yml")}
    assert {name.removeprefix("town-graphtide-") for name in rules} == set(files)
    for name, rule in rules.items():
        expected = files[name.removeprefix("town-graphtide-")]["groups"]
        for group in expected:
            for one in group["rules"]:
                if "alert" in one:
                    one["annotations"]["runbook_url"] = (
                        "https://example.org/graphtide/" + one["annotations"]["runbook_url"]
                    )
        assert rule["spec"]["groups"] == expected
    (boards,) = [one["data"] for name, one in of_kind("ConfigMap", "gpu").items() if name.endswith("dashboards")]
    for path in (CHART / "files" / "dashboards").glob("*.json"):
        assert json.loads(boards[f"graphtide-{path.name}"]) == json.loads(path.read_text())


@pytest.mark.parametrize(
    "wrong",
    [
        "settings.GRAPHTIDE_INFLUXDB__TOKEN=secret",
        "store.url=postgresql://user:password@host/database",
        "store.url=sqlite:///x",
        "cache.url=redis://:secret@redis:6379/0",
        "ingest.replicas=0",
        "service.port=80",
        "nonsense=1",
    ],
)
def test_values_that_cannot_be_meant_are_refused(wrong: str) -> None:
    done = helm("template", "town", CHART, "--kube-version", "1.33.0", "--set", wrong)
    assert done.returncode != 0
    assert "values don't meet the specifications of the schema" in done.stderr
