"""Several ingest processes of one group share the partitions of a topic and one PostgreSQL store."""

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

from infra.steps import HOUR_US, MINUTE_US, format_time
from stream.sources.kafka.options import Connection
from stream.sources.kafka.sender import KafkaSender
from stream.store import open_dead_letters, open_reader
from tests.integration.test_chaos import BEGIN_US, metrics_of
from tests.servers.kafka import KafkaServer

PARTITIONS = 4
ROUNDS = int(os.environ.get("GRAPHTIDE_GROUP_ROUNDS", "5"))
EVENTS_PER_ROUND = 1200
LONGEST_WAIT_S = 90.0


class Town:
    """Sends events of a graph for each partition, keyed by graph as producers should."""

    def __init__(self, kafka: KafkaServer, topic: str) -> None:
        self._kafka = kafka
        self._topic = topic
        self._draw = random.Random(7)
        self._now_us = BEGIN_US
        self.bad = 0

    def send(self, events: int) -> None:
        draw = self._draw
        with KafkaSender(Connection(bootstrap_servers=self._kafka.bootstrap_servers)) as sender:
            for _ in range(events):
                self._now_us += int(draw.expovariate(1 / 300_000))
                at = draw.randrange(PARTITIONS)
                behind_us = draw.choice((0, 0, draw.randrange(200_000_000)))
                value = json.dumps(
                    {
                        "graph": f"town{at}",
                        "src": f"u{int(200 * draw.random() ** 2)}",
                        "dst": f"u{int(200 * draw.random() ** 2)}",
                        "ts": format_time(max(self._now_us - behind_us, BEGIN_US)),
                    }
                ).encode()
                if draw.random() < 0.005:
                    value, self.bad = value[:-3], self.bad + 1
                sender.send(self._topic, value, partition=at)
            sender.flush()

    def close(self) -> None:
        """Send an event to each partition so much later that all steps before can close."""
        with KafkaSender(Connection(bootstrap_servers=self._kafka.bootstrap_servers)) as sender:
            for at in range(PARTITIONS):
                value = {"graph": f"town{at}", "src": "a", "dst": "b", "ts": format_time(self._now_us + HOUR_US)}
                sender.send(self._topic, json.dumps(value).encode(), partition=at)
            sender.flush()


@pytest.mark.timeout(900)
def test_processes_share_hand_over_and_lose_nothing(kafka: KafkaServer, postgres_url: str, tmp_path: Path) -> None:
    topic = kafka.create_topic(partitions=PARTITIONS)
    town, draw = Town(kafka, topic), random.Random(11)
    environment = os.environ | {
        "GRAPHTIDE_INGEST__BATCH_ROWS": "200",
        "GRAPHTIDE_INGEST__OUT_OF_ORDERNESS_S": "5",
        "GRAPHTIDE_INGEST__ALLOWED_LATENESS_S": "60",
        "OMP_NUM_THREADS": "1",
    }
    graphtide = str(Path(sys.executable).with_name("graphtide"))
    common = ["--bootstrap-servers", kafka.bootstrap_servers, "--topics", topic, "--step", "1m"]
    # The broker waits for a member that died; short, so that the test is.
    group = ["--group", f"g-{topic}", "--kafka-option", "session.timeout.ms=6000"]
    running: list[subprocess.Popen[bytes]] = []

    def start(client: str) -> None:
        log = (tmp_path / "log").open("ab")
        call = [graphtide, "ingest", "kafka", *common, *group, "--client", client, "--follow", "--store", postgres_url]
        running.append(subprocess.Popen(call, env=environment, cwd=tmp_path, stdout=log, stderr=log))

    def said() -> str:
        return (tmp_path / "log").read_text()[-3000:]

    try:
        start("kafka-python")
        for number in range(ROUNDS):
            town.send(EVENTS_PER_ROUND)
            start(("confluent", "kafka-python")[number % 2])
            time.sleep(draw.uniform(1.0, 4.0))
            # Half of them die without a word, the others are told to stop and hand over.
            victim = running.pop(draw.randrange(len(running)))
            assert victim.poll() is None, said()
            victim.send_signal(draw.choice((signal.SIGKILL, signal.SIGTERM)))
            victim.wait(30)
        # Whoever is left reads all of it.
        town.close()
        wait_for_all(postgres_url, EVENTS_PER_ROUND * ROUNDS - town.bad + PARTITIONS, said)
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
    with (
        open_reader(postgres_url) as shared,
        open_reader(undisturbed) as alone,
    ):
        ours, theirs = metrics_of(shared), metrics_of(alone)
        assert set(ours) == set(theirs) == {f"town{at}" for at in range(PARTITIONS)}
        for name, (steps, values) in theirs.items():
            assert ours[name] == (steps, values), f"{name} differs"
            assert steps[1] - steps[0] == MINUTE_US
    with open_dead_letters(postgres_url) as letters:
        found = letters.letters(limit=10**6)
    bad = [(each.record.partition, each.record.offset) for each in found if "late" not in each.reason]
    assert len(bad) == len(set(bad)) == town.bad


def wait_for_all(store: str, events: int, said: Callable[[], str]) -> None:
    """Wait until every event has been read, whether it counts or is late."""
    until_s = time.monotonic() + LONGEST_WAIT_S
    while (read := asked(store, "SELECT coalesce(sum(events), 0) FROM partitions")) < events:
        assert time.monotonic() < until_s, said()
        time.sleep(0.3)
    assert read == events, said()


def asked(store: str, sql: str) -> int:
    """Return the number that a query of a PostgreSQL store gives; 0 where there are no tables yet."""
    import psycopg  # noqa: PLC0415 - only here is a table asked, whose form is the store's affair

    with psycopg.connect(store) as connection:
        try:
            row = connection.execute(sql).fetchone()  # type: ignore[call-overload]
        except psycopg.errors.UndefinedTable:
            return 0
    return int(row[0]) if row else 0
