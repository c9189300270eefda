"""A service whose books are in PostgreSQL: API, workers and scheduler share no file; none is lost, none done twice."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from forecasting.jobs import JobRequest, Jobs
from forecasting.service_file import ServiceFile
from infra.settings import JobSettings
from stream.ingest import IngestOptions, ingest
from stream.sources.simulate import SimulatedSource
from tests import plain_http
from tests.conftest import Ran
from tests.integration.conftest import TOY
from tests.integration.serving import save_model, served, service_settings
from tests.servers.graphtide import ServeProcess
from tests.servers.postgres import PostgresServer

WAIT_S = 120.0
CLAIM_ALL = """
import sys
from forecasting.jobs import Jobs
from forecasting.service_file import ServiceFile
from infra.settings import JobSettings
with ServiceFile(sys.argv[1]) as file:
    jobs = Jobs(file, JobSettings(lease_s=600))
    print("ready", flush=True)
    sys.stdin.readline()
    while (job := jobs.claim(sys.argv[2])) is not None:
        print(job.id, flush=True)
"""


def variables(service_db: str, store: str, folder: Path) -> dict[str, str]:
    """Return the settings of a process, which shares with others what is named, and the models in the folder."""
    return {
        "GRAPHTIDE_API__SERVICE_DB": service_db,
        "GRAPHTIDE_STORE__URL": store,
        "GRAPHTIDE_MODELS__DIRECTORY": str(folder / "models"),
        "GRAPHTIDE_JOBS__WHEN_IDLE": "false",
    }


@contextmanager
def running(folder: Path, settings: dict[str, str], *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run `graphtide` in a folder and a process group of its own, until the end of the block."""
    folder.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GRAPHTIDE_")}
    command = [str(Path(sys.executable).with_name("graphtide")), *arguments]
    with subprocess.Popen(command, cwd=folder, env=kept | settings, start_new_session=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(WAIT_S)


def until(condition: Callable[[], Any]) -> Any:
    """Return what a condition answers once it holds."""
    end_s = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < end_s, "it did not come"
        time.sleep(0.05)
    return found


def test_api_workers_and_scheduler_share_no_file(postgres_url: str, tmp_path: Path) -> None:
    ingest(SimulatedSource(TOY, graph="toy"), postgres_url, IngestOptions())
    save_model(postgres_url, "toy", tmp_path / "models")
    # Beside the store, in the same database.
    settings = variables(postgres_url, postgres_url, tmp_path) | {"GRAPHTIDE_REPORTS__PATHS": "20"}
    (tmp_path / "api").mkdir()
    api = ServeProcess(tmp_path / "api", postgres_url, settings | {"GRAPHTIDE_JOBS__WORKERS": "0"}).start()
    try:
        with (
            running(tmp_path / "workers", settings, "work", "--workers", "1"),
            running(tmp_path / "scheduler", settings, "report", "schedule", "run"),
            plain_http.Client(base_url=api.url, timeout=60) as client,
        ):
            job = client.post("/v1/graphs/toy/forecasts", json={"horizon": 400}).headers["location"]
            schedule = {"graph": "toy", "cron": "* * * * *", "horizon": 200}
            assert client.put("/v1/report-schedules/often", json=schedule).status_code == 201
            with psycopg.connect(postgres_url) as connection:
                # A minute ago, so that its first time is not waited for.
                connection.execute("UPDATE report_schedules SET planned_us = planned_us - 60000000")
            until(lambda: client.get(job).json()["status"] == "done")
            (output, *_) = client.get(f"{job}/result").raise_for_status().json()["outputs"]
            assert len(output["mean_forecast"]) == 400
            made = until(lambda: client.get("/v1/reports", params={"graph": "toy"}).json()["reports"])
            place = f"/v1/reports/{made[-1]['id']}"
            until(lambda: client.get(place).json()["status"] == "done")
            assert client.get(place).json()["facts"]["provenance"]["snapshots"] > 0
    finally:
        api.discard()
    assert [path for path in tmp_path.rglob("*") if path.name.startswith("service.db")] == []


def test_two_processes_share_the_jobs_out(postgres_url: str) -> None:
    with ServiceFile(postgres_url) as file:
        jobs = Jobs(file, JobSettings(max_active=1000, max_active_per_key=1000))
        request = JobRequest(10, ("events",), (0.5,), 0)
        asked = {jobs.create("o", "g", request)[0].id for _ in range(150)}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIM_ALL, postgres_url, f"w{number}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for number in range(2)
    ]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    taken = [process.communicate(timeout=WAIT_S)[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert all(taken), "one process had them all"
    assert sorted(taken[0] + taken[1]) == sorted(asked)


def test_a_killed_worker_loses_nothing(toy_store: str, postgres_url: str, tmp_path: Path) -> None:
    save_model(toy_store, "toy", tmp_path / "models")
    settings = service_settings(toy_store, tmp_path, api={"service_db": postgres_url})
    short = {"GRAPHTIDE_JOBS__LEASE_S": "1", "GRAPHTIDE_JOBS__CHUNK_STEPS": "100"}
    own = variables(postgres_url, toy_store, tmp_path) | short
    wanted = {"horizon": 6000, "metrics": ["events"], "seed": 4}

    def outputs(client: httpx.Client, job: str) -> Any:
        until(lambda: client.get(job).json()["status"] == "done")
        return client.get(f"{job}/result").raise_for_status().json()["outputs"]

    with served(settings) as client:
        job = client.post("/v1/graphs/toy/forecasts", json=wanted).raise_for_status().headers["location"]
        with running(tmp_path / "first", own, "work", "--workers", "1") as first:
            until(lambda: client.get(job).json()["progress"]["steps_done"] > 0)
            os.killpg(first.pid, signal.SIGKILL)
            first.wait()
        stands = client.get(job).json()
        assert stands["status"] == "running"
        assert 0 < stands["progress"]["steps_done"] < stands["horizon"]
        with running(tmp_path / "second", own, "work", "--workers", "1"):
            found = outputs(client, job)
            again = client.post("/v1/graphs/toy/forecasts", json=wanted).headers["location"]
            assert outputs(client, again) == found


def test_while_the_database_is_away_requests_are_put_off_and_readiness_tells(
    toy_store: str, postgres_server: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    settings = service_settings(toy_store, tmp_path, api={"service_db": postgres_url})
    with served(settings) as client:
        assert client.get("/readyz").status_code == 200
        place = client.post("/v1/graphs/toy/forecasts", json={"horizon": 400}).headers["location"]
        postgres_server.kill()
        ready = until(lambda: (found := client.get("/readyz")).status_code == 503 and found)
        assert ready.json()["failed"] == ["service_file_open"]
        for answer in (client.get(place), client.post("/v1/graphs/toy/forecasts", json={"horizon": 400})):
            assert answer.status_code == 503
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["type"].endswith("service-unavailable")
            assert int(answer.headers["retry-after"]) >= 1
        assert client.get("/livez").status_code == 200
        postgres_server.heal()
        until(lambda: client.get("/readyz").status_code == 200)
        assert client.get(place).json()["status"] == "queued"


def test_commands_take_the_database_and_a_backup_says_that_it_is_not_in_it(
    graphtide: Callable[..., Ran], toy_store: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres_url.replace("graphtide@", "graphtide:sesame@")
    monkeypatch.setenv("GRAPHTIDE_API__SERVICE_DB", url)
    monkeypatch.setenv("GRAPHTIDE_STORE__URL", toy_store)

    def told(*arguments: object) -> str:
        ran = graphtide(*arguments)
        assert "sesame" not in ran.out + ran.err
        return ran.out + ran.err

    assert "no keys or jobs at postgresql://" in told("doctor")
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT to_regclass('keys')").fetchone() == (None,), "doctor made tables"
    assert "gt_" in told("keys", "create", "reader", "--graph", "*")
    assert "reader" in told("keys", "list")
    assert "1 keys, 0 active jobs" in told("doctor")
    assert "pg_dump" in told("store", "backup", "kept")
    assert not Path("kept", "service.db").exists()
    monkeypatch.setenv("GRAPHTIDE_API__SERVICE_DB", "service.db")
    told("keys", "create", "reader", "--graph", "*")
    assert "pg_dump" not in told("store", "backup", "with-file")
    monkeypatch.setenv("GRAPHTIDE_API__SERVICE_DB", url)
    ran = graphtide("store", "restore", "with-file", "--store", "sqlite:///restored.db")
    assert ran.code == 2
    assert "cannot be restored to PostgreSQL" in ran.err
    assert not Path("restored.db").exists()
