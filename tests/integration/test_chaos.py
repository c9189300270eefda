"""Ingestion from a real broker to a real InfluxDB, killed at random moments, with outages of both mixed in.

`GRAPHTIDE_CHAOS_KILLS` says how many kills, some by default; 100 take some minutes.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.settings import InfluxDBSettings
from infra.steps import format_time
from stream.sources.kafka.options import Connection
from stream.sources.kafka.sender import KafkaSender
from stream.store import open_dead_letters, open_reader
from stream.store.base import SnapshotReader
from tests.servers.influxdb import InfluxDatabase, InfluxDBServer
from tests.servers.kafka import KafkaServer

KILLS = int(os.environ.get("GRAPHTIDE_CHAOS_KILLS", "12"))
EVENTS_PER_KILL = 600
PARTITIONS = 4
BEGIN_US = 1_767_225_600_000_000
LONGEST_RUN_S = 1.6


class Producer:
    """Sends events of several graphs in time order, more or less: some are late, some malformed, some come twice."""

    def __init__(self, kafka: KafkaServer, topic: str, draw: random.Random) -> None:
        self._kafka = kafka
        self.topic = topic
        self._draw = draw
        self._now_us = BEGIN_US
        self._sent = 0
        self.malformed = 0

    def send(self, events: int) -> None:
        draw = self._draw
        with KafkaSender(Connection(bootstrap_servers=self._kafka.bootstrap_servers)) as sender:
            for _ in range(events):
                self._now_us += int(draw.expovariate(1 / 400_000))
                self._sent += 1
                graph = draw.choice(("town", "town", "club"))
                # One graph is spread over partitions, so that their order matters; the other has one for itself.
                partition = draw.randrange(PARTITIONS) if graph == "town" else 1
                behind_us = draw.choice((0, 0, 0, draw.randrange(10_000_000), draw.randrange(400_000_000)))
                value = json.dumps(
                    {
                        "graph": graph,
                        "src": f"u{int(300 * draw.random() ** 2)}",
                        "dst": f"u{int(300 * draw.random() ** 2)}",
                        "ts": format_time(max(self._now_us - behind_us, BEGIN_US)),
                        "id": f"e{self._sent}",
                    }
                ).encode()
                if draw.random() < 0.01:
                    value, self.malformed = value[: draw.randrange(1, len(value) - 1)], self.malformed + 1
                # A producer that tries again sends the same event twice.
                for _ in range(2 if draw.random() < 0.02 and value.endswith(b"}") else 1):
                    sender.send(self.topic, value, partition=partition)
            sender.flush()


class Victims:
    """Starts calls of the command line and kills them."""

    def __init__(self, process: "subprocess.Popen[str]", folder: Path) -> None:
        self._process = process
        self._folder = folder

    def run(self, arguments: Sequence[str], kill_after_s: float | None) -> int:
        """Run a call; kill it after some seconds, or wait for its end; return its exit code."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(list(arguments)) + "\n")
        self._process.stdin.flush()
        pid = int(self._answer().removeprefix("pid "))
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pytest.fail(f"it ended by itself:\n{log_of(self._folder)}")
        return int(self._answer().removeprefix("exit "))

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        assert line, "the driver has died"
        return line


@contextmanager
def victims(folder: Path, settings: dict[str, str]) -> Iterator[Victims]:
    driver = Path(__file__).with_name("ingest_driver.py")
    environment = os.environ | settings | {"PYTHONPATH": str(driver.parents[2]), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, str(driver)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=folder,
    ) as process:
        yield Victims(process, folder)


def metrics_of(reader: SnapshotReader) -> dict[str, tuple[list[int], bytes]]:
    """Return steps and metrics of every graph, but not the revisions, which depend on what was committed together."""
    found = {}
    for info in reader.graphs():
        table = reader.snapshots(info.name)
        found[info.name] = (table.step_start_us.tolist(), table.values.tobytes())
    return found


