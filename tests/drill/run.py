"""The course of the drill: start two of each, load them, kill one of each a minute, compare with an undisturbed run."""

import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg

from forecasting.bench.servers.base import Server
from infra.schema import METRIC_INDEX
from stream.store import open_reader
from tests.drill.callers import Callers
from tests.drill.town import Town, graph_of
from tests.servers.graphtide import IngestProcess, ServeProcess
from tests.servers.kafka import KafkaServer
from tests.servers.nginx import NginxServer
from tests.servers.postgres import PostgresServer

PARTITIONS = 4
REPLICAS = 2
HISTORY_HOURS = 12
DRAIN_S = 120.0
GROUP = "drill"
INGEST = {
    "GRAPHTIDE_INGEST__BATCH_ROWS": "500",
    # Events have no ids here: one that is read twice counts twice, and shows.
    "GRAPHTIDE_INGEST__DEDUP_WINDOW_S": "0",
}
SERVE = {"GRAPHTIDE_JOBS__WORKERS": "0"}


class Kept:
    """Keeps processes running as an orchestrator does: one that ends is started again at once.

    Attributes:
        killed: how often one was killed here.
        ended: how often one ended by itself.
    """

    def __init__(self, processes: Sequence[Server]) -> None:
        self._processes = processes
        self._locks = [threading.Lock() for _ in processes]
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="orchestrator")
        self.killed = 0
        self.ended = 0

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def kill(self, number: int) -> None:
        """Kill a process with SIGKILL and start it again."""
        with self._locks[number]:
            self._processes[number].kill()
            self.killed += 1
            self._processes[number].start()

    def stop(self) -> None:
        """End the watch, then the processes."""
        self._end.set()
        self._thread.join()
        for process in self._processes:
            process.stop()

    def _watch(self) -> None:
        while not self._end.wait(0.5):
            for process, lock in zip(self._processes, self._locks, strict=True):
                with lock:
                    if not process.running:
                        self.ended += 1
                        process.start()


@contextmanager
def _stopped(kept: Kept) -> Iterator[Kept]:
    try:
        yield kept
    finally:
        kept.stop()


def drill(folder: Path, minutes: float) -> dict[str, Any]:
    """Return what was lost, doubled and refused while one of each process was killed every minute.

    Args:
        folder: for the files of all processes.
        minutes: how long; ingestion and service are killed half a minute apart.
    """
    folder.chmod(0o755)  # PostgreSQL runs as another user
    with ExitStack() as stack:
        kafka = stack.enter_context(KafkaServer(folder / "kafka"))
        postgres = stack.enter_context(PostgresServer(folder / "postgres"))
        store = postgres.create_database()
        topic = kafka.create_topic(partitions=PARTITIONS)
        source = ["--bootstrap-servers", kafka.bootstrap_servers, "--topics", topic, "--step", "1m"]
        # The broker waits for a member that died.
        group = [*source, "--group", GROUP, "--kafka-option", "session.timeout.ms=6000"]
        ingests = [IngestProcess(folder / f"ingest-{n}", store, group, INGEST) for n in range(REPLICAS)]
        file = {"GRAPHTIDE_API__SERVICE_DB": str(folder / "service.db")}
        serves = [ServeProcess(folder / f"serve-{n}", store, SERVE | file) for n in range(REPLICAS)]

        town = Town(kafka.bootstrap_servers, topic, PARTITIONS)
        town.history(HISTORY_HOURS)
        for process in (*ingests, *serves):
            process.start()
        ingestion, service = Kept(ingests), Kept(serves)
        ingestion.start()
        stack.enter_context(_stopped(ingestion))
        service.start()
        stack.enter_context(_stopped(service))
        nginx = stack.enter_context(NginxServer(folder / "nginx", [serve.port for serve in serves]))
        graphs = [graph_of(partition) for partition in range(PARTITIONS)]
        _wait_for(lambda: _read(store) >= town.sent, "the history was not read")
        callers = Callers(nginx.url, graphs)
        town.start()
        callers.start()
        begin_s = time.monotonic()
        try:
            for number in range(int(2 * minutes)):
                time.sleep(max(0.0, begin_s + 30 * (number + 1) - time.monotonic()))
                (ingestion, service)[number % 2].kill(number // 2 % REPLICAS)
            time.sleep(15)
        finally:
            callers.end()
            town.end()
        _wait_for(lambda: _read(store) >= town.sent, "events were lost")
        ingestion.stop()
        undisturbed = f"sqlite:///{folder / 'undisturbed.db'}"
        _ingest_alone(folder, undisturbed, source)
        ours, theirs = _snapshots(store), _snapshots(undisturbed)
        asked = callers.summary()
        read = _read(store)
        counted = sum(events for _, _, events in ours.values())
        expected = sum(events for _, _, events in theirs.values())
        return {
            "minutes": minutes,
            "killed": {"ingest": ingestion.killed, "serve": service.killed},
            "ended_by_themselves": {"ingest": ingestion.ended, "serve": service.ended},
            "events": {
                "sent": town.sent,
                "read": read,
                "counted_in_closed_steps": counted,
                "counted_undisturbed": expected,
                "steps": sum(len(steps) for steps, _, _ in ours.values()),
            },
            "snapshots_equal_to_an_undisturbed_run": ours == theirs,
            "forecasts": asked | {"asked_again_elsewhere_by_nginx": _repeated(nginx)},
            "passed": ours == theirs and read == town.sent and asked["failed"] == 0,
        }


def _read(store: str) -> int:
    """Return how many events were read, whether they count or are late."""
    with psycopg.connect(store) as connection:
        row = connection.execute("SELECT coalesce(sum(events), 0) FROM partitions").fetchone()
    return int(row[0]) if row else 0


def _wait_for(condition: Any, otherwise: str) -> None:
    until_s = time.monotonic() + DRAIN_S
    while not condition():
        if time.monotonic() > until_s:
            raise AssertionError(otherwise)
        time.sleep(0.5)


def _ingest_alone(folder: Path, store: str, source: Sequence[str]) -> None:
    process = IngestProcess(folder / "alone", store, (), INGEST)
    call = [process.command()[0], "ingest", "kafka", *source, "--store", store]
    done = subprocess.run(call, env=process.environment(), cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _snapshots(store: str) -> dict[str, tuple[list[int], bytes, int]]:
    """Return steps, metrics and the number of events of every graph."""
    found = {}
    with open_reader(store) as reader:
        for info in reader.graphs():
            table = reader.snapshots(info.name)
            events = int(table.values[:, METRIC_INDEX["events"]].sum())
            found[info.name] = (table.step_start_us.tolist(), table.values.tobytes(), events)
    return found


def _repeated(nginx: NginxServer) -> int:
    """Return how many requests nginx has asked a second process for."""
    return sum("," in line.split(" HTTP")[0].split(" GET ")[0] for line in nginx.tries())
