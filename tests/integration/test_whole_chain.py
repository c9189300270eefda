"""The whole chain on real servers, with one set of numbers from the log to the scheduled report.

The log goes through Kafka into PostgreSQL and InfluxDB. The service that answers and makes the report
reads from InfluxDB alone; another one reads from the store of record.
"""

import csv
import hashlib
import hmac
import io
import json
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from infra.schema import METRIC_NAMES
from stream.simulation.config import SimulationConfig
from stream.sources.simulate import SimulatedSource
from tests import plain_http
from tests.conftest import Ran
from tests.servers.influxdb import InfluxDatabase
from tests.servers.kafka import KafkaServer

Cli = Callable[..., Ran]
LOG = SimulationConfig(years=0.08, events_per_hour=4.0, initial_users=40, communities=4)
HORIZON = 36_500
PATHS = 20
SHORT, NEAR = 48, 168
SECRET = "s3cret"
WAIT_S = 180.0
# The next minute may be so close that it comes before the schedule does.
LEAST_AHEAD_S = 4


class Call(NamedTuple):
    """What the webhook was sent."""

    headers: dict[str, str]
    body: bytes


@contextmanager
def webhook() -> Iterator[tuple[str, list[Call]]]:
    """Yield the address of a receiver and what it was sent."""
    seen: list[Call] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append(Call({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/hook", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def serving(folder: Path, store: str, name: str) -> Iterator[httpx.Client]:
    """Yield a client of `graphtide serve` in processes of its own, with a service file of its own."""
    said = folder / f"{name}.log"
    command = [sys.executable, "-c", "from forecasting.cli import main; main()", "--config", f"{name}.toml"]
    with said.open("w") as log:
        process = subprocess.Popen(
            [*command, "serve", "--port", "0", "--store", store], stderr=log, stdout=log, cwd=folder
        )
    try:
        found = until(
            lambda: re.search(r"on (http://\S+);", said.read_text()) or process.poll() is not None,
            said.read_text,
        )
        assert isinstance(found, re.Match), said.read_text()
        with plain_http.Client(base_url=found[1], timeout=60, trust_env=False) as client:
            yield client
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        finally:
            process.kill()
    assert process.returncode == 128 + signal.SIGTERM, said.read_text()


def until(condition: Callable[[], Any], said: Callable[[], object] = lambda: "") -> Any:
    deadline = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"it did not happen: {said()}"
        time.sleep(0.1)
    return found


def configure(folder: Path, name: str, influx: InfluxDatabase, hook: str, *, workers: int) -> None:
    (folder / "secret").write_text(SECRET)
    (folder / f"{name}.toml").write_text(
        f"""
[api]
service_db = "{name}.db"
poll_interval_s = 0.1
deadline_s = 60
[jobs]
workers = {workers}
when_idle = false
[influxdb]
url = "{influx.url}"
org = "{influx.org}"
bucket = "{influx.bucket}"
[reports]
paths = {PATHS}
[reports.targets.archive]
kind = "folder"
path = "{folder / "archive"}"
[reports.targets.hook]
kind = "webhook"
url = "{hook}"
secret_file = "{folder / "secret"}"
allow_private = true
"""
    )


def soon() -> datetime:
    """Return the next minute, or the one behind it where that is too close."""
    return (datetime.now(UTC) + timedelta(seconds=60 + LEAST_AHEAD_S)).replace(second=0, microsecond=0)


def floats(body: dict[str, Any]) -> dict[tuple[str, str], np.ndarray]:
    """Return the columns of an answer by metric and name, as the float32 that the service sends."""
    found = {}
    for series in body["outputs"]:
        columns = {"mean": series["mean_forecast"]} | {f"q{q}": one for q, one in series["quantiles"].items()}
        for name, values in columns.items():
            found[series["name"], name] = np.float32(values)
    return found


def first(columns: dict[tuple[str, str], np.ndarray], steps: int) -> dict[tuple[str, str], np.ndarray]:
    return {key: values[:steps] for key, values in columns.items()}


def assert_same(found: dict[tuple[str, str], np.ndarray], expected: dict[tuple[str, str], np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        np.testing.assert_array_equal(found[key], values, err_msg=str(key))


def finished_job(client: httpx.Client, horizon: int) -> bytes:
    job = client.post("/v1/graphs/town/forecasts", json={"horizon": horizon}).headers["location"]
    state = until(lambda: (one := client.get(job).json())["status"] not in ("queued", "running") and one)
    assert state["status"] == "done", state
    return client.get(f"{job}/result").content


def snapshots_of(client: httpx.Client) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = client.get("/v1/graphs/town/snapshots").json()["rows"]
    return rows


def days_of(snapshots: list[dict[str, Any]]) -> dict[str, float]:
    """Return the events of every whole day, by its start."""
    days: dict[str, list[float]] = {}
    for one in snapshots:
        days.setdefault(f"{one['step_start'][:10]}T00:00:00Z", []).append(one["events"])
    return {day: float(sum(events)) for day, events in days.items() if len(events) == 24}


@pytest.fixture
def hook() -> Iterator[tuple[str, list[Call]]]:
    with webhook() as found:
        yield found


def test_one_set_of_numbers_from_the_log_to_the_report(
    graphtide: Cli,
    clean_environment: Path,
    monkeypatch: pytest.MonkeyPatch,
    kafka: KafkaServer,
    influxdb: InfluxDatabase,
    postgres_url: str,
    hook: tuple[str, list[Call]],
) -> None:
    folder, (hook_url, calls) = clean_environment, hook
    monkeypatch.setenv("GRAPHTIDE_INFLUXDB__TOKEN", influxdb.token)
    for name, workers in (("alone", 2), ("record", 1)):
        configure(folder, name, influxdb, hook_url, workers=workers)
    settings = ("--config", str(folder / "alone.toml"))

    # A log goes into Kafka, and from there into the store of record and InfluxDB.
    log = folder / "log.ndjson"
    events = SimulatedSource(LOG, graph="town").write_ndjson(log)
    topic = kafka.create_topic(partitions=2)
    played = graphtide(
        *("replay", log, "--to", "kafka", "--topic", topic, "--bootstrap-servers", kafka.bootstrap_servers),
        *("--speed", "max", "--batch", "100", "--format", "ndjson"),
    )
    assert played.code == 0, played.err
    read = graphtide(
        *settings,
        *("ingest", "kafka", "--bootstrap-servers", kafka.bootstrap_servers, "--topics", topic),
        *("--store", postgres_url, "--close-at-end", "--json"),
    )
    assert read.code == 0, read.err
    summary = json.loads(read.out)
    assert (summary["events"], summary["late"], summary["rejected"]) == (events, 0, 0)

    projection = f"influxdb://{influxdb.url.removeprefix('http://')}/{influxdb.org}/{influxdb.bucket}"
    tables = {}
    for store in (postgres_url, projection):
        shown = graphtide(*settings, "snapshots", "town", "--format", "csv", "--store", store)
        assert shown.code == 0, shown.err
        tables[store] = shown.out
    assert tables[projection] == tables[postgres_url]
    in_store = pyarrow.csv.read_csv(io.BytesIO(tables[postgres_url].encode()))
    assert sum(in_store["events"].to_pylist()) == events

    with serving(folder, projection, "alone") as alone:
        slot = soon()
        schedule = {"graph": "town", "cron": f"{slot.minute} {slot.hour} {slot.day} {slot.month} *", "horizon": HORIZON}
        put = alone.put("/v1/report-schedules/chain", json={**schedule, "deliver": ["archive", "hook"]})
        assert put.status_code == 201, put.text
        assert put.json()["next"] == f"{slot:%Y-%m-%dT%H:%M:%SZ}"

        with serving(folder, postgres_url, "record") as record:
            # Observed: store = InfluxDB = API.
            seen = snapshots_of(alone)
            assert seen == snapshots_of(record)
            for name in METRIC_NAMES:
                np.testing.assert_array_equal([one[name] for one in seen], in_store[name].to_numpy(), err_msg=name)
            # Forecast: InfluxDB alone = store of record; short range = beginning of the long.
            short = alone.get("/v1/graphs/town/forecast", params={"horizon": SHORT})
            assert short.status_code == 200, short.text
            assert short.content == record.get("/v1/graphs/town/forecast", params={"horizon": SHORT}).content
            result = finished_job(alone, HORIZON)
            assert json.loads(finished_job(record, HORIZON))["outputs"] == json.loads(result)["outputs"]
        long = floats(json.loads(result))
        assert {len(values) for values in long.values()} == {HORIZON}
        assert len(long) == len(METRIC_NAMES) * 12
        assert_same(floats(short.json()), first(long, SHORT))

        # The command line says the same.
        ran = graphtide(
            *(*settings, "forecast", "town", "--horizon", HORIZON, "--store", projection),
            *("--format", "parquet", "--output", "long.parquet"),
        )
        assert ran.code == 0, ran.err
        table = pq.read_table("long.parquet")
        of_metric = {name: table.filter(pyarrow.compute.equal(table["metric"], name)) for name in METRIC_NAMES}
        assert_same(
            {
                (metric, name): np.float32(rows[name].to_numpy())
                for metric, rows in of_metric.items()
                for name in rows.column_names
                if name not in ("step_start", "metric")
            },
            long,
        )

        # The report comes at its time, and is delivered.
        (run,) = until(
            lambda: (
                (runs := alone.get("/v1/report-schedules/chain/runs").json()["runs"])
                and runs[0]["deliveries"]
                and all(one["status"] != "waiting" for one in runs[0]["deliveries"])
                and runs
            ),
            lambda: alone.get("/v1/report-schedules/chain/runs").text,
        )
        assert (run["status"], run["slot"]) == ("done", f"{slot:%Y-%m-%dT%H:%M:%SZ}")
        assert {one["target"]: one["status"] for one in run["deliveries"]} == {"archive": "done", "hook": "done"}
        assert datetime.fromisoformat(run["log"][0]["time"]) >= slot
        facts = alone.get(run["links"]["self"]).json()["facts"]
        page = alone.get(run["links"]["self"], headers={"Accept": "text/html"}).content

    (call,) = calls
    stamp, _, mac = call.headers["graphtide-signature"].partition(",v1=")
    signed = stamp.removeprefix("t=").encode() + b"." + call.body
    assert mac == hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
    notice = json.loads(call.body)
    assert (notice["id"], notice["schedule"], notice["summary"]) == (run["id"], "chain", run["summary"])

    (archived,) = (folder / "archive").glob(f"town-chain-{slot:%Y-%m-%dT%H%M%S}Z-*.html")
    assert archived.read_bytes() == page
    with zipfile.ZipFile(archived.with_suffix(".zip")) as bundle:
        assert json.loads(bundle.read("report.json")) == facts
        near = pq.read_table(io.BytesIO(bundle.read("near.parquet")))
        periods = list(csv.DictReader(io.StringIO(bundle.read("periods.csv").decode())))
    shown_names = [name for name in near.column_names if name not in ("step_start", "metric")]
    of_metric = {name: near.filter(pyarrow.compute.equal(near["metric"], name)) for name in METRIC_NAMES}
    assert_same(
        {(m, name): np.float32(rows[name].to_numpy()) for m, rows in of_metric.items() for name in shown_names},
        first({key: values for key, values in long.items() if key[1] in shown_names}, NEAR),
    )
    observed = {
        row["start"]: float(row["observed"])
        for row in periods
        if (row["scale"], row["column"]) == ("day", "events") and row["observed"]
    }
    days = days_of(seen)
    assert observed
    assert observed.items() <= days.items()
    assert len(observed) >= len(days) - 1
    assert (facts["horizon"], facts["paths"], facts["provenance"]) == (HORIZON, PATHS, json.loads(result)["provenance"])
