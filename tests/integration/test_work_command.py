"""`graphtide work`: what a service without workers queues is computed beside it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.conftest import Ran
from tests.integration.serving import save_model, served, service_settings

WAIT_S = 60.0


def test_a_queued_forecast_is_computed_beside_the_service(toy_store: str, tmp_path: Path) -> None:
    save_model(toy_store, "toy", tmp_path / "models")
    environment = os.environ | {
        "GRAPHTIDE_API__SERVICE_DB": str(tmp_path / "service.db"),
        "GRAPHTIDE_MODELS__DIRECTORY": str(tmp_path / "models"),
        "GRAPHTIDE_JOBS__WHEN_IDLE": "false",
    }
    command = [str(Path(sys.executable).with_name("graphtide")), "work", "--workers", "1", "--store", toy_store]
    with served(service_settings(toy_store, tmp_path)) as client:
        job = client.post("/v1/graphs/toy/forecasts", json={"horizon": 600}).headers["location"]
        assert client.get(job).json()["status"] == "queued"
        with subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
            try:
                until_s = time.monotonic() + WAIT_S
                while client.get(job).json()["status"] != "done":
                    assert process.poll() is None, "it ended by itself"
                    assert time.monotonic() < until_s, client.get(job).json()
                    time.sleep(0.1)
            finally:
                process.send_signal(signal.SIGTERM)
            assert process.wait(WAIT_S) == 128 + signal.SIGTERM
            assert process.stderr is not None
            assert "Working off" in process.stderr.read()


def test_no_process_is_wrong_usage(graphtide: Callable[..., Ran]) -> None:
    ran = graphtide("work", "--workers", "0")
    assert ran.code == 2
    assert "--workers" in ran.err
    assert "fix:" in ran.err
