"""Subscribers of a graph: nothing is missed or told twice, whatever breaks, and nobody holds up the service."""

import json
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource

from forecasting.keys import Keys, Scope
from forecasting.rollouts import Rollouts
from forecasting.service_file import ServiceFile
from infra.steps import HOUR_US, format_time
from stream.events import Event
from stream.ingest import Ingest, IngestOptions
from stream.store import open_reader, open_writer
from tests import plain_http
from tests.integration.serving import save_model, served, service_settings
from tests.unit.stream.ingest_cases import ListSource, at

Told = dict[str, Any]
LATENESS_H = 6
FIRST_HOUR = 1000


class Log:
    """A graph `g` that grows as a test says; events may revise the last hours."""

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder / 'store.db'}"
        self._batches: list[tuple[str, list[Event]]] = []
        self.hour = FIRST_HOUR

    def add(self, *events: Event) -> None:
        self._batches.append(("", list(events)))
        options = IngestOptions(allowed_lateness_us=LATENESS_H * HOUR_US)
        with open_writer(self.url) as writer:
            Ingest(ListSource(self._batches, bounded=False), writer, options).run()

    def grow(self, hours: int = 1) -> None:
        """Close so many steps more."""
        events = [at(self.hour + hour + 0.5, f"n{self.hour + hour}", "m") for hour in range(hours + 1)]
        self.hour += hours
        self.add(*events)

    def revise(self, hours_ago: int) -> None:
        self.add(at(self.hour - hours_ago + 0.25, "late", f"n{len(self._batches)}"))

    def revisions(self) -> dict[str, int]:
        """Return the revision of each step now."""
        with open_reader(self.url) as reader:
            table = reader.snapshots("g")
        return dict(zip(map(format_time, table.step_start_us.tolist()), table.revision.tolist(), strict=True))


@pytest.fixture
def log(tmp_path: Path) -> Log:
    log = Log(tmp_path)
    log.grow(30)
    return log


@pytest.fixture
def client(log: Log, tmp_path: Path) -> Iterator[httpx.Client]:
    save_model(log.url, "g", tmp_path / "models")
    with served(service_settings(log.url, tmp_path, api={"heartbeat_s": 0.2})) as client:
        yield client


