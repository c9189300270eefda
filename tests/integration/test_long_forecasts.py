"""Long-range forecasts over a real socket: asked for, streamed, resumed, refused and fetched."""

import csv
import io
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from httpx_sse import connect_sse

from forecasting.engine import Engine
from forecasting.job_worker import work
from infra.schema import METRIC_INDEX, METRIC_NAMES, QUANTILE_LEVELS
from infra.settings import Settings
from tests.integration.serving import problem, save_model, served, service_settings

ASK = "/v1/graphs/toy/forecasts"
SMALL = {"horizon": 300, "metrics": ["events", "total_nodes"], "quantiles": [0.1, 0.5, 0.9]}
# A job is computed whenever a core is free; here there may be none for long.
JOBS = {"when_idle": False, "chunk_steps": 100, "lease_s": 2}


def settings_in(folder: Path, toy_store: str, **jobs: Any) -> Settings:
    save_model(toy_store, "toy", folder / "models")
    return service_settings(toy_store, folder, jobs={**JOBS, **jobs})


@pytest.fixture(scope="module")
def settings(toy_store: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return settings_in(tmp_path_factory.mktemp("long"), toy_store)


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[httpx.Client]:
    """A service, and a thread that computes its jobs."""
    stop = threading.Event()
    worker = threading.Thread(target=work, args=(settings, "thread", stop), daemon=True)
    with served(settings) as client:
        worker.start()
        yield client
    stop.set()
    worker.join(60)


def ask(client: httpx.Client, body: dict[str, Any], **headers: str) -> str:
    answer = client.post(ASK, json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    assert answer.headers["retry-after"]
    return answer.headers["location"]


def lines_of(client: httpx.Client, here: str, after: int = 0) -> list[dict[str, Any]]:
    headers = {"Accept": "application/x-ndjson", "Last-Event-ID": str(after)}
    with client.stream("GET", f"{here}/stream", headers=headers) as stream:
        assert stream.headers["content-type"] == "application/x-ndjson"
        return [json.loads(line) for line in stream.iter_lines() if line]


def done(client: httpx.Client, body: dict[str, Any] = SMALL) -> str:
    here = ask(client, body)
    assert lines_of(client, here)[-1]["status"] == "done"
    return here


def means(lines: list[dict[str, Any]], output: int = 0) -> list[float]:
    return [value for line in lines[:-1] for value in line["outputs"][output]["mean_forecast"]]


def test_caches_may_keep_a_finished_result(client: httpx.Client) -> None:
    here = ask(client, SMALL)
    assert lines_of(client, here)
    first = client.get(f"{here}/result", headers={"Accept": "text/csv"})
    # There are no keys here: everyone sees it, so a shared cache may keep it.
    assert first.headers["cache-control"].startswith("public, max-age=")
    assert {"Accept", "Authorization", "Accept-Encoding"} <= set(first.headers["vary"].split(", "))
    known = {"If-None-Match": first.headers["etag"]}
    again = client.get(f"{here}/result", headers={"Accept": "text/csv", **known})
    assert (again.status_code, again.content) == (304, b"")
    other = client.get(f"{here}/result", headers={"Accept": "application/vnd.apache.parquet", **known})
    assert other.status_code == 200
    assert other.headers["etag"] != first.headers["etag"]


def test_a_job_from_asking_to_its_result(client: httpx.Client) -> None:
    here = ask(client, SMALL)
    lines = lines_of(client, here)
    assert [line["event"] for line in lines] == ["chunk", "chunk", "chunk", "end"]
    assert [line["last_step"] for line in lines] == [100, 200, 300, 300]
    status = client.get(here).json()
    assert (status["status"], status["progress"]["steps_done"]) == ("done", 300)
    assert status["provenance"]["model"] == "mamba2"
    assert status["provenance"]["calibrated_on"] == "this graph"
    assert status["expires"] > status["finished"] >= status["started"] >= status["created"]
    whole = client.get(status["links"]["result"]).json()
    assert whole["provenance"] == status["provenance"]
    assert [one["name"] for one in whole["outputs"]] == SMALL["metrics"]
    for number, one in enumerate(whole["outputs"]):
        assert list(one["quantiles"]) == ["0.1", "0.5", "0.9"]
        assert one["mean_forecast"] == means(lines, number)
    short = client.get("/v1/graphs/toy/forecast", params={"horizon": "100", "metrics": "events"}).json()
    assert short["outputs"][0]["mean_forecast"] == pytest.approx(whole["outputs"][0]["mean_forecast"][:100], rel=1e-4)


def test_results_in_every_format_are_the_numbers_of_the_engine(client: httpx.Client, settings: Settings) -> None:
    here = done(client, {"horizon": 250})
    with Engine(settings) as engine:
        chunks = list(engine.forecast("toy", horizon_steps=250).chunks)
    expected = np.concatenate([chunk.forecast.quantiles for chunk in chunks])

    def frame(media_type: str) -> Any:
        answer = client.get(f"{here}/result", headers={"Accept": media_type})
        assert answer.headers["content-type"].startswith(media_type)
        if media_type == "text/csv":
            rows = list(csv.DictReader(io.StringIO(answer.text)))
            return pa.Table.from_pylist(rows).to_pandas()
        if "parquet" in media_type:
            return pq.read_table(io.BytesIO(answer.content)).to_pandas()
        return pa.ipc.open_stream(answer.content).read_pandas()

    for media_type in ("text/csv", "application/vnd.apache.parquet", "application/vnd.apache.arrow.stream"):
        found = frame(media_type)
        assert list(found.columns) == ["step_start", "metric", "mean", *(f"q{level:g}" for level in QUANTILE_LEVELS)]
        assert len(found) == 250 * len(METRIC_NAMES)
        for name in ("events", "transitivity", "total_edges"):
            medians = found[found["metric"] == name]["q0.5"].to_numpy(dtype=float)
            wanted = expected[:, METRIC_INDEX[name], QUANTILE_LEVELS.index(0.5)]
            assert medians == pytest.approx(wanted, rel=1e-4, abs=1e-4), (media_type, name)
    refused = client.get(f"{here}/result", headers={"Accept": "image/png"})
    assert "text/csv" in problem(refused, 406, "not-acceptable")["offered"]


@pytest.mark.parametrize("after", [0, 50, 100, 299, 300])
def test_a_resumed_stream_has_no_gap_and_no_repeat(client: httpx.Client, after: int) -> None:
    here = done(client)
    whole, rest = lines_of(client, here), lines_of(client, here, after)
    assert means(rest) == means(whole)[after:]
    if after < 300:
        assert rest[0]["first_step"] == after
    with connect_sse(client, "GET", f"{here}/stream", headers={"Last-Event-ID": str(after)}) as source:
        events = list(source.iter_sse())
    assert [int(event.id) for event in events] == [line["last_step"] for line in rest]
    assert events[-1].event == "end"
    assert [value for event in events[:-1] for value in event.json()["outputs"][0]["mean_forecast"]] == means(rest)


def test_one_idempotency_key_one_job_for_many_at_once(client: httpx.Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        places = set(pool.map(lambda _: ask(client, SMALL, **{"Idempotency-Key": "once"}), range(24)))
    assert len(places) == 1
    again = client.post(ASK, json=SMALL, headers={"Idempotency-Key": "once"})
    assert again.headers["idempotent-replayed"] == "true"
    other = client.post(ASK, json={**SMALL, "horizon": 301}, headers={"Idempotency-Key": "once"})
    problem(other, 422, "key-reused")
    wrong = client.post(ASK, json=SMALL, headers={"Idempotency-Key": "x" * 300})
    problem(wrong, 422, "invalid-parameter")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "horizon"),
        ({"horizon": 0}, "horizon"),
        ({"horizon": 36_501}, "horizon"),
        ({"horizon": True}, "horizon"),
        ({"horizon": 1.5}, "horizon"),
        ({"horizon": "5"}, "horizon"),
        ({"horizon": 5, "metrics": ["nothing"]}, "metrics"),
        ({"horizon": 5, "metrics": []}, "metrics"),
        ({"horizon": 5, "metrics": [1]}, "metrics"),
        ({"horizon": 5, "metrics": None}, "metrics"),
        ({"horizon": 5, "quantiles": [0.55]}, "quantiles"),
        ({"horizon": 5, "quantiles": {"a": 1}}, "quantiles"),
        ({"horizon": 5, "seed": -1}, "seed"),
        ({"horizon": 5, "horzon": 6}, "horzon"),
    ],
)
def test_a_wrong_body_is_named_with_its_limits_and_an_example(
    client: httpx.Client, body: dict[str, Any], field: str
) -> None:
    (error,) = problem(client.post(ASK, json=body), 422, "invalid-parameter")["errors"]
    assert error["field"] == field
    assert error["allowed"]
    assert error["example"] is not None


