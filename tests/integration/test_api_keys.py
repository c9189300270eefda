"""The forecast service with keys: who may ask for what, on every route that it has."""

import logging
from collections.abc import Iterator

import httpx
import pytest

from forecasting.keys import Keys, Scope
from forecasting.service_file import ServiceFile
from stream.decoders.builder import DecodeOptions
from stream.ingest import IngestOptions, ingest
from stream.sources.files import FileSource
from tests.integration.serving import problem, served, service_settings, write_events


@pytest.fixture(scope="module")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, dict[str, str]]]:
    """A service with two graphs, and a key for each of them; one may write, `all` may do everything."""
    folder = tmp_path_factory.mktemp("tenants")
    url = f"sqlite:///{folder}/store.db"
    for graph in ("red", "blue"):
        log = write_events(folder / f"{graph}.ndjson", range(50))
        ingest(FileSource(log, DecodeOptions(graph=graph)), url, IngestOptions())
    settings = service_settings(url, folder)
    with ServiceFile(settings.api.service_db) as file:
        keys = Keys(file)
        tokens = {graph: keys.create(graph, Scope.READ, [graph])[1] for graph in ("red", "blue")}
        tokens["all"] = keys.create("all", Scope.ADMIN, ["*"])[1]
        tokens["red-writer"] = keys.create("red-writer", Scope.WRITE, ["red"])[1]
    with served(settings) as client:
        yield client, tokens


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def every_route(client: httpx.Client, token: str) -> Iterator[tuple[str, str]]:
    """Yield the methods and paths of the service as its own description lists them."""
    for path, methods in client.get("/openapi.json", headers=bearer(token)).json()["paths"].items():
        for method in methods:
            yield method.upper(), path


def test_without_a_key_there_is_health_and_nothing_else(tenants: tuple[httpx.Client, dict[str, str]]) -> None:
    client, tokens = tenants
    opened = set()
    for method, path in [*every_route(client, tokens["all"]), ("GET", "/openapi.json"), ("GET", "/nothing")]:
        answer = client.request(method, path.replace("{graph}", "red"))
        if answer.status_code == 401:
            problem(answer, 401, "unauthorized")
            assert answer.headers["www-authenticate"] == "Bearer"
        else:
            opened.add(path)
    assert opened == {"/livez", "/readyz", "/health"}


def test_a_key_of_one_graph_sees_nothing_of_another_on_any_route(
    tenants: tuple[httpx.Client, dict[str, str]],
) -> None:
    client, tokens = tenants
    looked = 0
    for method, path in every_route(client, tokens["all"]):
        if "{graph}" not in path:
            continue
        theirs = client.request(method, path.replace("{graph}", "blue"), headers=bearer(tokens["red-writer"]))
        none = client.request(method, path.replace("{graph}", "bluf"), headers=bearer(tokens["red-writer"]))
        problem(theirs, 404, "unknown-graph")
        assert theirs.text == none.text.replace("bluf", "blue"), "what is hidden looks as if it were not there"
        assert "near" not in theirs.json() or "blue" not in theirs.json()["near"]
        looked += 1
    assert looked >= 3
    listed = client.get("/v1/graphs", headers=bearer(tokens["red"])).json()["graphs"]
    assert [one["graph"] for one in listed] == ["red"]
    assert client.get("/v1/graphs/red/forecast", headers={"X-API-Key": tokens["red"]}).status_code == 200
    problem(client.get("/metrics", headers=bearer(tokens["red"])), 403, "forbidden")
    assert client.get("/metrics", headers=bearer(tokens["all"])).status_code == 200


def test_a_job_is_seen_by_keys_of_its_graph_only_on_any_route(tenants: tuple[httpx.Client, dict[str, str]]) -> None:
    client, tokens = tenants
    asked = client.post("/v1/graphs/red/forecasts", json={"horizon": 5}, headers=bearer(tokens["red-writer"]))
    assert asked.status_code == 202
    job = asked.json()["id"]
    looked = 0
    for method, path in every_route(client, tokens["all"]):
        if "{forecast}" not in path:
            continue
        theirs = client.request(method, path.replace("{forecast}", job), headers=bearer(tokens["blue"]))
        none = client.request(method, path.replace("{forecast}", "0" * 32), headers=bearer(tokens["blue"]))
        problem(theirs, 404, "unknown-forecast")
        assert theirs.text == none.text
        looked += 1
    assert looked >= 4
    assert client.get(f"/v1/forecasts/{job}", headers=bearer(tokens["red"])).json()["status"] == "queued"
    problem(client.delete(f"/v1/forecasts/{job}", headers=bearer(tokens["red"])), 403, "forbidden")
    problem(client.post("/v1/graphs/red/forecasts", headers=bearer(tokens["red"])), 403, "forbidden")
    cancelled = client.delete(f"/v1/forecasts/{job}", headers=bearer(tokens["red-writer"]))
    assert cancelled.json()["status"] == "cancelled"


def test_writes_leave_a_line_and_no_secret_does(
    tenants: tuple[httpx.Client, dict[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    client, tokens = tenants
    with caplog.at_level(logging.DEBUG):
        answer = client.delete("/v1/graphs", headers=bearer(tokens["red"]))
    (line,) = [record.getMessage() for record in caplog.records if record.name == "graphtide.audit"]
    assert answer.headers["x-request-id"] in line
    assert "(red)" in line
    assert "405" in line
    for token in tokens.values():
        assert token.split("_", 2)[2] not in caplog.text