@contextmanager
def listening(client: httpx.Client, last_id: str = "", **query: str) -> Iterator[Iterator[Told]]:
    """Yield the events of a stream."""
    headers = {"Last-Event-ID": last_id} if last_id else {}
    with client.stream("GET", "/v1/graphs/g/live", params=query, headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        yield ({"kind": one.event, "id": one.id, **one.json()} for one in EventSource(answer).iter_sse())


def test_it_begins_with_the_last_snapshot_and_tells_each_change_once(client: httpx.Client, log: Log) -> None:
    with listening(client, metrics="events,reciprocity") as told:
        first = next(told)
        assert (first["kind"], first["graph"], first["revision"]) == ("snapshot", "g", 0)
        assert list(first) == ["kind", "id", "graph", "step_start", "revision", "events", "reciprocity"]
        log.grow(3)
        assert [next(told)["step_start"] for _ in range(3)] == list(log.revisions())[-3:]
        log.revise(2)
        revised = next(told)
        assert (revised["revision"], revised["events"]) == (1, 2)


def test_a_forecast_follows_each_change_and_is_computed_once_for_all(
    client: httpx.Client, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[int] = []
    steps = Rollouts.steps

    def counted(self: Rollouts, live: Any, horizon: int, **options: Any) -> Any:
        computed.append(live.snapshots)
        return steps(self, live, horizon, **options)

    monkeypatch.setattr(Rollouts, "steps", counted)
    query = {"horizon": "12", "metrics": "events", "quantiles": "0.5"}
    with (
        listening(client, **query) as one,
        plain_http.Client(base_url=client.base_url, timeout=60) as other,
        listening(other, **query) as two,
    ):
        for told in (one, two):
            assert [next(told)["kind"] for _ in range(2)] == ["snapshot", "forecast"]
        log.grow()
        found = [[next(told) for _ in range(2)] for told in (one, two)]
    assert found[0] == found[1]
    snapshot, forecast = found[0]
    assert (snapshot["kind"], forecast["kind"], forecast["horizon"]) == ("snapshot", "forecast", 12)
    assert forecast["provenance"]["state_step"] == snapshot["step_start"]
    assert [list(one["quantiles"]) for one in forecast["outputs"]] == [["0.5"]]
    assert computed == [30, 31]
    asked = client.get("/v1/graphs/g/forecast", params=query).json()
    assert asked["outputs"] == forecast["outputs"]
    # A forecast that was received is not sent again.
    with listening(client, forecast["id"], **query) as told:
        log.grow()
        assert next(told)["kind"] == "snapshot"


@pytest.mark.parametrize("seed", range(4))
def test_random_disconnects_leave_no_gap_and_no_repeat(client: httpx.Client, log: Log, seed: int) -> None:
    draw = random.Random(seed)
    known: dict[str, int] = {}
    last_id = ""
    is_written = threading.Event()

    def write() -> None:
        writing = random.Random(seed)
        for _ in range(25):
            if writing.random() < 0.4:
                log.revise(writing.randint(1, LATENESS_H - 1))
            else:
                log.grow(writing.choice((1, 1, 2, 7)))
            time.sleep(writing.choice((0, 0.02, 0.1)))
        is_written.set()

    with listening(client) as told:
        first = next(told)
        known[first["step_start"]], last_id = first["revision"], first["id"]
    # What was before the first snapshot is told only if it is revised.
    before = {step: n for step, n in log.revisions().items() if step < first["step_start"]}
    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(300):
            headers = {"Accept": "application/x-ndjson", "Last-Event-ID": last_id}
            with client.stream("GET", "/v1/graphs/g/live", headers=headers) as answer:
                for line, _ in zip(answer.iter_lines(), range(draw.randint(1, 6)), strict=False):
                    if not line:
                        continue  # a heartbeat
                    one = json.loads(line)
                    if one["event"] == "history":
                        before |= {step: n for step, n in log.revisions().items() if step < one["before"]}
                        last_id = one["id"]
                        continue
                    assert one["event"] == "snapshot"
                    step = one["step_start"]
                    assert one["revision"] > (before | known).get(step, -1), "told twice"
                    known[step], last_id = one["revision"], one["id"]
            if is_written.is_set() and before | known == log.revisions():
                break
    finally:
        writer.join()
    assert before | known == log.revisions()


def test_a_long_absence_is_made_up_step_by_step(client: httpx.Client, log: Log) -> None:
    with listening(client) as told:
        last = next(told)["id"]
    log.grow(1500)
    with listening(client, last, metrics="events") as told:
        steps = [next(told) for _ in range(700)]
    with listening(client, steps[-1]["id"], metrics="events") as told:
        steps += [next(told) for _ in range(800)]
    assert [one["step_start"] for one in steps] == list(log.revisions())[-1500:]


def test_another_log_is_told_as_history(client: httpx.Client, log: Log) -> None:
    for other in ("1.0.0.0x3.", f"1.{FIRST_HOUR * HOUR_US}.77.0x3.", f"1.{10**15}.0.0."):
        with listening(client, other) as told:
            assert next(told)["kind"] == "history"
            assert next(told)["kind"] == "snapshot"


def test_lines_of_json_and_heartbeats(client: httpx.Client) -> None:
    url, headers = "/v1/graphs/g/live", {"Accept": "application/x-ndjson"}
    with client.stream("GET", url, params={"metrics": "events"}, headers=headers) as answer:
        lines = answer.iter_lines()
        assert list(json.loads(next(lines))) == ["event", "id", "graph", "step_start", "revision", "events"]
        assert next(lines) == ""
    with client.stream("GET", url) as answer:
        assert any(line == ": still here" for line in answer.iter_lines())


@pytest.mark.parametrize(
    ("query", "headers", "field"),
    [
        ({"horizon": "0"}, {}, "horizon"),
        ({"horizon": "169"}, {}, "horizon"),
        ({"quantiles": "0.5"}, {}, "quantiles"),
        ({"metrics": "evnts"}, {}, "metrics"),
        ({"after": "1"}, {}, "after"),
        ({}, {"Last-Event-ID": "yesterday"}, "Last-Event-ID"),
    ],
)
def test_mistakes_are_told(client: httpx.Client, query: Told, headers: dict[str, str], field: str) -> None:
    answer = client.get("/v1/graphs/g/live", params=query, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == field


def test_there_are_only_so_many_streams(log: Log, tmp_path: Path) -> None:
    chosen = service_settings(log.url, tmp_path, api={"max_streams": 3, "max_streams_per_key": 2})
    with ServiceFile(chosen.api.service_db) as file:
        keys = Keys(file)
        tokens = [keys.create(name, Scope.READ, ["g"])[1] for name in ("one", "two")]
    with served(chosen) as client:
        open_streams = []
        for token, status in zip([0, 0, 0, 1, 1], [200, 200, 429, 200, 503], strict=True):
            request = client.build_request("GET", "/v1/graphs/g/live", headers={"X-API-Key": tokens[token]})
            answer = client.send(request, stream=True)
            assert answer.status_code == status
            if status == 200:
                open_streams.append(answer)
            else:
                assert int(answer.headers["retry-after"]) >= 1
        # A stream that was left makes room.
        open_streams.pop(0).close()
        deadline = time.monotonic() + 10
        while True:
            request = client.build_request("GET", "/v1/graphs/g/live", headers={"X-API-Key": tokens[0]})
            again = client.send(request, stream=True)
            if again.status_code == 200:
                break
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with ServiceFile(chosen.api.service_db) as file:
            Keys(file).revoke("one")
        # The stream of a key that was revoked ends, and says so.
        end = [one for one in EventSource(again).iter_sse() if one.event == "end"]
        assert "key" in end[0].json()["reason"]
        for answer in open_streams:
            answer.close()


def test_a_slow_reader_is_cut_and_costs_nobody_anything(
    log: Log, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    chosen = service_settings(log.url, tmp_path, api={"send_timeout_s": 0.5})
    with served(chosen) as client:
        with listening(client) as told:
            last_id = next(told)["id"]
        log.grow(9000)
        slow = socket.create_connection((client.base_url.host, client.base_url.port))
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.sendall(f"GET /v1/graphs/g/live HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: {last_id}\r\n\r\n".encode())
        deadline = time.monotonic() + 30
        while "graphtide_streams_cut_total 1.0" not in client.get("/metrics").text:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert "graphtide_streams_open 0.0" in client.get("/metrics").text
        slow.close()
    assert "its reader took nothing" in caplog.text


@pytest.mark.parametrize("workers", ["1", "2"])
def test_streams_end_when_the_service_is_stopped(log: Log, tmp_path: Path, workers: str) -> None:
    environment = os.environ | {"GRAPHTIDE_API__DRAIN_S": "60", "GRAPHTIDE_JOBS__WORKERS": "0", "PYTHONSAFEPATH": "1"}
    program = [sys.executable, "-c", "from forecasting.cli import main; main()"]
    process = subprocess.Popen(
        [*program, "serve", "--port", "0", "--store", log.url, "--workers", workers],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "http://" in line)
        threading.Thread(target=process.stderr.read, daemon=True).start()
        address = line.split(" on ")[1].split(";")[0]
        with plain_http.Client(base_url=address, timeout=60) as client, listening(client) as told:
            assert next(told)["kind"] == "snapshot"
            process.send_signal(signal.SIGTERM)
            begin = time.monotonic()
            end = next(told)
            assert end["kind"] == "end"
            assert "stopped" in end["reason"]
        process.wait(30)
        assert time.monotonic() - begin < 30, "the stream held the service up until it was cut"
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
