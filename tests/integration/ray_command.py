"""`graphtide serve --engine ray` as a command of its own on a cluster of this process, and what runs there."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from infra.settings import Settings

REPLICA, CONTROLLER = "ray::ServeReplica:graphtide", "ray::ServeController"
# On two busy cores the controller, a proxy and two replicas, which import torch, take minutes.
START_S = 240.0
END_S = 60.0


@dataclass
class Command:
    """A `graphtide serve` that runs."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def address(self) -> str:
        until_s = time.monotonic() + START_S
        while time.monotonic() < until_s:
            for line in self.log.read_text().splitlines():
                if line.startswith("Serving "):
                    return line.partition(" on ")[2].partition(";")[0]
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.1)
        pytest.fail(f"it did not start: {self.log.read_text()}")


@contextmanager
def begun(settings: Settings, log: Path, flags: Sequence[str]) -> Iterator[Command]:
    """Yield a command that was begun, and end it if it still runs: one that is left would slow down what follows."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRAPHTIDE_")}
    chosen = {
        "STORE__URL": settings.store.url,
        "MODELS__DIRECTORY": settings.models.directory,
        "API__SERVICE_DB": settings.api.service_db,
        "API__POLL_INTERVAL_S": settings.api.poll_interval_s,
        "API__DEADLINE_S": settings.api.deadline_s,
        "API__PORT": 0,
        "JOBS__WORKERS": 1,
        "RAY__OBJECT_STORE_MB": 80,
        "RAY_SERVE__REQUESTS": 2,
        "RAY_SERVE__SCALE_OUT_S": 0,
        "RAY_SERVE__SCALE_IN_S": 2,
    }
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    with log.open("wb") as written:
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"{code}\nfrom forecasting.cli import main; main()",
                "serve",
                "--engine",
                "ray",
                *flags,
            ],
            cwd=log.parent,
            env=environment
            | {f"GRAPHTIDE_{name}": str(value) for name, value in chosen.items()}
            # One that is killed leaves its folder.
            | {"TMPDIR": str(log.parent)},
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
        )
    try:
        yield Command(process, log)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def rays(title: str, under: int | None = None) -> set[int]:
    """Return the processes of the cluster that call themselves so, or of that of a command."""
    found = set()
    for process in psutil.Process(under).children(recursive=True):
        try:
            if " ".join(process.cmdline()).startswith(title):
                found.add(process.pid)
        except psutil.Error:
            continue
    return found


def wait_for(what: str, is_so: Callable[[], bool], timeout_s: float = 90.0) -> None:
    until_s = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < until_s, what
        time.sleep(0.1)
