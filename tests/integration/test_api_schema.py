"""Requests made from the OpenAPI document, answers compared with it."""

import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from forecasting.job_worker import work
from infra.settings import Settings
from tests.integration.serving import save_model, served, service_settings
from tests.integration.test_long_forecasts import JOBS, lines_of

# Cursors and ids are given by the service, so that a valid one cannot be made up: that valid data is accepted is what
# the other tests are for.
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
OPERATIONS = [
    ("GET", "/v1/graphs"),
    ("GET", "/v1/graphs/{graph}"),
    ("GET", "/v1/graphs/{graph}/snapshots"),
    ("GET", "/v1/graphs/{graph}/history"),
    ("GET", "/v1/graphs/{graph}/quality"),
    ("GET", "/v1/graphs/{graph}/model"),
    ("POST", "/v1/graphs/{graph}/events"),
    ("GET", "/v1/graphs/{graph}/forecast"),
    ("POST", "/v1/graphs/{graph}/forecasts"),
    ("GET", "/v1/forecasts/{forecast}"),
    ("GET", "/v1/forecasts/{forecast}/stream"),
    ("GET", "/v1/forecasts/{forecast}/result"),
    ("DELETE", "/v1/forecasts/{forecast}"),
    ("POST", "/v1/graphs/{graph}/reports"),
    ("GET", "/v1/reports"),
    ("GET", "/v1/reports/{report}"),
    ("DELETE", "/v1/reports/{report}"),
    ("GET", "/v1/report-targets"),
    ("GET", "/v1/report-schedules"),
    ("GET", "/v1/report-schedules/{name}"),
    ("PUT", "/v1/report-schedules/{name}"),
    ("DELETE", "/v1/report-schedules/{name}"),
    ("GET", "/v1/report-schedules/{name}/runs"),
    ("GET", "/v1/alert-rules"),
    ("GET", "/v1/alert-rules/{name}"),
    ("PUT", "/v1/alert-rules/{name}"),
    ("DELETE", "/v1/alert-rules/{name}"),
    ("GET", "/v1/alerts"),
    ("GET", "/v1/alerts/{alert}"),
    ("POST", "/v1/alerts/{alert}/acknowledge"),
    ("POST", "/v1/alerts/{alert}/silence"),
    ("DELETE", "/v1/alerts/{alert}/silence"),
    ("GET", "/livez"),
    ("GET", "/readyz"),
    ("GET", "/health"),
    ("GET", "/metrics"),
]

# With the valid names and ids below, these have nothing that could be wrong.
WITHOUT_INPUT = {"/v1/graphs", "/v1/report-schedules", "/v1/alert-rules", "/livez", "/readyz", "/health", "/metrics"}
CASES = [
    (method, path, mode)
    for method, path in OPERATIONS
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    if mode is GenerationMode.POSITIVE or path not in WITHOUT_INPUT
]


@pytest.fixture(scope="module")
def chosen(toy_store: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("schema")
    save_model(toy_store, "toy", folder / "models")
    return service_settings(
        toy_store,
        folder,
        api={"ingestion": True, "short_max_steps": 24, "max_page_rows": 100},
        spool={"path": folder / "spool.db"},
        jobs={**JOBS, "max_active": 10_000, "max_active_per_key": 10_000},
    )


@pytest.fixture(scope="module")
def client(chosen: Settings) -> Iterator[httpx.Client]:
    with served(chosen) as client:
        yield client


@pytest.fixture(scope="module")
def job(client: httpx.Client, chosen: Settings) -> str:
    asked = client.post("/v1/graphs/toy/forecasts", json={"horizon": 5})
    stop = threading.Event()
    worker = threading.Thread(target=work, args=(chosen, "schema", stop), daemon=True)
    worker.start()
    lines_of(client, asked.headers["location"])
    # The many jobs that are asked for later are not what is tested.
    stop.set()
    worker.join(60)
    return str(asked.json()["id"])


@pytest.fixture(scope="module")
def document(client: httpx.Client, job: str) -> Any:
    found = client.get("/openapi.json").json()
    # The names of what there is; a stream without an end would never be answered.
    del found["paths"]["/v1/graphs/{graph}/live"]
    for path, operations in found["paths"].items():
        for operation in operations.values():
            for parameter in operation.get("parameters", []):
                # Events may be of a graph that is not there yet.
                if parameter["name"] == "graph" and not path.endswith("/events"):
                    parameter["schema"] = {"enum": ["toy"]}
                elif parameter["name"] == "forecast":
                    parameter["schema"] = {"enum": [job]}
    loaded = schemathesis.openapi.from_dict(found)
    loaded.config.update(base_url=str(client.base_url))
    return loaded


@pytest.mark.parametrize(("method", "path", "mode"), CASES)
@examples(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_answer_is_as_the_document_says(
    document: Any, method: str, path: str, mode: GenerationMode, data: st.DataObject
) -> None:
    case = data.draw(document[path][method].as_strategy(generation_mode=mode))
    case.call_and_validate(checks=CHECKS)


def test_these_are_all_routes(client: httpx.Client) -> None:
    found = client.get("/openapi.json").json()["paths"]
    routes = {(method.upper(), path) for path, operations in found.items() for method in operations}
    assert routes - {("GET", "/v1/graphs/{graph}/live")} == set(OPERATIONS)


def test_the_largest_limit_of_each_list_is_accepted_and_one_more_is_not(client: httpx.Client) -> None:
    found = client.get("/openapi.json").json()["paths"]
    client.put("/v1/report-schedules/monday", json={"graph": "toy", "cron": "0 7 * * 1"}).raise_for_status()
    for path, operations in found.items():
        for parameter in operations.get("get", {}).get("parameters", ()):
            if parameter["name"] == "limit":
                here, most = path.format(graph="toy", name="monday"), parameter["schema"]["maximum"]
                assert client.get(here, params={"limit": most}).status_code == 200, path
                assert client.get(here, params={"limit": most + 1}).status_code == 422, path


def test_every_route_and_every_problem_is_described(client: httpx.Client) -> None:
    found = client.get("/openapi.json").json()
    for path, operations in found["paths"].items():
        for method, operation in operations.items():
            responses = operation["responses"]
            assert {"422", "500", "503"} <= set(responses), (method, path)
            success = next(answer for code, answer in responses.items() if code.startswith("2"))
            assert all(body["schema"] for body in success.get("content", {}).values())


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("/v1/graphs", "Graphs"),
        ("/v1/graphs/toy", "GraphWithModel"),
        ("/v1/graphs/toy/snapshots?limit=3", "Snapshots"),
        ("/v1/graphs/toy/forecast", "Forecast"),
        ("/v1/graphs/toy/forecast?format=long&quantiles=0.5", "Forecast"),
        ("/v1/forecasts/{job}", "Job"),
        ("/v1/forecasts/{job}/result", "Result"),
        ("/health", "Health"),
    ],
)
def test_answers_have_their_schemas(client: httpx.Client, job: str, url: str, name: str) -> None:
    from jsonschema_rs import validator_for  # noqa: PLC0415 - comes with schemathesis

    found = client.get("/openapi.json").json()
    answer = client.get(url.replace("{job}", job))
    assert answer.status_code == 200
    validator_for({"$ref": f"#/components/schemas/{name}", "components": found["components"]}).validate(answer.json())
