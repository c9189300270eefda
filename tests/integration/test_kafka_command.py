"""The command line around a real broker: ingestion, dead letters, the copy of a store, erasure."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from kafka import KafkaConsumer, TopicPartition

from forecasting.bench.servers.base import free_port
from infra.steps import format_time
from stream.sources.kafka.options import Connection
from stream.sources.kafka.sender import KafkaSender
from tests.conftest import Ran
from tests.servers.kafka import KafkaServer

Cli = Callable[..., Ran]
HOUR_US = 3_600_000_000


def event(hour: float, src: str = "alice", dst: str = "bob") -> bytes:
    return json.dumps({"graph": "town", "src": src, "dst": dst, "ts": format_time(int(hour * HOUR_US))}).encode()


BAD = b'{"graph": "town", "src": "mallory"'
VALUES = [event(490_000), event(490_001.5, "carol"), BAD, event(490_004), event(490_000.2, "late"), event(490_005)]


@pytest.fixture
def topic(kafka: KafkaServer) -> str:
    name = kafka.create_topic(partitions=2)
    with KafkaSender(Connection(bootstrap_servers=kafka.bootstrap_servers)) as sender:
        for value in VALUES:
            sender.send(name, value, partition=1)
        sender.send(name, event(490_006), partition=0)
        sender.flush()
    return name


def call(kafka: KafkaServer, topic: str, *more: str) -> list[str]:
    return ["ingest", "kafka", "--bootstrap-servers", kafka.bootstrap_servers, "--topics", topic, *more]


@pytest.mark.parametrize("client", ["kafka-python", "confluent"])
def test_a_topic_becomes_snapshots_and_a_second_call_goes_on(
    graphtide: Cli, kafka: KafkaServer, topic: str, client: str
) -> None:
    ran = graphtide(*call(kafka, topic, "--client", client, "--close-at-end", "--json"))
    assert ran.code == 0, ran.err
    summary = json.loads(ran.out)
    assert (summary["events"], summary["late"], summary["rejected"], summary["ended"]) == (6, 1, 1, False)
    (graph,) = summary["graphs"]
    assert (graph["graph"], graph["snapshots"], graph["events"]) == ("town", 7, 5)
    with KafkaSender(Connection(bootstrap_servers=kafka.bootstrap_servers)) as sender:
        sender.send(topic, event(490_008), partition=0)
        sender.send(topic, event(490_009), partition=1)
        sender.flush()
    again = json.loads(graphtide(*call(kafka, topic, "--client", client, "--close-at-end", "--json")).out)
    assert (again["events"], again["graphs"][0]["events"], again["graphs"][0]["snapshots"]) == (8, 7, 10)


def test_dead_letters_are_listed_delivered_and_sent_again(
    graphtide: Cli, kafka: KafkaServer, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = kafka.create_topic()
    monkeypatch.setenv("GRAPHTIDE_DEAD_LETTERS__TARGET", f"topic:{dead}")
    assert graphtide(*call(kafka, topic)).code == 0
    letters = [json.loads(line) for line in graphtide("deadletters", "list", "--json").out.splitlines()]
    assert [(each["topic"], each["partition"], each["offset"]) for each in letters] == [(topic, 1, 2), (topic, 1, 4)]
    assert letters[0]["value"] == BAD.decode()
    assert letters[0]["stage"] == "VALUE_CONVERTER"
    assert letters[1]["reason"] == "late: its step had closed before it came"
    assert all(each["delivered"] for each in letters)
    shown = graphtide("deadletters", "list").out
    assert topic in shown
    assert "late: its step" in shown

    consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap_servers, auto_offset_reset="earliest")
    consumer.assign([TopicPartition(dead, 0)])
    found = [record for records in consumer.poll(timeout_ms=10_000).values() for record in records]
    consumer.close()
    assert [record.value for record in found] == [BAD, VALUES[4]]
    headers = dict(found[0].headers)
    assert headers["__connect.errors.topic"] == topic.encode()
    assert (headers["__connect.errors.partition"], headers["__connect.errors.offset"]) == (b"1", b"2")

    number = str(letters[1]["number"])
    ran = graphtide("deadletters", "replay", number, "--bootstrap-servers", kafka.bootstrap_servers)
    assert (ran.code, ran.err.strip()) == (0, "Sent the records of 1 dead letters again.")
    assert json.loads(graphtide(*call(kafka, topic, "--json")).out)["events"] == 7
    ran = graphtide("deadletters", "replay", number, "--bootstrap-servers", kafka.bootstrap_servers)
    assert "no dead letters to send" in ran.err


def test_a_file_may_take_them(graphtide: Cli, kafka: KafkaServer, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHTIDE_DEAD_LETTERS__TARGET", "file:dead/letters.ndjson")
    assert graphtide(*call(kafka, topic)).code == 0
    lines = Path("dead/letters.ndjson").read_text().splitlines()
    assert [json.loads(line)["offset"] for line in lines] == [2, 4]


def test_a_target_that_is_missing_holds_nothing_up(
    graphtide: Cli, kafka: KafkaServer, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHTIDE_DEAD_LETTERS__TARGET", "file:/proc/no/letters.ndjson")
    monkeypatch.setenv("GRAPHTIDE_DEAD_LETTERS__DRAIN_S", "0.2")
    ran = graphtide(*call(kafka, topic))
    assert ran.code == 0
    assert "they wait in the store" in ran.err
    assert "/proc/no" in ran.err


def test_a_store_is_copied_verified_and_a_node_erased(
    graphtide: Cli, kafka: KafkaServer, topic: str, postgres_url: str
) -> None:
    assert graphtide(*call(kafka, topic, "--close-at-end", "--store", "sqlite:///a.db")).code == 0
    ran = graphtide("store", "copy", "sqlite:///a.db", postgres_url)
    assert (ran.code, ran.err.strip()) == (0, "Copied 1 graphs with 7 snapshots.")
    ran = graphtide("store", "verify", "sqlite:///a.db", postgres_url)
    assert ran.code == 0
    assert ran.out.startswith("town: 7 snapshots, equal, sha256 ")
    # Ingestion goes on from the copy, and the two differ from then on.
    with KafkaSender(Connection(bootstrap_servers=kafka.bootstrap_servers)) as sender:
        sender.send(topic, event(490_009), partition=0)
        sender.flush()
    assert graphtide(*call(kafka, topic, "--close-at-end", "--store", postgres_url)).code == 0
    ran = graphtide("store", "verify", "sqlite:///a.db", postgres_url, "--json")
    assert ran.code == 1
    assert json.loads(ran.out)[0]["difference"]

    before = graphtide("snapshots", "town", "--format", "csv", "--store", postgres_url).out
    ran = graphtide("erase", "town", "late", "--store", postgres_url)
    assert ran.code == 0
    assert "1 dead letters" in ran.err
    assert "no node" in graphtide("erase", "town", "nobody", "--store", postgres_url).err
    assert graphtide("erase", "tow", "carol", "--store", postgres_url).code == 1
    assert graphtide("erase", "town", "carol", "--store", postgres_url).err.startswith("Erased")
    assert graphtide("snapshots", "town", "--format", "csv", "--store", postgres_url).out == before


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((), "no topic is named"),
        (("--topics", "t", "--follow", "--close-at-end"), "--close-at-end needs an end"),
        (("--topics", "t", "--group", "g", "--close-at-end"), "other processes of the group"),
        (("--topics", "t", "--client", "pigeon"), "pigeon"),
        (("--topics", "t", "--kafka-option", "sasl.password=s3cret"), "is a secret"),
    ],
)
def test_wrong_flags_are_told(graphtide: Cli, flags: tuple[str, ...], said: str) -> None:
    ran = graphtide("ingest", "kafka", *flags)
    assert ran.code == 2
    assert said in ran.err
    assert "s3cret" not in ran.err


def test_a_broker_that_is_down_is_told_in_our_words_alone(tmp_path: Path) -> None:
    # A process of its own: what the libraries log, they log for good.
    (tmp_path / "kafka").mkdir()
    command = [sys.executable, "-c", "from forecasting.cli import main; main()", "ingest", "kafka", "--topics", "t"]
    done = subprocess.run(
        [*command, "--bootstrap-servers", f"127.0.0.1:{free_port()}"],
        cwd=tmp_path, capture_output=True, text=True, timeout=90, check=False,
        env={**os.environ, "GRAPHTIDE_KAFKA__CONNECT_TIMEOUT_S": "1"},
    )  # fmt: skip
    assert done.returncode == 1
    assert "has not answered for 1 s" in done.stderr
    assert not [line for line in done.stderr.splitlines() if " kafka." in line]


def test_a_run_that_closes_nothing_says_why(graphtide: Cli, kafka: KafkaServer) -> None:
    name = kafka.create_topic(partitions=2)
    with KafkaSender(Connection(bootstrap_servers=kafka.bootstrap_servers)) as sender:
        sender.send(name, event(490_000), partition=0)
        sender.send(name, event(490_009), partition=0)
        sender.flush()
    ran = graphtide(*call(kafka, name))
    assert ran.code == 0
    assert "no step is closed yet" in ran.err
    assert "no step is closed yet" not in graphtide(*call(kafka, name, "--close-at-end")).err


def test_flags_of_kafka_do_not_fit_a_file(graphtide: Cli) -> None:
    ran = graphtide("ingest", "log.txt", "--topics", "t")
    assert ran.code == 2
    assert "--topics is for Kafka" in ran.err
