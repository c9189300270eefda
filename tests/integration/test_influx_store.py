"""InfluxDB as a projection and as a store that is read from: a real server, outages, requests that fail."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import numpy as np
import pytest

from infra.errors import StoreError
from infra.schema import METRIC_NAMES
from infra.steps import DAY_US, HOUR_US, WEEK_US
from stream.store.influx.address import InfluxAddress
from stream.store.influx.points import snapshot_lines
from stream.store.influx.reader import InfluxSnapshots
from stream.store.influx.writer import InfluxWriter
from stream.store.projector import Projector
from tests import plain_http
from tests.conftest import running_server
from tests.servers.influxdb import InfluxDatabase, InfluxDBServer
from tests.unit.stream.projection_cases import START_US, MemoryStore, some_snapshots

PATIENCE_S = 60


def address_of(database: InfluxDatabase, url: str | None = None) -> InfluxAddress:
    return InfluxAddress(
        url=url or database.url,
        org=database.org,
        bucket=database.bucket,
        token=database.token,
        batch_points=50,
        max_wait_s=0.1,
        timeout_s=5,
        settle_s=0.01,
    )


def projector_of(store: MemoryStore, address: InfluxAddress) -> Projector:
    return Projector(lambda: store, lambda: store, address, idle_s=0.02)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def assert_equal(store: MemoryStore, address: InfluxAddress) -> None:
    """Check that an InfluxDB alone says what the store says."""
    with InfluxSnapshots(address) as reader:
        assert reader.graphs() == store.graphs()
        for info in store.graphs():
            assert reader.graph(info.name) == info
            assert reader.snapshots(info.name).digest() == store.snapshots(info.name).digest()


@pytest.fixture
def store() -> MemoryStore:
    """Return a store with graphs of all step sizes and odd names."""
    store = MemoryStore()
    store.add(some_snapshots("toy", 700, seed=1))
    odd = ('toy:a b,c="d"=\\', "toy:${x}|> drop", "toy:日本\u2028%", "toy:#", "toy:tail\\")
    for seed, name in enumerate(odd, start=2):
        store.add(some_snapshots(name, 3, seed=seed))
    store.add(some_snapshots("weeks", 5, step_us=WEEK_US, start_us=4 * DAY_US - WEEK_US))
    store.add(some_snapshots("seconds", 130, step_us=1_000_000, start_us=7_258_118_000_000_000))
    store.add(some_snapshots("empty", 0))
    store.revise("toy", 20)
    store.late = 17
    return store


def test_influxdb_alone_says_what_the_store_says(store: MemoryStore, influxdb: InfluxDatabase) -> None:
    address = address_of(influxdb)
    with projector_of(store, address) as projector:
        assert projector.drain(PATIENCE_S).drained
        assert_equal(store, address)
        store.projected(projector.acknowledged())
        store.revise("toy", 100, steps=50)
        store.revise("weeks", 0)
        assert projector.drain(PATIENCE_S).drained
        assert_equal(store, address)
    with projector_of(store, address) as again:
        assert again.drain(PATIENCE_S).written == 51
        assert_equal(store, address)


RANGES = [
    (None, None, 24),
    (3, None, None),
    (None, 5, None),
    (3, 9, 2),
    (-5, 900, 0),
    (9, 3, None),
    (800, None, 5),
    (0, 1, 7),
]


def test_ranges_are_those_of_any_store(store: MemoryStore, influxdb: InfluxDatabase) -> None:
    address = address_of(influxdb)
    with projector_of(store, address) as projector:
        projector.drain(PATIENCE_S)
    whole = store.snapshots("toy")
    columns = ("transitivity", "events", "total_edges")
    at = [METRIC_NAMES.index(name) for name in columns]
    with InfluxSnapshots(address) as reader:
        for (start, end, last), shift_us in itertools.product(RANGES, (0, 1)):
            start_us = None if start is None else START_US + start * HOUR_US + shift_us
            end_us = None if end is None else START_US + end * HOUR_US + shift_us
            wanted = np.ones(len(whole), dtype=np.bool_)
            if start_us is not None:
                wanted &= whole.step_start_us >= start_us
            if end_us is not None:
                wanted &= whole.step_start_us < end_us
            rows = np.flatnonzero(wanted)
            rows = rows if last is None else rows[max(len(rows) - last, 0) :]
            found = reader.snapshots("toy", start_us=start_us, end_us=end_us, metrics=columns, last=last)
            assert found.metrics == columns
            assert np.array_equal(found.step_start_us, whole.step_start_us[rows]), (start, end, last, shift_us)
            assert np.array_equal(found.revision, whole.revision[rows])
            assert np.array_equal(found.values, whole.values[np.ix_(rows, at)])


def test_what_is_not_there_is_said_with_what_is_near(store: MemoryStore, influxdb: InfluxDatabase) -> None:
    address = address_of(influxdb)
    with InfluxSnapshots(address) as reader:
        assert reader.graphs() == []
        with pytest.raises(StoreError, match="nothing was projected yet"):
            reader.graph("toy")
    with projector_of(store, address) as projector:
        projector.drain(PATIENCE_S)
    with InfluxSnapshots(address) as reader:
        with pytest.raises(StoreError, match="no graph 'week'") as caught:
            reader.graph("week")
        assert caught.value.fix == "did you mean weeks?"
        with pytest.raises(StoreError, match="no metric 'event'"):
            reader.snapshots("toy", metrics=("event",))


@pytest.mark.parametrize("how", ["kill", "pause"])
def test_an_outage_in_the_middle_loses_nothing(store: MemoryStore, influxdb: InfluxDatabase, how: str) -> None:
    address = replace(address_of(influxdb), timeout_s=1.0, settle_s=1.0)
    with projector_of(store, address) as projector:
        until(lambda: projector.status().written > 0)
        getattr(influxdb.server, how)()
        store.revise("toy", 0, steps=600)
        store.add(some_snapshots("toy", 50, start_us=START_US + 700 * HOUR_US))
        until(lambda: projector.status().error is not None)
        status = projector.drain(0.1)
        assert not status.drained
        assert status.waiting >= 650
        influxdb.server.heal()
        assert projector.drain(PATIENCE_S).drained
        assert projector.status().error is None
    assert_equal(store, address)


@contextmanager
def failing_proxy(target: str, is_failing: Callable[[int], str]) -> Iterator[str]:
    """Forward requests to a server; `is_failing` says how the n-th write ends: "", "before", "after" or "half"."""
    count = itertools.count()
    # Making a client takes longer than a request.
    client = plain_http.Client(timeout=30, trust_env=False)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            how = is_failing(next(count)) if self.path.startswith("/api/v2/write") else ""
            if how == "before":
                self.close_connection = True
                return
            if how == "half":
                lines = body.split(b"\n")
                body = b"\n".join(lines[: len(lines) // 2])
            headers = {name: self.headers[name] for name in ("Content-Type", "Authorization") if self.headers[name]}
            reply = client.post(target + self.path, content=body, headers=headers)
            if how == "after":
                # The server has written everything; its answer is lost.
                self.close_connection = True
                return
            self.send_response(503 if how == "half" else reply.status_code)
            self.send_header("Content-Length", str(len(reply.content)))
            self.end_headers()
            self.wfile.write(reply.content)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        client.close()


@pytest.mark.parametrize("how", ["before", "half", "after"])
def test_every_third_request_failing_loses_nothing(store: MemoryStore, influxdb: InfluxDatabase, how: str) -> None:
    with failing_proxy(influxdb.url, lambda number: how if number % 3 == 2 else "") as url:
        with projector_of(store, address_of(influxdb, url)) as projector:
            projector.drain(PATIENCE_S)
            store.revise("toy", 0, steps=300)
            assert projector.drain(PATIENCE_S).drained
        assert_equal(store, address_of(influxdb, url))


def test_a_bucket_that_is_missing_is_named(store: MemoryStore, influxdb: InfluxDatabase) -> None:
    address = replace(address_of(influxdb), bucket="nowhere/autogen")
    with projector_of(store, address) as projector:
        status = projector.drain(PATIENCE_S)
    assert status.refused
    assert status.error is not None
    assert status.error.startswith(f"cannot write to bucket 'nowhere/autogen' of InfluxDB at {influxdb.url}: ")
    with pytest.raises(StoreError, match="cannot read bucket 'nowhere/autogen'") as caught:
        InfluxSnapshots(address)
    assert "make the bucket" in str(caught.value)
    no_policy = replace(address_of(influxdb), bucket=influxdb.bucket.replace("autogen", "nothing"))
    with InfluxWriter(no_policy) as writer, pytest.raises(StoreError, match="retention policy not found"):
        writer.write(snapshot_lines(some_snapshots("toy", 1)))


def test_a_field_of_another_type_is_a_refusal(store: MemoryStore, influxdb: InfluxDatabase) -> None:
    address = address_of(influxdb)
    with InfluxWriter(address) as writer:
        writer.write([f"graphtide_snapshots,graph=toy,schema=1,step=1h events=1.5 {START_US + 1}"])
        with pytest.raises(StoreError, match="field type conflict") as caught:
            writer.write(snapshot_lines(some_snapshots("toy", 1)))
    assert "nobody else" in str(caught.value)


def test_steps_that_are_missing_are_never_passed_over(store: MemoryStore, influxdb: InfluxDatabase) -> None:
    address = address_of(influxdb)
    with projector_of(store, address) as projector:
        projector.drain(PATIENCE_S)
    hole = START_US + 5 * HOUR_US
    database = influxdb.bucket.removesuffix("/autogen")
    reply = plain_http.post(
        f"{influxdb.url}/query",
        params={"db": database},
        data={"q": f"DELETE FROM graphtide_snapshots WHERE graph = 'toy' AND time = {hole * 1000}"},
        trust_env=False,
    )
    assert "error" not in reply.text
    with InfluxSnapshots(address) as reader:
        with pytest.raises(
            StoreError, match="lacks 1 snapshots of graph 'toy', the first that of 2015-08-19T21:00:00Z"
        ):
            reader.snapshots("toy")
        assert len(reader.snapshots("toy", last=600)) == 600


def test_an_influxdb_that_is_away_is_said_at_once(influxdb: InfluxDatabase) -> None:
    address = replace(address_of(influxdb), url="http://127.0.0.1:1")
    with pytest.raises(StoreError, match=r"cannot read bucket .* of InfluxDB at http://127.0.0.1:1: .*refused"):
        InfluxSnapshots(address)


class GuardedInfluxDBServer(InfluxDBServer):
    """One that asks for user and password."""

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "INFLUXDB_HTTP_AUTH_ENABLED": "true"}

    def answers(self, timeout_s: float) -> bool:
        try:
            return (
                plain_http.get(f"{self.url}/ping", timeout=timeout_s, trust_env=False).status_code
                == httpx.codes.NO_CONTENT
            )
        except httpx.HTTPError:
            return False


@pytest.fixture
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InfluxDatabase]:
    """Return a database of a server that lets only `admin` in."""
    for server in running_server(GuardedInfluxDBServer, tmp_path_factory):
        make_user = "CREATE USER admin WITH PASSWORD 'right' WITH ALL PRIVILEGES"
        plain_http.post(f"{server.url}/query", data={"q": make_user}, trust_env=False).raise_for_status()
        make_database = {"q": "CREATE DATABASE graphs"}
        plain_http.post(
            f"{server.url}/query", data=make_database, auth=("admin", "right"), trust_env=False
        ).raise_for_status()
        yield InfluxDatabase(server.url, "admin:right", "any", "graphs/autogen", server)


def test_a_wrong_token_is_said_without_showing_it(store: MemoryStore, guarded: InfluxDatabase) -> None:
    address = replace(address_of(guarded), token="admin:secret")
    with projector_of(store, address) as projector:
        status = projector.drain(PATIENCE_S)
    assert status.refused
    assert status.error is not None
    assert f"bucket 'graphs/autogen' of InfluxDB at {guarded.url}" in status.error
    assert "HTTP 401" in status.error
    for token in ("admin:secret", ""):
        with pytest.raises(StoreError, match="HTTP 401") as caught:
            InfluxSnapshots(replace(address, token=token))
        assert "GRAPHTIDE_INFLUXDB__TOKEN" in str(caught.value)
        assert "secret" not in status.error + str(caught.value)
    with projector_of(store, address_of(guarded)) as projector:
        assert projector.drain(PATIENCE_S).drained
    assert_equal(store, address_of(guarded))


def test_a_history_of_several_pages_is_read_whole(influxdb: InfluxDatabase) -> None:
    store = MemoryStore()
    store.add(some_snapshots("long", 36_500))
    address = replace(address_of(influxdb), batch_points=5000)
    with projector_of(store, address) as projector:
        assert projector.drain(PATIENCE_S).drained
    assert_equal(store, address)
