"""What the integration tests share: a small store filled with a simulated network, and real servers.

PostgreSQL, which unit tests want too, is in `tests.conftest`. A server is started by the first test that wants it and
stopped after the last. Tests may kill, stop or pause it: it answers again before the next test. A server that is not
installed skips the test, or fails it where GRAPHTIDE_REQUIRE names it.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from stream.ingest import IngestOptions, ingest
from stream.simulation.config import SimulationConfig
from stream.sources.simulate import SimulatedSource
from tests.conftest import running_server
from tests.servers.influxdb import InfluxDatabase, InfluxDBServer
from tests.servers.kafka import KafkaServer
from tests.servers.redis import RedisServer

TOY = SimulationConfig(years=0.25, events_per_hour=4.0, initial_users=40, communities=4)


@pytest.fixture(scope="session")
def toy_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the URL of a store with the graph `toy`: three months by the hour. Tests only read it."""
    path: Path = tmp_path_factory.mktemp("toy") / "store.db"
    url = f"sqlite:///{path}"
    ingest(SimulatedSource(TOY, graph="toy"), url, IngestOptions())
    return url


@pytest.fixture(scope="session")
def kafka_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """Return the Kafka broker of this run; tests take `kafka`."""
    yield from running_server(KafkaServer, tmp_path_factory)


@pytest.fixture
def kafka(kafka_server: KafkaServer) -> Iterator[KafkaServer]:
    """Return a running Kafka broker; the topics made by its `create_topic` are deleted after the test."""
    yield kafka_server
    kafka_server.heal()
    kafka_server.delete_created_topics()


@pytest.fixture(scope="session")
def influxdb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InfluxDBServer]:
    """Return the InfluxDB server of this run; tests take `influxdb`."""
    yield from running_server(InfluxDBServer, tmp_path_factory)


@pytest.fixture
def influxdb(influxdb_server: InfluxDBServer) -> Iterator[InfluxDatabase]:
    """Return an empty database of a running InfluxDB server."""
    database = influxdb_server.create_database()
    yield database
    influxdb_server.heal()
    influxdb_server.drop_database(database)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Return the Redis server of this run; tests that only want a database take `redis_url`."""
    yield from running_server(RedisServer, tmp_path_factory)


@pytest.fixture
def redis_url(redis_server: RedisServer) -> Iterator[str]:
    """Return the address of an empty, running Redis."""
    redis_server.empty()
    yield redis_server.url
    redis_server.heal()
