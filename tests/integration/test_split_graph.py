"""One graph in all partitions, fed by several processes of a group over one PostgreSQL store, killed at random."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.steps import HOUR_US, format_time
from stream.sources.kafka.options import Connection
from stream.sources.kafka.sender import KafkaSender
from stream.store import open_dead_letters, open_reader
from tests.integration.test_chaos import BEGIN_US, metrics_of
from tests.integration.test_consumer_group import LONGEST_WAIT_S, asked, wait_for_all
from tests.servers.kafka import KafkaServer

PARTITIONS = 4
ROUNDS = int(os.environ.get("GRAPHTIDE_GROUP_ROUNDS", "5"))
EVENTS_PER_ROUND = 1200


class Town:
    """Sends events of one graph, and a few of another, to any partition: late ones, twice, and some that are none."""

    def __init__(self, kafka: KafkaServer, topic: str) -> None:
        self._kafka = kafka
        self._topic = topic
        self._draw = random.Random(7)
        self._now_us = BEGIN_US
        self.records = self.bad = 0

    def send(self, events: int) -> None:
        draw = self._draw
        with KafkaSender(Connection(bootstrap_servers=self._kafka.bootstrap_servers)) as sender:
            for number in range(events):
                self._now_us += int(draw.expovariate(1 / 300_000))
                behind_us = draw.choice((0, 0, draw.randrange(200_000_000)))
                value = json.dumps(
                    {
                        "graph": "town" if draw.random() < 0.9 else "village",
                        "src": f"u{int(200 * draw.random() ** 2)}",
                        "dst": f"u{int(200 * draw.random() ** 2)}",
                        "ts": format_time(max(self._now_us - behind_us, BEGIN_US)),
                        "id": f"{self._now_us}-{number}",
                    }
                ).encode()
                if draw.random() < 0.005:
                    value, self.bad = value[:-3], self.bad + 1
                # A copy in the same partition, so that which one counts is told by the log.
                at = draw.randrange(PARTITIONS)
                for _ in range(2 if draw.random() < 0.02 and value.endswith(b"}") else 1):
                    sender.send(self._topic, value, partition=at)
                    self.records += 1
            sender.flush()

    def close(self) -> None:
        """Send an event to each partition so much later that all steps before can close."""
        with KafkaSender(Connection(bootstrap_servers=self._kafka.bootstrap_servers)) as sender:
            for at in range(PARTITIONS):
                value = {"graph": "town", "src": "a", "dst": "b", "ts": format_time(self._now_us + HOUR_US)}
                sender.send(self._topic, json.dumps(value).encode(), partition=at)
                self.records += 1
            sender.flush()


@pytest.mark.timeout(900)
def test_processes_that_share_a_graph_come_to_what_one_comes_to(
    kafka: KafkaServer, postgres_url: str, tmp_path: Path
) -> None:
    topic = kafka.create_topic(partitions=PARTITIONS)
    town, draw = Town(kafka, topic), random.Random(11)
    environment = os.environ | {
        "GRAPHTIDE_INGEST__BATCH_ROWS": "200",
        "GRAPHTIDE_INGEST__OUT_OF_ORDERNESS_S": "5",
        "GRAPHTIDE_INGEST__ALLOWED_LATENESS_S": "60",
        # Nothing but what is read and what is not may hold steps back from being final.
        "GRAPHTIDE_INGEST__IDLE_HOLD_S": "0",
        "GRAPHTIDE_KAFKA__IDLE_TIMEOUT_S": "0",
        "OMP_NUM_THREADS": "1",
    }
    graphtide = str(Path(sys.executable).with_name("graphtide"))
    common = ["--bootstrap-servers", kafka.bootstrap_servers, "--topics", topic, "--step", "1m"]
    # The broker waits for a member that died; short, so that the test is.
    group = ["--group", f"g-{topic}", "--kafka-option", "session.timeout.ms=6000"]
    split = ["--split", "town", "--split", "village"]
    running: list[subprocess.Popen[bytes]] = []

    def start(client: str) -> None:
        log = (tmp_path / "log").open("ab")
        call = [graphtide, "ingest", "kafka", *common, *group, *split, "--client", client, "--follow"]
        running.append(
            subprocess.Popen([*call, "--store", postgres_url], env=environment, cwd=tmp_path, stdout=log, stderr=log)
        )

    def said() -> str:
        return (tmp_path / "log").read_text()[-3000:]

    try:
        start("kafka-python")
        start("confluent")
        for number in range(ROUNDS):
            wait_until_shared(postgres_url, said)
            town.send(EVENTS_PER_ROUND)
            time.sleep(draw.uniform(0.0, 2.0))
            victim = running.pop(draw.randrange(len(running)))
            assert victim.poll() is None, said()
            victim.send_signal(draw.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)))
            victim.wait(30)
            start(("confluent", "kafka-python")[number % 2])
        town.close()
        wait_for_all(postgres_url, town.records - town.bad, said)
        assert all(process.poll() is None for process in running), said()
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(30)
    undisturbed = f"sqlite:///{tmp_path / 'undisturbed.db'}"
    done = subprocess.run(
        [graphtide, "ingest", "kafka", *common, "--store", undisturbed],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with open_reader(postgres_url) as shared, open_reader(undisturbed) as alone:
        assert metrics_of(shared).keys() == {"town", "village"}
        assert metrics_of(shared) == metrics_of(alone)
        assert [info.late for info in shared.graphs()] == [info.late for info in alone.graphs()]
        assert shared.graph("town").late > 0
    assert letters_of(postgres_url) == letters_of(undisturbed)
    fed = (
        "SELECT count(*) FROM feeders JOIN graphs ON graphs.id = graph_id WHERE name = 'town' AND partition_name <> ''"
    )
    assert asked(postgres_url, fed) == PARTITIONS


def wait_until_shared(store: str, said: Callable[[], str]) -> None:
    """Wait until two processes that live read partitions."""
    readers = (
        "SELECT count(DISTINCT owner) FROM partitions WHERE owner IN"
        " (SELECT objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND granted)"
    )
    until_s = time.monotonic() + LONGEST_WAIT_S
    while asked(store, readers) < 2:
        assert time.monotonic() < until_s, said()
        time.sleep(0.2)


def letters_of(store: str) -> list[tuple[object, ...]]:
    """Return where each dead letter stood, and why it is one."""
    with open_dead_letters(store) as letters:
        found = letters.letters(limit=10**6)
    return sorted((each.record.partition, each.record.offset, each.stage, each.reason) for each in found)
