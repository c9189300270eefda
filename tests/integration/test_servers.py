"""The servers of the integration tests really serve, and keep what they acknowledged over a crash."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.client.write.point import Point
from influxdb_client.client.write_api import SYNCHRONOUS
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from forecasting.bench.servers.base import MissingServerError, Server, ServerFailedError
from tests.servers.influxdb import InfluxDatabase, InfluxDBServer
from tests.servers.kafka import KafkaServer
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer

ROOT = Path(__file__).parents[2]


def produce(kafka: KafkaServer, topic: str, *values: bytes) -> None:
    """Write values to partitions 0, 1, 0, 1, ... and wait for the broker's word on each."""
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap_servers, acks="all")
    try:
        for sent in [producer.send(topic, value, partition=number % 2) for number, value in enumerate(values)]:
            sent.get(timeout=30)
    finally:
        producer.close()


def consume(kafka: KafkaServer, topic: str) -> dict[int, list[bytes]]:
    """Read both partitions up to their ends."""
    consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap_servers, auto_offset_reset="earliest", group_id=None)
    try:
        partitions = [TopicPartition(topic, number) for number in (0, 1)]
        consumer.assign(partitions)
        ends = consumer.end_offsets(partitions)
        read: dict[int, list[bytes]] = {0: [], 1: []}
        while any(consumer.position(partition) < ends[partition] for partition in partitions):
            for partition, records in consumer.poll(timeout_ms=500).items():
                read[partition.partition] += [record.value for record in records]
        return read
    finally:
        consumer.close()


def test_kafka_keeps_what_it_acknowledged_over_a_kill(kafka: KafkaServer) -> None:
    topic = kafka.create_topic(partitions=2)
    produce(kafka, topic, b"a", b"b", b"c")
    address, pid = kafka.bootstrap_servers, kafka.pid
    kafka.kill()
    assert not psutil.pid_exists(pid)
    kafka.restart()
    assert kafka.bootstrap_servers == address
    produce(kafka, topic, b"d", b"e")
    assert consume(kafka, topic) == {0: [b"a", b"c", b"d"], 1: [b"b", b"e"]}


def test_kafka_that_is_paused_says_nothing_and_goes_on_when_resumed(kafka: KafkaServer) -> None:
    topic = kafka.create_topic(partitions=2)
    kafka.pause()
    assert not kafka.answers(timeout_s=0.5)
    assert kafka.running
    kafka.resume()
    produce(kafka, topic, b"a")
    assert consume(kafka, topic)[0] == [b"a"]


def test_kafka_makes_no_topic_by_itself_and_forgets_a_deleted_one(kafka: KafkaServer) -> None:
    topic = kafka.create_topic()
    kafka.delete_topic(topic)
    consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap_servers, group_id=None)
    try:
        assert topic not in consumer.topics()
    finally:
        consumer.close()


def counts(influxdb: InfluxDatabase) -> list[tuple[str, int]]:
    with InfluxDBClient(influxdb.url, influxdb.token, influxdb.org, timeout=30_000) as client:
        flux = f'from(bucket: "{influxdb.bucket}") |> range(start: 0) |> filter(fn: (r) => r._field == "nodes")'
        tables = client.query_api().query(flux)
    return sorted((record["graph"], record.get_value()) for table in tables for record in table.records)


def write(influxdb: InfluxDatabase, graph: str, nodes: int) -> None:
    with InfluxDBClient(influxdb.url, influxdb.token, influxdb.org, timeout=30_000) as client:
        point = Point("snapshot").tag("graph", graph).field("nodes", nodes).time(1_600_000_000_000_000_000)
        client.write_api(write_options=SYNCHRONOUS).write(influxdb.bucket, influxdb.org, point)


def test_influxdb_keeps_points_over_a_kill(influxdb: InfluxDatabase) -> None:
    assert counts(influxdb) == []
    write(influxdb, "a", 3)
    influxdb.server.kill()
    influxdb.server.restart()
    write(influxdb, "b", 4)
    assert counts(influxdb) == [("a", 3), ("b", 4)]


def test_postgres_keeps_commits_over_a_kill_and_loses_what_was_open(
    postgres_url: str, postgres_server: PostgresServer
) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE kept (number int)")
        connection.execute("INSERT INTO kept VALUES (1)")
    open_transaction = psycopg.connect(postgres_url)
    open_transaction.execute("INSERT INTO kept VALUES (2)")
    postgres_server.kill()
    with pytest.raises(psycopg.OperationalError):
        open_transaction.commit()
    postgres_server.restart()
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT number FROM kept").fetchall() == [(1,)]


def test_postgres_that_is_paused_keeps_old_connections_waiting_too(
    postgres_url: str, postgres_server: PostgresServer
) -> None:
    with psycopg.connect(postgres_url) as connection:
        postgres_server.pause()
        stopped = [member.status() for member in psutil.Process(postgres_server.pid).children()]
        # A worker that had ended is not reaped by a parent that has stopped.
        assert set(stopped) <= {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE}
        assert stopped.count(psutil.STATUS_STOPPED) > 1
        postgres_server.resume()
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_redis_answers_and_keeps_what_it_acknowledged_over_a_kill(redis_url: str, redis_server: RedisServer) -> None:
    client = redis.Redis.from_url(redis_url)
    assert client.ping()
    assert client.dbsize() == 0
    client.set("key", "value")
    redis_server.kill()
    with pytest.raises(redis.ConnectionError):
        client.ping()
    redis_server.restart()
    assert client.get("key") == b"value"
    client.close()


@contextmanager
def redis_of_another_process(folder: Path) -> Iterator[tuple["subprocess.Popen[str]", psutil.Process]]:
    """Start a Redis from a process that then waits for its input to end."""
    program = (
        "import sys; from pathlib import Path; from tests.servers.redis import RedisServer\n"
        f"server = RedisServer(Path({str(folder)!r})).start(); print(server.pid, flush=True); sys.stdin.read()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert owner.stdout is not None
        yield owner, psutil.Process(int(owner.stdout.readline()))
    finally:
        owner.kill()
        owner.communicate()


def test_no_server_outlives_tests_that_are_killed(redis_server: RedisServer, tmp_path: Path) -> None:
    with redis_of_another_process(tmp_path) as (owner, server):
        assert server.is_running()
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        server.wait(timeout=30)


def test_a_server_that_is_killed_and_not_restarted_is_back_for_the_next_test(redis_server: RedisServer) -> None:
    for harm in (redis_server.kill, redis_server.stop, redis_server.pause):
        harm()
        redis_server.heal()
        assert redis_server.answers(timeout_s=5)


def test_a_server_does_not_take_another_on_its_port_for_itself(redis_server: RedisServer, tmp_path: Path) -> None:
    second = RedisServer(tmp_path)
    second.port = redis_server.port
    with pytest.raises(ServerFailedError, match=f"127.0.0.1:{second.port} already"):
        second.start()
    assert not second.running


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "appendonlydir").write_text("no folder")
    with pytest.raises(ServerFailedError, match=r"redis ended by itself(.|\n)*Not a directory"):
        RedisServer(tmp_path).start()


@pytest.mark.parametrize("kind", [KafkaServer, InfluxDBServer, PostgresServer, RedisServer])
def test_a_server_that_is_not_installed_is_called_missing(
    kind: type[Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHTIDE_SERVERS_DIR", str(tmp_path / "none"))
    monkeypatch.setattr("tests.servers.postgres.INSTALLED", ())
    if kind in (PostgresServer, RedisServer):
        monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingServerError, match=r"run \.ci/servers"):
        kind(tmp_path / "data").start()
