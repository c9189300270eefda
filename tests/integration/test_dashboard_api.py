"""What the dashboard asks of the service: history, quality, model, pages and their files; with and without keys."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from forecasting.keys import Keys, Scope
from forecasting.service_file import ServiceFile
from stream.decoders.builder import DecodeOptions
from stream.ingest import IngestOptions, ingest
from stream.sources.files import FileSource
from stream.store import open_reader
from tests.integration.serving import save_model, served, service_settings


@pytest.fixture(scope="module")
def folder(toy_store: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dashboard")
    save_model(toy_store, "toy", folder / "models")
    return folder


@pytest.fixture(scope="module")
def client(toy_store: str, folder: Path) -> Iterator[httpx.Client]:
    with served(service_settings(toy_store, folder)) as client:
        yield client


def test_history_keeps_the_extremes_and_says_so(client: httpx.Client, toy_store: str) -> None:
    with open_reader(toy_store) as reader:
        values = reader.snapshots("toy", metrics=("events",)).values[:, 0]
    found = client.get("/v1/graphs/toy/history", params={"points": 100}).json()
    assert len(found["step_start"]) <= 100
    assert (found["exact"], sum(found["steps"])) == (False, len(values))
    (series,) = found["series"]
    assert (series["name"], min(series["min"]), max(series["max"])) == ("events", values.min(), values.max())


def test_history_is_exact_on_zoom(client: httpx.Client) -> None:
    window = {"start": "2021-01-10", "end": "2021-01-12", "metrics": "events,reciprocity"}
    found = client.get("/v1/graphs/toy/history", params={**window, "points": 100}).json()
    rows = client.get("/v1/graphs/toy/snapshots", params=window).json()["rows"]
    assert found["exact"]
    assert found["step_start"] == [row["step_start"] for row in rows]
    for series in found["series"]:
        assert series["min"] == series["max"] == [row[series["name"]] for row in rows]


def test_history_of_an_empty_range_and_wrong_parameters(client: httpx.Client) -> None:
    found = client.get("/v1/graphs/toy/history", params={"start": "2040-01-01"}).json()
    assert (found["step_start"], found["exact"]) == ([], True)
    for query in ({"points": "1"}, {"points": "5001"}, {"metrics": "evnts"}, {"start": "then"}, {"zoom": "1"}):
        assert client.get("/v1/graphs/toy/history", params=query).status_code == 422, query


def test_history_is_not_sent_again_while_nothing_changes(client: httpx.Client) -> None:
    first = client.get("/v1/graphs/toy/history")
    again = client.get("/v1/graphs/toy/history", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_quality_of_a_log_with_rejected_lines(tmp_path: Path) -> None:
    log = tmp_path / "town.ndjson"
    lines = [json.dumps({"src": "a", "dst": "b", "ts": 1_600_000_000 + 600 * at}) for at in range(20)]
    log.write_text("\n".join([*lines, "no event"]) + "\n")
    store = f"sqlite:///{tmp_path / 'store.db'}"
    ingest(FileSource(log, DecodeOptions(graph="town")), store, IngestOptions())
    with served(service_settings(store, tmp_path)) as client:
        found = client.get("/v1/graphs/town/quality").json()
        model = client.get("/v1/graphs/town/model").json()
    assert (model["graph"], model["card"], model["general"]["name"]) == ("town", None, "mamba2-general")
    assert model["general"]["scores"]["validation_loss"] < model["general"]["scores"]["untrained_validation_loss"]
    (partition,) = found["sources"]["partitions"]
    assert (partition["events"], partition["rejected"], partition["late"]) == (20, 1, 0)
    assert found["newest_event"] == found["watermark"] == "2020-09-13T15:36:40Z"
    assert found["observed_until"] == "2020-09-13T16:00:00Z"
    assert found["sources"]["dead_letters"]["count"] == 0


def test_the_card_of_a_model(client: httpx.Client) -> None:
    card = client.get("/v1/graphs/toy/model").json()["card"]
    assert (card["name"], card["data"][0]["graph"]) == ("mamba2", "toy")


def test_pages_and_files_are_sent_with_their_headers(client: httpx.Client) -> None:
    for path in ("/", "/graphs/toy"):
        page = client.get(path)
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert "script-src 'self'" in page.headers["content-security-policy"]
        assert page.headers["x-content-type-options"] == "nosniff"
    address = page.text.split('src="')[1].split('"')[0]
    file = client.get(address)
    assert file.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert file.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in client.get(address, headers={"Accept-Encoding": "identity"}).headers
    assert client.get("/assets/0000/boot.js").status_code == 404
    # What is no page keeps the policy that allows nothing.
    assert client.get("/v1/graphs").headers["content-security-policy"].startswith("default-src 'none'; frame-ancestors")


def test_pages_are_open_and_data_are_not(toy_store: str, tmp_path: Path) -> None:
    save_model(toy_store, "toy", tmp_path / "models")
    settings = service_settings(toy_store, tmp_path)
    with ServiceFile(settings.api.service_db) as file:
        _, token = Keys(file).create("one", Scope.READ, ["toy"])
        _, other = Keys(file).create("other", Scope.READ, ["else*"])
    with served(settings) as client:
        for path in ("/", "/graphs/toy", "/graphs/nothing"):
            assert client.get(path).status_code == 200
        for path in ("history", "quality", "model"):
            address = f"/v1/graphs/toy/{path}"
            assert client.get(address).status_code == 401
            assert client.get(address, headers={"X-API-Key": other}).status_code == 404
            assert client.get(address, headers={"X-API-Key": token}).status_code == 200
        # Its sources may feed graphs that this key is not for.
        assert client.get("/v1/graphs/toy/quality", headers={"X-API-Key": token}).json()["sources"] is None
