"""The processes that compute long-range forecasts: killed, replaced, with another model, and with none that works."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from forecasting.job_worker import work
from forecasting.jobs import Jobs, Status
from forecasting.service_file import ServiceFile
from forecasting.training import checkpoint_folder
from infra.errors import ModelError
from infra.settings import Settings
from models.checkpoint import CARD_NAME
from models.forecaster import MambaForecaster
from tests import plain_http
from tests.integration.serving import save_model, served, start_worker
from tests.integration.test_long_forecasts import SMALL, ask, done, lines_of, means, settings_in


def ended_by_another(client: httpx.Client, here: str, settings: Settings, stop: threading.Event) -> dict[str, Any]:
    """Return the last line of a job that another worker goes on with, until it has ended."""
    stop.clear()
    worker = threading.Thread(target=work, args=(settings, "second", stop), daemon=True)
    worker.start()
    end: dict[str, Any] = lines_of(client, here)[-1]
    stop.set()
    worker.join(60)
    return end


def test_a_killed_job_goes_on_and_comes_out_to_the_last_bit(toy_store: str, tmp_path: Path) -> None:
    settings = settings_in(tmp_path, toy_store, chunk_steps=16, lease_s=1)
    body = {"horizon": 6000, "metrics": ["events", "total_edges"]}
    with served(settings) as client, ServiceFile(settings.api.service_db) as file:
        here = ask(client, body)
        (job_id,) = [row[0] for row in file.rows("SELECT id FROM jobs")]
        jobs, process = (
            Jobs(file, settings.jobs),
            start_worker("forecasting.job_worker", settings, "first", log_level=30),
        )
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
        end = ended_by_another(client, here, settings, stop)
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
        end = ended_by_another(client, here, settings, stop)
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
        with plain_http.Client(base_url=address, timeout=60) as client:
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