def test_bodies_that_are_none(client: httpx.Client) -> None:
    for body in (b"", b"{", b"[]", b"\xff", b"[" * 60_000, b'"x"'):
        assert "horizon" in problem(client.post(ASK, content=body), 422, "invalid-body")["detail"]

    def unannounced() -> Iterator[bytes]:
        for _ in range(20):
            yield b"x" * 5000

    problem(client.post(ASK, content=unannounced()), 413, "too-large")


def test_jobs_that_are_not_there(client: httpx.Client) -> None:
    for job in ("x", "0" * 32, "0" * 31 + "%00", "..", "A" * 5000):
        for path in ("", "/stream", "/result"):
            assert client.get(f"/v1/forecasts/{job}{path}").status_code == 404
        assert client.delete(f"/v1/forecasts/{job}").status_code == 404


@pytest.mark.parametrize("wrong", ["x", "-1", "301", "9" * 30])
def test_a_wrong_place_to_resume_from_is_named(client: httpx.Client, wrong: str) -> None:
    refused = client.get(f"{done(client)}/stream", headers={"Last-Event-ID": wrong})
    (error,) = problem(refused, 422, "invalid-parameter")["errors"]
    assert (error["field"], error["allowed"]) == ("Last-Event-ID", "a step from 0 to 300")


def test_waiting_jobs_can_be_cancelled_and_are_limited(toy_store: str, tmp_path: Path) -> None:
    with served(settings_in(tmp_path, toy_store, max_active=4, max_active_per_key=3)) as client:
        places = [ask(client, SMALL) for _ in range(3)]
        refused = client.post(ASK, json=SMALL)
        problem(refused, 429, "too-many-jobs")
        assert refused.headers["retry-after"] == "10"
        problem(client.get(f"{places[0]}/result"), 409, "not-finished")
        assert client.delete(places[0]).json()["status"] == "cancelled"
        assert lines_of(client, places[0])[-1]["status"] == "cancelled"
        problem(client.get(f"{places[0]}/result"), 409, "no-result")
        ask(client, SMALL)
