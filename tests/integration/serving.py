"""A forecast service for tests: real sockets, a small model whose weights were never trained."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from forecasting.api.app import build
from forecasting.history import read_history
from forecasting.training import checkpoint_folder, describe
from infra.settings import Settings
from models import checkpoint
from models.calibration import Calibration
from models.forecaster import ForecasterConfig, ForecasterNet
from models.ranks import default_structure, structure_json
from models.seasons import season_steps
from stream.store import open_reader
from tests import plain_http

START_TIMEOUT_S = 60
SMALL = ForecasterConfig(d_model=16, n_layers=1, d_state=8, headdim=16)


def save_model(store: str, graph: str, models: Path, *, seed: int = 3) -> checkpoint.Checkpoint:
    """Keep a model with random weights for a graph: its forecasts are poor, and hold every invariant."""
    with open_reader(store) as reader:
        history = read_history(reader, graph)
    season = season_steps(history.step_us)
    card = {
        "name": "mamba2",
        "data": [describe(history, graph)],
        "seed": seed,
        "scores": {},
        "season_steps": season,
        "ranks": structure_json(default_structure(season)),
        "calibration": Calibration.none().to_json(),
    }
    return checkpoint.save(checkpoint_folder(models, graph), ForecasterNet(SMALL, seed=seed), card)


def service_settings(store: str, folder: Path, **sections: Mapping[str, Any]) -> Settings:
    """Return settings of a service that keeps what it writes in `folder` and looks for news often."""
    api = {"service_db": folder / "service.db", "poll_interval_s": 0.05, "deadline_s": 60, **sections.pop("api", {})}
    models = {"directory": folder / "models", **sections.pop("models", {})}
    return Settings(store={"url": store}, api=api, models=models, **sections)  # type: ignore[arg-type]


@contextmanager
def served(settings: Settings) -> Iterator[httpx.Client]:
    """Yield a client of a service that runs in this process, on a port of its own."""
    config = uvicorn.Config(
        build(settings), port=0, log_config=None, access_log=False, lifespan="on", timeout_graceful_shutdown=5
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        waiting = threading.Event()
        for _ in range(START_TIMEOUT_S * 100):
            if server.started or not thread.is_alive():
                break
            waiting.wait(0.01)
        assert server.started, "the service did not start"
        port = server.servers[0].sockets[0].getsockname()[1]
        with plain_http.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(START_TIMEOUT_S)
        assert not thread.is_alive(), "the service did not stop"


def problem(response: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    """Make sure that an answer is a problem of that status and kind; return it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    document: dict[str, Any] = response.json()
    assert (document["status"], document["type"]) == (status, f"urn:graphtide:problem:{kind}")
    assert document["title"]
    assert document["detail"]
    assert "Traceback" not in response.text
    return document


def write_events(path: Path, hours: range) -> Path:
    """Write a log of one event an hour."""
    lines = [{"src": f"n{hour % 7}", "dst": f"n{hour % 3}", "ts": 1_600_000_000 + 3600 * hour} for hour in hours]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def start_worker(module: str, settings: Settings, name: str, *, log_level: int) -> "subprocess.Popen[bytes]":
    """Return a worker process, `forecasting.job_worker` or `forecasting.report_worker`, that was told what to do."""
    process = subprocess.Popen([sys.executable, "-m", module], stdin=subprocess.PIPE)
    assert process.stdin is not None
    told = {"worker": name, "log_level": log_level, "settings": settings.model_dump(mode="json")}
    process.stdin.write(json.dumps(told).encode() + b"\n")
    process.stdin.flush()
    return process
