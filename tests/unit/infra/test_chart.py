"""The Helm chart renders what several versions of Kubernetes take, with no more rights than are needed."""

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
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
from tests.docs_blocks import blocks_of

ROOT = Path(__file__).parents[3]
CHART = ROOT / "infra" / "helm" / "graphtide"
# The oldest that the chart takes, one in between, and the newest whose schemas are known.
VERSIONS = ("1.29.0", "1.33.0", "1.37.0")
VALUES = (None, "gpu", "scaled", "shared", "small")
# Of the operator of Prometheus, whose schemas are not Kubernetes' own.
OF_OTHERS = {"ServiceMonitor", "PrometheusRule"}


def helm(*arguments: object, folder: Path | None = None) -> "subprocess.CompletedProcess[str]":
    program = shutil.which("helm") or servers_folder() / "helm-3.18.6" / "helm"
    if not Path(program).is_file():
        lacking("helm", f"{program} is not there; run .ci/servers")
    call = [str(program), *map(str, arguments)]
    return subprocess.run(call, cwd=folder, capture_output=True, text=True, check=False)


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
    assert {"Deployment", "Service", "ConfigMap", "ServiceAccount"} <= kinds
    assert ("StatefulSet" in kinds) == (values != "shared"), "a file has one pod, a database needs none"


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
        writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
        assert writable == {"/data", "/tmp"}


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


def test_with_a_database_each_part_of_the_service_is_a_workload_of_its_own() -> None:
    found = dict(containers("shared"))
    assert {name: container.get("args", [""])[0] for name, container in found.items() if "/key" not in name} == {
        "town-graphtide-api/api": "serve",
        "town-graphtide-ingest/ingest": "ingest",
        "town-graphtide-readers/api": "serve",
        "town-graphtide-scheduler/scheduler": "report",
        "town-graphtide-workers/workers": "work",
    }
    (selected,) = [one["spec"]["selector"] for name, one in of_kind("Service", "shared").items() if "-service" in name]
    assert (
        selected.items()
        <= of_kind("Deployment", "shared")["town-graphtide-api"]["spec"]["template"]["metadata"]["labels"].items()
    )
    for name in ("api/key", "api/api", "workers/workers", "scheduler/scheduler"):
        container = found[f"town-graphtide-{name}"]
        assert "PGPASSWORD" in {variable["name"] for variable in container["env"]}, name
        assert {"name": "models", "mountPath": "/data/models", "readOnly": True} in container["volumeMounts"]
    (reader,) = [one for name, one in found.items() if "readers" in name]
    assert {"name": "GRAPHTIDE_API__SERVICE_DB", "value": "/data/service.db"} in reader["env"], "readers have no keys"
    for name in ("api", "workers", "scheduler"):
        pod = of_kind("Deployment", "shared")[f"town-graphtide-{name}"]["spec"]["template"]["spec"]
        assert not [one for one in pod["volumes"] if "persistentVolumeClaim" in one and one["name"] != "models"]


@pytest.mark.parametrize(
    ("part", "module"), [("workers", "forecasting.job_worker"), ("scheduler", "forecasting.report_worker")]
)
def test_what_listens_nowhere_is_ready_while_a_process_of_it_works(part: str, module: str) -> None:
    container = dict(containers("shared"))[f"town-graphtide-{part}/{part}"]
    assert importlib.util.find_spec(module) is not None
    for probe in ("startupProbe", "readinessProbe"):
        shell, flag, command = container[probe]["exec"]["command"]
        # In its container the process sees no others; here they are those of the process given and of the probe itself.
        beside = [sys.executable, "-c", "input()", "-m", module]
        with subprocess.Popen(beside, stdin=subprocess.PIPE) as process:
            own = command.replace("/proc/[0-9]*/", f"/proc/{process.pid}/")
            assert subprocess.run([shell, flag, own], check=False).returncode == 0
            process.communicate(b"\n")
        of_the_probe = command.replace("/proc/[0-9]*/", "/proc/self/")
        assert subprocess.run([shell, flag, of_the_probe], check=False).returncode == 1, "it must not find itself"


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


@pytest.mark.parametrize(("values", "service"), [("scaled", "service"), ("shared", "api")])
def test_the_shared_cache_is_named_to_what_answers_with_its_password_by_reference(values: str, service: str) -> None:
    given = {
        name: variable["valueFrom"]
        for name, container in containers(values)
        for variable in container.get("env", ())
        if variable["name"] == "GRAPHTIDE_CACHE__REDIS_PASSWORD"
    }
    reference = {"secretKeyRef": {"name": "redis", "key": "password"}}
    assert given == {f"town-graphtide-{service}/api": reference, "town-graphtide-readers/api": reference}
    settings = of_kind("ConfigMap", values)["town-graphtide"]["data"]
    assert settings["GRAPHTIDE_CACHE__REDIS_URL"] == "redis://redis:6380/0"
    assert "GRAPHTIDE_CACHE__REDIS_URL" not in of_kind("ConfigMap", "small")["town-graphtide"]["data"]


