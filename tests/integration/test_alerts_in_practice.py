"""Ingestion, service and Prometheus side by side: alerts fire in a real fault and clear after it.

The rules are those of the repository with shorter times and smaller bounds; promtool's tests hold the real ones.
"""

import json
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import yaml

from forecasting.bench.servers.base import MissingServerError
from infra.errors import GraphtideError
from infra.steps import format_time
from stream.sources.kafka.options import Connection
from stream.sources.kafka.sender import KafkaSender
from tests import plain_http
from tests.conftest import lacking
from tests.monitoring import FOLDER, RULES, exported_names
from tests.servers.graphtide import IngestProcess, ServeProcess
from tests.servers.influxdb import InfluxDatabase, InfluxDBServer
from tests.servers.kafka import KafkaServer
from tests.servers.prometheus import PrometheusServer

WAIT_S = 60.0
# Bounds that a test reaches in seconds. Every window is five seconds, of a look each.
SMALLER = {
    "graphtide_ingest_broker_wait_seconds > 60": "graphtide_ingest_broker_wait_seconds > 1",
    "(graphtide_step_seconds) + 900": "(graphtide_step_seconds) + 5",
    "graphtide_ingest_projection_waiting_snapshots > 1000": "graphtide_ingest_projection_waiting_snapshots > 3",
}


def shortened() -> dict[str, str]:
    """Return the rules with short times, by the name of their file."""
    rules = {path.name: path.read_text() for path in RULES}
    for large, small in SMALLER.items():
        assert sum(large in text for text in rules.values()) == 1, large
        rules = {name: text.replace(large, small) for name, text in rules.items()}
    short = {name: re.sub(r"\[\d+[mhd]\]", "[5s]", text) for name, text in rules.items()}
    return {name: re.sub(r"^(\s+for:) .*$", r"\1 1s", text, flags=re.MULTILINE) for name, text in short.items()}