@pytest.mark.timeout(1800)
def test_killed_at_random_moments_both_stores_end_equal(
    kafka: KafkaServer, influxdb_server: InfluxDBServer, influxdb: InfluxDatabase, tmp_path: Path
) -> None:
    draw = random.Random(2026)
    topic = kafka.create_topic(partitions=PARTITIONS)
    producer = Producer(kafka, topic, draw)
    settings = {
        "GRAPHTIDE_INGEST__BATCH_ROWS": "150",
        "GRAPHTIDE_INGEST__OUT_OF_ORDERNESS_S": "5",
        "GRAPHTIDE_INGEST__ALLOWED_LATENESS_S": "120",
        "GRAPHTIDE_INGEST__DEDUP_WINDOW_S": "600",
        "GRAPHTIDE_INFLUXDB__URL": influxdb.url,
        "GRAPHTIDE_INFLUXDB__ORG": influxdb.org,
        "GRAPHTIDE_INFLUXDB__BUCKET": influxdb.bucket,
        "GRAPHTIDE_INFLUXDB__TOKEN": influxdb.token,
        "GRAPHTIDE_INFLUXDB__MAX_WAIT_S": "1",
        "GRAPHTIDE_INFLUXDB__DRAIN_S": "60",
    }
    url = f"sqlite:///{tmp_path / 'killed.db'}"

    def call(store: str, client: str, *more: str) -> list[str]:
        brokers = ("--bootstrap-servers", kafka.bootstrap_servers, "--topics", topic)
        return ["ingest", "kafka", *brokers, "--step", "1m", "--store", store, "--client", client, *more]

    broker_restarts = outages = 0
    with victims(tmp_path, settings) as processes:
        for kill in range(KILLS):
            producer.send(EVENTS_PER_KILL)
            if influxdb_server.running and draw.random() < 0.15:
                influxdb_server.kill()
                outages += 1
            elif not influxdb_server.running and draw.random() < 0.6:
                influxdb_server.restart()
            client = ("kafka-python", "confluent")[kill % 2]
            processes.run(call(url, client, "--follow"), draw.uniform(0.05, LONGEST_RUN_S))
            if kill % 10 == 7:
                kafka.kill()
                kafka.restart()
                broker_restarts += 1
        if not influxdb_server.running:
            influxdb_server.restart()
        assert processes.run(call(url, "confluent", "--close-at-end"), None) == 0, log_of(tmp_path)
    with victims(tmp_path, settings | {"GRAPHTIDE_INFLUXDB__URL": ""}) as processes:
        undisturbed = f"sqlite:///{tmp_path / 'undisturbed.db'}"
        assert processes.run(call(undisturbed, "kafka-python", "--close-at-end"), None) == 0, log_of(tmp_path)

    with open_reader(undisturbed) as reader:
        expected = metrics_of(reader)
        late = {info.name: info.late for info in reader.graphs()}
    assert set(expected) == {"town", "club"}
    assert all(late.values()), "no event was late"
    with open_reader(url) as reader:
        assert metrics_of(reader) == expected
        assert {info.name: info.late for info in reader.graphs()} == late
        revised = sum(int(reader.snapshots(name).revision.sum()) for name in expected)
    assert revised, "nothing was revised"
    token = InfluxDBSettings(url=influxdb.url, org=influxdb.org, bucket=influxdb.bucket, token=influxdb.token)
    with open_reader(influx_url(influxdb), token) as reader:
        assert metrics_of(reader) == expected
    for store in (url, undisturbed):
        with open_dead_letters(store) as letters:
            found = letters.letters(limit=10**6)
        places = [(letter.record.partition, letter.record.offset) for letter in found if "late" not in letter.reason]
        assert len(places) == len(set(places)) == producer.malformed
    assert len(expected["town"][0]) > KILLS
    print(f"kills {KILLS}, broker restarts {broker_restarts}, InfluxDB outages {outages}, revisions {revised}")  # noqa: T201


def influx_url(database: InfluxDatabase) -> str:
    return f"influxdb://{database.url.removeprefix('http://')}/{database.org}/{database.bucket}"


def log_of(folder: Path) -> str:
    return (folder / "driver.log").read_text(errors="replace")[-3000:]
