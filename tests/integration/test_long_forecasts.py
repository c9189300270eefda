"""Long-range forecasts over a real socket, computed by a process that may be killed."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
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
from forecasting.jobs import Jobs, Status
from forecasting.service_file import ServiceFile
from forecasting.training import checkpoint_folder
from infra.errors import ModelError
from infra.schema import METRIC_INDEX, METRIC_NAMES, QUANTILE_LEVELS
from infra.settings import Settings
from models.checkpoint import CARD_NAME
from models.forecaster import MambaForecaster
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


def start_worker(settings: Settings, worker: str) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen([sys.executable, "-m", "forecasting.job_worker"], stdin=subprocess.PIPE)
    assert process.stdin is not None
    told = {"worker": worker, "log_level": 30, "settings": settings.model_dump(mode="json")}
    process.stdin.write(json.dumps(told).encode() + b"\n")
    process.stdin.flush()
    return process


def test_a_killed_job_goes_on_and_comes_out_to_the_last_bit(toy_store: str, tmp_path: Path) -> None:
    settings = settings_in(tmp_path, toy_store, chunk_steps=16, lease_s=1)
    body = {"horizon": 6000, "metrics": ["events", "total_edges"]}
    with served(settings) as client, ServiceFile(settings.api.service_db) as file:
        here = ask(client, body)
        (job_id,) = [row[0] for row in file.rows("SELECT id FROM jobs")]
        jobs, process = Jobs(file, settings.jobs), start_worker(settings, "first")
        try:
            for line in stream_lines(client, here):
                if line["last_step"] >= 320:
                    process.send_signal(signal.SIGKILL)
                    break
        finally:
            process.kill()
            process.wait()
        before = jobs.get(job_id)
        assert before is not None
        assert (before.status, before.steps_done >= 320) == (Status.RUNNING, True)
        assert before.steps_done < 6000, "it was killed on the way"
        kept = jobs.kept_digests(before)
        stop = threading.Event()
        worker = threading.Thread(target=work, args=(settings, "second", stop), daemon=True)
        worker.start()
        lines = lines_of(client, here, 320)
        assert lines[-1]["status"] == "done"
        other = done(client, body)
        stop.set()
        worker.join(60)
        assert kept.items() <= jobs.kept_digests(before).items(), "what was delivered stands"
        results = [client.get(f"{place}/result").json()["outputs"] for place in (here, other)]
        assert results[0] == results[1]
        assert means(lines) == results[0][0]["mean_forecast"][320:]


def stream_lines(client: httpx.Client, here: str) -> Iterator[dict[str, Any]]:
    with client.stream("GET", f"{here}/stream", headers={"Accept": "application/x-ndjson"}) as stream:
        for line in stream.iter_lines():
            if line:
                yield json.loads(line)


def test_a_job_whose_model_was_replaced_meanwhile_says_so(toy_store: str, tmp_path: Path) -> None:
    settings = settings_in(tmp_path, toy_store)
    with ServiceFile(settings.api.service_db) as file, served(settings) as client:
        here = ask(client, SMALL)
        jobs = Jobs(file, settings.jobs)
        stop = threading.Event()
        stopper = threading.Thread(target=work, args=(settings, "first", stop), daemon=True)
        keep = Jobs.keep

        def keep_one(table: Jobs, *arguments: Any) -> None:
            keep(table, *arguments)
            stop.set()

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Jobs, "keep", keep_one)
            stopper.start()
            stopper.join(60)
        job = jobs.get(here.rpartition("/")[2])
        assert job is not None
        assert (job.status, job.steps_done) == (Status.QUEUED, 100)
        save_model(toy_store, "toy", tmp_path / "models", seed=9)
        stop.clear()
        worker = threading.Thread(target=work, args=(settings, "second", stop), daemon=True)
        worker.start()
        end = lines_of(client, here)[-1]
        stop.set()
        worker.join(60)
        assert (end["status"], end["steps_done"]) == ("failed", 100)
        assert "model was replaced" in end["problem"]


def fail(*_arguments: Any, **_options: Any) -> Any:
    raise ModelError("it exploded")


@pytest.mark.parametrize("is_damaged", [False, True])
def test_where_the_model_fails_a_job_takes_the_floor(
    toy_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_damaged: bool
) -> None:
    monkeypatch.setattr(MambaForecaster, "rollout", fail)
    settings, stop = settings_in(tmp_path, toy_store), threading.Event()
    worker = threading.Thread(target=work, args=(settings, "w", stop), daemon=True)
    if is_damaged:
        # The general model stands in for it, and fails too.
        (checkpoint_folder(settings.models.directory, "toy") / CARD_NAME).write_text("{}")
    with served(settings) as client:
        worker.start()
        about = client.get(done(client)).json()["provenance"]
        stop.set()
        worker.join(60)
    assert (about["model"], about["degraded"]) == ("profile_level", True)


def test_a_job_that_the_floor_answers_goes_on_in_another_process(
    toy_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep, stop = Jobs.keep, threading.Event()

    def keep_one(table: Jobs, *arguments: Any) -> None:
        keep(table, *arguments)
        stop.set()

    monkeypatch.setattr(MambaForecaster, "rollout", fail)
    settings = settings_in(tmp_path, toy_store)
    with served(settings) as client:
        here = ask(client, SMALL)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Jobs, "keep", keep_one)
            work(settings, "first", stop)
        assert client.get(here).json()["progress"]["steps_done"] == 100
        stop.clear()
        worker = threading.Thread(target=work, args=(settings, "second", stop), daemon=True)
        worker.start()
        end = lines_of(client, here)[-1]
        stop.set()
        worker.join(60)
        assert (end["status"], end["problem"]) == ("done", None)
        assert client.get(here).json()["provenance"]["model"] == "profile_level"


def test_serve_computes_jobs_replaces_a_killed_process_and_drains_on_sigterm(toy_store: str, tmp_path: Path) -> None:
    settings = settings_in(tmp_path, toy_store)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GRAPHTIDE_")},
        "GRAPHTIDE_JOBS__WHEN_IDLE": "false",
        "GRAPHTIDE_API__SERVICE_DB": str(settings.api.service_db),
        "GRAPHTIDE_MODELS__DIRECTORY": str(settings.models.directory),
    }
    command = [sys.executable, "-c", "from forecasting.cli import main; main()", "serve", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--store", toy_store],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    try:
        assert process.stderr is not None
        address = process.stderr.readline().split(" on ")[1].split(";")[0]
        with httpx.Client(base_url=address, timeout=60) as client:
            client.get("/v1/graphs/toy").raise_for_status()
            done(client)
            (worker,) = (pid for pid in children_of(process.pid) if runs("forecasting.job_worker", pid))
            os.kill(worker, signal.SIGKILL)
            done(client)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.wait()
    said = process.stderr.read()
    assert "POST '/v1/graphs/toy/forecasts'" in said
    assert "Traceback" not in said


def children_of(pid: int) -> list[int]:
    """Return the processes that a process started, in whichever of its threads."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sorted({int(child) for thread in threads for child in (thread / "children").read_text().split()})


def runs(module: str, pid: int) -> bool:
    """Tell whether a process runs a module."""
    return module in Path(f"/proc/{pid}/cmdline").read_text().split("\0")