class Feed:
    """Sends an event of this moment every fifth of a second, and now and then what is none; a broker may go away."""

    def __init__(self, kafka: KafkaServer, topic: str) -> None:
        self._connection = Connection(bootstrap_servers=kafka.bootstrap_servers)
        self._topic = topic
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feed")
        self.sends_nonsense = False

    def __enter__(self) -> "Feed":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(0.2):
            # What is lost while the broker is away is not what this test is about.
            with suppress(GraphtideError), KafkaSender(self._connection, timeout_s=2) as sender:
                while not self._end.wait(0.2):
                    event = {"graph": "town", "src": "ada", "dst": "ben", "ts": format_time(time.time_ns() // 1000)}
                    sender.send(self._topic, json.dumps(event).encode())
                    if self.sends_nonsense:
                        sender.send(self._topic, b"{")
                    sender.flush()


@pytest.fixture
def prometheus(
    kafka: KafkaServer, influxdb: InfluxDatabase, tmp_path: Path
) -> Iterator[tuple[PrometheusServer, IngestProcess, ServeProcess, Feed]]:
    topic = kafka.create_topic(partitions=1)
    store = f"sqlite:///{tmp_path / 'store.db'}"
    projection = {
        "GRAPHTIDE_INFLUXDB__URL": influxdb.url,
        "GRAPHTIDE_INFLUXDB__ORG": influxdb.org,
        "GRAPHTIDE_INFLUXDB__BUCKET": influxdb.bucket,
        "GRAPHTIDE_INFLUXDB__TOKEN": influxdb.token,
        "GRAPHTIDE_INFLUXDB__MAX_WAIT_S": "1",
        "GRAPHTIDE_INFLUXDB__TIMEOUT_S": "2",
    }
    source = ("--bootstrap-servers", kafka.bootstrap_servers, "--topics", topic, "--step", "1s")
    ingest = IngestProcess(tmp_path / "ingest", store, source, projection)
    # One job is the whole queue, and nobody works it off.
    serve = ServeProcess(tmp_path / "serve", store, {"GRAPHTIDE_JOBS__WORKERS": "0", "GRAPHTIDE_JOBS__MAX_ACTIVE": "1"})
    configuration = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    configuration["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    places = {"graphtide-api": serve, "graphtide-ingest": ingest}
    configuration["scrape_configs"] = [job for job in configuration["scrape_configs"] if job["job_name"] in places]
    for job in configuration["scrape_configs"]:
        job.pop("authorization", None)
        job["static_configs"] = [{"targets": [f"127.0.0.1:{places[job['job_name']].port}"]}]
    server = PrometheusServer(tmp_path / "prometheus", configuration, shortened())
    feed = Feed(kafka, topic)
    try:
        with feed, ingest, serve, server:
            yield server, ingest, serve, feed
    except MissingServerError as missing:
        lacking("prometheus", str(missing))


def wait_until(
    server: PrometheusServer,
    *,
    fires: Collection[str] = (),
    clears: Collection[str] = (),
    meanwhile: Callable[[], object] = lambda: None,
) -> None:
    """Wait until the ones fire and the others do not, and do something again and again meanwhile."""
    until_s = time.monotonic() + WAIT_S
    while True:
        firing = server.firing()
        if set(fires) <= firing and firing.isdisjoint(clears):
            return
        assert time.monotonic() < until_s, f"{sorted(firing)} fire, {sorted(fires)} should, {sorted(clears)} should not"
        meanwhile()
        time.sleep(0.3)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_alerts_fire_in_a_fault_and_clear_after_it(
    prometheus: tuple[PrometheusServer, IngestProcess, ServeProcess, Feed],
    kafka: KafkaServer,
    influxdb_server: InfluxDBServer,
    tmp_path: Path,
) -> None:
    server, ingest, serve, feed = prometheus
    ours = {
        *("GraphtideApiDown", "GraphtideIngestDown", "GraphtideDataOld", "GraphtideErrorRateHigh"),
        *("GraphtideBrokerAway", "GraphtideDeadLetters", "GraphtideJobsNotTaken", "GraphtideProjectionBehind"),
    }

    with plain_http.Client(base_url=serve.url, timeout=30) as client:
        until_s = time.monotonic() + WAIT_S
        while client.get("/v1/graphs/town/forecast").status_code != httpx.codes.OK:
            assert time.monotonic() < until_s, "no step has closed"
            time.sleep(0.5)
        # Prometheus takes a moment to find its targets, and to scrape each once.
        while server.targets() != {"graphtide-api": "up", "graphtide-ingest": "up"}:
            assert time.monotonic() < until_s, server.targets()
            time.sleep(0.5)
        wait_until(server, clears=ours)
        scraped = {name for name in server.names() if re.match(r"graphtide_(?!.*_created$)", name)}
        assert scraped <= exported_names(tmp_path)

        feed.sends_nonsense = True
        wait_until(server, fires={"GraphtideDeadLetters"})
        feed.sends_nonsense = False

        influxdb_server.kill()
        wait_until(server, fires={"GraphtideProjectionBehind"})
        influxdb_server.restart()
        wait_until(server, clears={"GraphtideDeadLetters", "GraphtideProjectionBehind"})

        job = client.post("/v1/graphs/town/forecasts", json={"horizon": 500}).headers["location"]

        def refused() -> None:
            assert client.post("/v1/graphs/town/forecasts", json={"horizon": 500}).status_code == 503

        wait_until(server, fires={"GraphtideErrorRateHigh", "GraphtideJobsNotTaken"}, meanwhile=refused)
        assert client.delete(job).status_code == httpx.codes.OK
        wait_until(server, clears={"GraphtideErrorRateHigh", "GraphtideJobsNotTaken"})

        kafka.kill()
        wait_until(server, fires={"GraphtideBrokerAway", "GraphtideDataOld"})
        kafka.restart()
        wait_until(server, clears={"GraphtideBrokerAway", "GraphtideDataOld"})

        ingest.kill()
        wait_until(server, fires={"GraphtideIngestDown", "GraphtideDataOld"})
        ingest.start()
        wait_until(server, clears={"GraphtideIngestDown", "GraphtideDataOld"})

    serve.kill()
    wait_until(server, fires={"GraphtideApiDown"})
    serve.start()
    wait_until(server, clears=ours)