def test_pods_may_be_moved_one_at_a_time() -> None:
    budgets = of_kind("PodDisruptionBudget", "scaled")
    assert set(budgets) == {"town-graphtide-ingest", "town-graphtide-service", "town-graphtide-readers"}
    for budget in budgets.values():
        assert budget["spec"]["maxUnavailable"] == 1
    assert not of_kind("PodDisruptionBudget", "small")
    parts = {"ingest", "readers", "api", "workers", "scheduler"}
    assert set(of_kind("PodDisruptionBudget", "shared")) == {f"town-graphtide-{part}" for part in parts}


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


def test_api_follows_its_load_and_workers_the_queue_of_all() -> None:
    scalers = of_kind("HorizontalPodAutoscaler", "shared")
    (api,) = scalers["town-graphtide-api"]["spec"]["metrics"]
    assert (api["resource"]["name"], api["resource"]["target"]["averageUtilization"]) == ("cpu", 70)
    (workers,) = scalers["town-graphtide-workers"]["spec"]["metrics"]
    asked = workers["object"]["describedObject"]
    assert asked["name"] in of_kind("Service", "shared")
    for name, scaler in scalers.items():
        assert scaler["spec"]["scaleTargetRef"]["name"] == name
        assert "replicas" not in of_kind("Deployment", "shared")[name]["spec"]
    assert of_kind("Deployment", "shared")["town-graphtide-scheduler"]["spec"]["replicas"] == 2
    # The metric is made of a meter that there is, by the rule that the docs give for the adapter.
    adapter = (CHART.parents[2] / "docs" / "deployment.md").read_text()
    assert f"as: {workers['object']['metric']['name']}" in adapter
    meters = (CHART.parents[2] / "forecasting" / "api" / "scraped.py").read_text()
    assert '"graphtide_jobs"' in meters
    assert "seriesQuery: graphtide_jobs" in adapter


def test_the_network_lets_nobody_in_to_what_listens_nowhere() -> None:
    policies = {
        name.removeprefix("town-graphtide-"): one["spec"] for name, one in of_kind("NetworkPolicy", "shared").items()
    }
    assert set(policies) == {"ingest", "readers", "api", "workers", "scheduler"}
    assert policies["workers"]["ingress"] == policies["scheduler"]["ingress"] == []
    assert policies["api"]["ingress"][0]["ports"] == [{"protocol": "TCP", "port": "http"}]
    for spec in policies.values():
        assert spec["policyTypes"] == ["Ingress", "Egress"]
        assert 5432 in {port["port"] for rule in spec["egress"] for port in rule["ports"]}


def test_events_over_http_need_the_one_pod() -> None:
    values = ("service.database.url=postgresql://u@h/d", "settings.GRAPHTIDE_API__INGESTION=true")
    done = helm("template", "town", CHART, "--kube-version", "1.33.0", "--set", ",".join(values))
    assert done.returncode != 0
    assert "leave service.database.url empty" in done.stderr


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
        "service.database.url=postgresql://user:password@host/database",
        "service.workers.replicas=0",
        "service.api.nonsense=1",
        "nonsense=1",
    ],
)
def test_values_that_cannot_be_meant_are_refused(wrong: str) -> None:
    done = helm("template", "town", CHART, "--kube-version", "1.33.0", "--set", wrong)
    assert done.returncode != 0
    assert "values don't meet the specifications of the schema" in done.stderr


def test_the_page_names_values_that_the_chart_takes() -> None:
    """The installation of docs/deployment.md, rendered instead: `template` takes what `install` takes."""
    (block,) = [
        block for block in blocks_of((ROOT / "docs" / "deployment.md").read_text()) if "helm install" in block.text
    ]
    (command,) = [command for command, _ in block.commands() if command.startswith("helm install ")]
    done = helm("template", *shlex.split(command)[2:], "--kube-version", VERSIONS[0], folder=ROOT)
    assert done.returncode == 0, done.stderr
    kinds = {document["kind"] for document in yaml.safe_load_all(done.stdout) if document}
    assert kinds >= {"Deployment", "StatefulSet", "Service"}
    # The secret that the page has made is the one that the pods ask for.
    made = re.search(r"kubectl create secret generic (\S+) --from-literal=(\w+)=", block.text)
    assert made
    assert re.search(rf"secretKeyRef: *\{{ *name: {made[1]}, key: {made[2]} *\}}", done.stdout)
