"""SIGKILL at random moments of an ingest: a run that finishes leaves the store of an undisturbed run."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from stream.store import open_reader
from tests.integration.kill_driver import BATCH_ROWS, ingest_log

N_EVENTS = 5_000
KILLS = 25


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return a log of two graphs: some months by the hour, with gaps, repeats, self-loops and bad records."""
    draw = random.Random(11)
    path = tmp_path / "events.ndjson"
    ts = 1_600_000_000.0
    with path.open("w") as file:
        for number in range(N_EVENTS):
            ts += draw.expovariate(1 / 1000) * draw.choice((0, 1, 1, 6))
            src, dst = (f"user{int(400 * draw.random() ** 2)}" for _ in range(2))
            event = {"graph": draw.choice("ab"), "type": draw.choice(("reply", "like")), "src": src, "dst": dst}
            file.write(json.dumps(event | {"ts": int(ts)}) + "\n")
            if number % 1000 == 500:
                file.write(json.dumps(event) + "\n")
    return path


class Victims:
    """Ingests to kill, one after the other."""

    def __init__(self, server: "subprocess.Popen[str]") -> None:
        self._server = server

    def kill_one(self, store: Path, delay_s: float, *, from_start: bool) -> None:
        """Start an ingest and kill it `delay_s` after it began to read, or after its start."""
        assert self._server.stdin is not None
        self._server.stdin.write(f"{store}\n")
        self._server.stdin.flush()
        said: list[str] = []
        awaited = ("pid",) if from_start else ("pid", "reading")
        while not all(any(line.startswith(word) for line in said) for word in awaited):
            said.append(self._answer())
            assert said[-1] != "exit 1", "the ingest failed"
        (pid,) = (int(line.removeprefix("pid ")) for line in said if line.startswith("pid "))
        time.sleep(delay_s)
        with suppress(ProcessLookupError):  # it has finished already
            os.kill(pid, signal.SIGKILL)
        while not said[-1].startswith("exit"):
            said.append(self._answer())
        assert said[-1] in (f"exit {-signal.SIGKILL}", "exit 0")

    def _answer(self) -> str:
        assert self._server.stdout is not None
        line = self._server.stdout.readline().strip()
        assert line, "the driver has died"
        return line


@contextmanager
def victims(log: Path) -> Iterator[Victims]:
    driver = Path(__file__).with_name("kill_driver.py")
    environment = os.environ | {"PYTHONPATH": str(driver.parents[2]), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, str(driver), str(log)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as server:
        yield Victims(server)


def query(store: Path, sql: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(f"file:{store}?mode=ro", uri=True)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def dump(store: Path) -> dict[str, list[tuple[object, ...]]]:
    """Return every row of every table, sorted, but the numbers of the writers, which count processes."""
    rows = {}
    for (table,) in query(
        store, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'writer' AND name NOT LIKE 'sqlite_%'"
    ):
        names = [str(row[1]) for row in query(store, f"PRAGMA table_info({table})") if row[1] != "owner"]
        rows[str(table)] = sorted(query(store, f"SELECT {', '.join(names)} FROM {table}"), key=repr)
    return rows


def progress(store: Path) -> tuple[int, bool]:
    """Return how many events are committed and whether the source ended; what is committed must be readable."""
    if not store.exists() or not query(store, "SELECT 1 FROM sqlite_schema"):
        return 0, False
    ((events, ended),) = query(store, "SELECT ifnull(sum(events), 0), max(ended) FROM partitions, sources")
    with open_reader(f"sqlite:///{store}") as reader:
        for graph in reader.graphs():
            assert len(reader.snapshots(graph.name, metrics=("events",))) == graph.snapshots
    return int(str(events)), bool(ended)


def test_killed_at_random_moments_the_store_ends_equal(log: Path, tmp_path: Path) -> None:
    began_s = time.monotonic()
    ingest_log(log, tmp_path / "undisturbed.db")
    whole_s = time.monotonic() - began_s
    expected = dump(tmp_path / "undisturbed.db")
    assert len(expected["snapshots"]) > N_EVENTS

    draw = random.Random(25)
    stores, landed_midway = [tmp_path / "killed-0.db"], 0
    with victims(log) as processes:
        for kill in range(KILLS):
            delay_s = draw.uniform(0, 2 * whole_s / KILLS)
            processes.kill_one(stores[-1], delay_s, from_start=kill % 5 == 0)
            committed, ended = progress(stores[-1])
            assert committed % BATCH_ROWS == 0
            landed_midway += 0 < committed < N_EVENTS
            if ended:
                stores.append(tmp_path / f"killed-{len(stores)}.db")
    assert landed_midway >= KILLS // 2

    for store in stores:
        ingest_log(log, store)
        assert dump(store) == expected
