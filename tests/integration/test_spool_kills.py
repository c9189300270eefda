"""SIGKILL at random moments of taking and draining events: none is lost, none counts twice."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from stream.spool.file import Spool
from tests.integration.spool_driver import append, drain
from tests.unit.stream.ingest_cases import query, snapshot_rows

N_REQUESTS = 300
KILLS = 25
KILLED = f"exit {-signal.SIGKILL}"


class Driver:
    """One driver process: runs a child at a time, which may be killed."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def run(self, asked: dict[str, object], kill_after_s: float | None = None) -> list[str]:
        """Run a child, killed after so long, and return what it said."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        said = []
        pid = None
        while True:
            assert self._process.stdout is not None
            line = self._process.stdout.readline().strip()
            assert line, "the driver has died"
            said.append(line)
            if line.startswith("pid "):
                pid = int(line.removeprefix("pid "))
                if kill_after_s is not None:
                    time.sleep(kill_after_s)
                    with suppress(ProcessLookupError):  # it has finished already
                        os.kill(pid, signal.SIGKILL)
            if line.startswith("exit "):
                assert line in (KILLED, "exit 0")
                return said


@contextmanager
def driver(spool: Path, store: str, requests: Path) -> Iterator[Driver]:
    program = Path(__file__).with_name("spool_driver.py")
    environment = os.environ | {"PYTHONPATH": str(program.parents[2]), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, str(program), str(spool), store, str(requests)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        yield Driver(process)
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    draw = random.Random(5)
    path = tmp_path / "requests.ndjson"
    hour = 1000.0
    with path.open("w") as file:
        for _ in range(N_REQUESTS):
            events = []
            for _ in range(draw.randint(1, 8)):
                hour += draw.expovariate(4)
                events.append({"src": f"n{draw.randint(0, 40)}", "dst": f"n{draw.randint(0, 40)}", "ts": hour * 3600})
            lines = [json.dumps(event) for event in events] + (["no event"] if draw.random() < 0.1 else [])
            file.write(json.dumps({"graph": draw.choice("ab"), "body": "\n".join(lines)}) + "\n")
    return path


def test_no_kill_loses_or_repeats_an_acknowledged_event(tmp_path: Path, requests: Path) -> None:
    calm, shaken = (tmp_path / name for name in ("calm", "shaken"))
    calm.mkdir()
    shaken.mkdir()
    append(calm / "spool.db", requests, 0)
    drain(calm / "spool.db", f"sqlite:///{calm / 'store.db'}")

    draw = random.Random(9)
    store = f"sqlite:///{shaken / 'store.db'}"
    kept, killed_midway = -1, 0
    done = threading.Event()

    def drain_and_kill() -> int:
        killed = 0
        while not done.is_set():
            killed += drainer.run({"do": "drain"}, draw.uniform(0, 0.12))[-1] == KILLED
        return killed

    with (
        driver(shaken / "spool.db", store, requests) as appender,
        driver(shaken / "spool.db", store, requests) as drainer,
        ThreadPoolExecutor(1) as beside,
    ):
        draining = beside.submit(drain_and_kill)
        try:
            for kill in range(KILLS + 1):
                # Whoever is not told sends the last request again, as a client would.
                said = appender.run(
                    {"do": "append", "from": max(kept, 0)}, draw.uniform(0, 0.4) if kill < KILLS else None
                )
                kept = max([kept, *(int(line.removeprefix("kept ")) for line in said if line.startswith("kept "))])
                killed_midway += said[-1] == KILLED and kept < N_REQUESTS - 1
        finally:
            done.set()
        killed_drains = draining.result()
        assert kept == N_REQUESTS - 1
        assert min(killed_midway, killed_drains) > 0, "no kill came before the end"
        drainer.run({"do": "drain"})
    assert snapshot_rows(shaken / "store.db") == snapshot_rows(calm / "store.db")
    letters = "SELECT topic, partition_number, record_offset, value FROM dead_letters ORDER BY 1, 2, 3"
    assert query(shaken / "store.db", letters) == query(calm / "store.db", letters)
    with Spool(shaken / "spool.db") as spool:
        assert spool.waiting(0, 10) == []
