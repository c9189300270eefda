"""A store of record to InfluxDB and back by the command line: what is read from either of the three is equal."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from forecasting.history import read_history
from infra.errors import StoreError, UsageError
from infra.schema import METRIC_INDEX
from stream.events import IntArray
from stream.store import open_outbox, open_reader, open_writer
from stream.store.base import SnapshotTable
from stream.store.influx.address import InfluxAddress
from stream.store.influx.reader import InfluxSnapshots
from stream.store.project import mark_projected
from stream.store.projector import PROJECTION, Projector
from stream.store.rebuild import refuse_rebuilt
from stream.store.records import EdgeRows
from stream.store.writer import Closed, StoreWriter
from tests.conftest import Ran
from tests.integration.test_forecast_cli import SMALL
from tests.servers.influxdb import InfluxDatabase
from tests.unit.stream.projection_cases import some_snapshots
from tests.unit.stream.store_contract import begin

Run = Callable[..., Ran]
PATIENCE_S = 60
NONE = np.zeros(0, dtype=np.int64)
NO_EDGES = EdgeRows(NONE, NONE, NONE, NONE)


def fill(writer: StoreWriter, table: SnapshotTable, *, late: int) -> None:
    """Write a graph as ingestion does; its totals are those of its last step."""
    with writer.transaction():
        graph = begin(writer, table.graph)
        metrics = {name: np.ascontiguousarray(table.values[:, at]) for name, at in METRIC_INDEX.items()}
        ids: IntArray = np.full(len(table), graph.id, dtype=np.int64)
        writer.add_snapshots(ids, table.step_start_us, metrics, NO_EDGES)
        graph.snapshots, graph.events, graph.late = len(table), int(table.values[:, 0].sum()), late
        if len(table):
            graph.first_step_us = int(table.step_start_us[0])
            graph.next_step_us = int(table.step_start_us[-1]) + table.step_us
            graph.total_nodes, graph.total_edges = table.values[-1, -2:].astype(int).tolist()
        writer.save_graphs([graph])


def revise(writer: StoreWriter, name: str, begin: int, end: int) -> None:
    """Revise steps as ingestion does, in a transaction that is open."""
    graph = writer.graph(name)
    assert graph is not None
    assert graph.first_step_us is not None
    steps = writer.closed(graph, graph.first_step_us)
    values = steps.values[begin:end].copy()
    values[:, METRIC_INDEX["new_nodes"]] += 1
    writer.revise(graph, Closed(steps.step_start_us[begin:end], values), NO_EDGES)


@pytest.fixture
def record(tmp_path: Path) -> str:
    """Return the URL of a store of record with revised graphs and one that has no closed step."""
    url = f"sqlite:///{tmp_path / 'record.db'}"
    with open_writer(url) as writer:
        for seed, (name, steps) in enumerate((("toy", 200), ("toy:sent to", 50), ("new", 0))):
            table = some_snapshots(name, steps, seed=seed)
            table.values[:, 0] %= 2**20
            fill(writer, table, late=seed)
        for begin, end in ((10, 20), (15, 40), (199, 200)):
            with writer.transaction():
                revise(writer, "toy", begin, end)
    return url


@pytest.fixture
def settings(influxdb: InfluxDatabase, graphtide: Run, monkeypatch: pytest.MonkeyPatch) -> str:
    """Set the InfluxDB of the settings, and return its address as a store."""
    for key, value in (("URL", influxdb.url), ("ORG", influxdb.org), ("BUCKET", influxdb.bucket)):
        monkeypatch.setenv(f"GRAPHTIDE_INFLUXDB__{key}", value)
    monkeypatch.setenv("GRAPHTIDE_INFLUXDB__TOKEN", influxdb.token)
    return f"{influxdb.url.replace('http', 'influxdb')}/{influxdb.org}/{influxdb.bucket}"


def ran(result: Ran) -> str:
    assert result.code == 0, result.err
    return result.out


def everything(graphtide: Run, url: str) -> list[str]:
    """Return what the command line shows of a store."""
    graphs = ran(graphtide("graphs", "--json", "--store", url))
    shown = [graphs, ran(graphtide("graphs", "--store", url))]
    for graph in ("toy", "toy:sent to", "new"):
        shown += [
            ran(graphtide("snapshots", graph, "--store", url)),
            ran(graphtide("snapshots", graph, "--format", "csv", "--store", url)),
            ran(graphtide("snapshots", graph, "--last", 7, "--metrics", "transitivity,events", "--store", url)),
            ran(graphtide("snapshots", graph, "--start", "2015-08-20", "--end", "2015-08-22", "--store", url)),
        ]
    return shown


def test_influxdb_and_a_store_rebuilt_from_it_answer_alike(
    graphtide: Run, record: str, settings: str, tmp_path: Path
) -> None:
    said = graphtide("store", "project", "--store", record)
    ran(said)
    assert "250 snapshots written" in said.err
    rebuilt = f"sqlite:///{tmp_path / 'rebuilt.db'}"
    said = graphtide("store", "rebuild", "--store", rebuilt)
    ran(said)
    assert "250 snapshots of 3 graphs restored" in said.err
    expected = everything(graphtide, record)
    assert everything(graphtide, settings) == expected
    assert everything(graphtide, rebuilt) == expected
    with open_reader(record) as first, open_reader(settings) as second, open_reader(rebuilt) as third:
        assert first.snapshots("toy").revision.max() == 2
        for graph in ("toy", "toy:sent to", "new"):
            digests = {reader.snapshots(graph).digest() for reader in (first, second, third)}
            assert len(digests) == 1, graph
        histories = [read_history(reader, "toy") for reader in (first, second, third)]
        for history in histories[1:]:
            assert np.array_equal(history.values, histories[0].values)
            assert (history.step_us, history.start_us) == (histories[0].step_us, histories[0].start_us)


def test_what_was_projected_is_not_again_unless_all_is_asked_for(graphtide: Run, record: str, settings: str) -> None:
    assert "250 snapshots written" in graphtide("store", "project", "--store", record).err
    assert "0 snapshots written" in graphtide("store", "project", "--store", record).err
    with open_writer(record) as writer, writer.transaction():
        revise(writer, "toy", 3, 5)
    assert "\n2 snapshots written" in "\n" + graphtide("store", "project", "--store", record).err
    assert "250 snapshots written" in graphtide("store", "project", "--all", "--store", record).err
    with open_reader(record) as first, open_reader(settings) as second:
        assert first.snapshots("toy").digest() == second.snapshots("toy").digest()


def test_two_stores_do_not_overwrite_each_other(graphtide: Run, record: str, settings: str, tmp_path: Path) -> None:
    ran(graphtide("store", "project", "--store", record))
    other = f"sqlite:///{tmp_path / 'other.db'}"
    with open_writer(other) as writer:
        fill(writer, some_snapshots("toy", 20, seed=9), late=0)
    said = graphtide("store", "project", "--store", other)
    assert said.code == 1
    assert "a graph 'toy' of another store of record" in said.err
    assert "store project --all" in said.err
    with open_reader(record) as first, open_reader(settings) as second:
        assert first.snapshots("toy").digest() == second.snapshots("toy").digest()
    # A copy is the same store.
    copied = f"sqlite:///{tmp_path / 'copied.db'}"
    ran(graphtide("store", "copy", record, copied))
    ran(graphtide("store", "project", "--store", copied))
    ran(graphtide("store", "project", "--all", "--store", other))
    with open_reader(other) as first, open_reader(settings) as second:
        assert first.snapshots("toy").digest() == second.snapshots("toy").digest()
    assert graphtide("store", "project", "--all", "--store", record).code == 0


@pytest.mark.parametrize("how", ["rebuild", "copy"])
def test_a_rebuilt_store_goes_on_in_the_bucket_by_itself(
    graphtide: Run, record: str, settings: str, tmp_path: Path, how: str
) -> None:
    ran(graphtide("store", "project", "--store", record))
    rebuilt = f"sqlite:///{tmp_path / 'rebuilt.db'}"
    ran(graphtide("store", how, *(("--store", rebuilt) if how == "rebuild" else (settings, rebuilt))))
    # The first store was not lost after all, and goes on.
    with open_writer(record) as writer, writer.transaction():
        revise(writer, "toy", 3, 5)
    ran(graphtide("store", "project", "--store", record))
    log = tmp_path / "more.ndjson"
    log.write_text('{"graph": "more", "src": "a", "dst": "b", "ts": "2026-03-01T10:05:00Z"}\n')
    said = graphtide("ingest", log, "--store", rebuilt)
    ran(said)
    assert "not in InfluxDB" not in said.err
    for store, written in ((rebuilt, 0), (record, 0)):
        said = graphtide("store", "project", "--store", store)
        ran(said)
        assert f"\n{written} snapshots written" in "\n" + said.err
    with open_reader(record) as first, open_reader(settings) as second, open_reader(rebuilt) as third:
        assert {info.name for info in second.graphs()} == {"more", "new", "toy", "toy:sent to"}
        assert first.snapshots("toy").digest() == second.snapshots("toy").digest() != third.snapshots("toy").digest()
        assert third.snapshots("more").digest() == second.snapshots("more").digest()
    log.write_text('{"graph": "toy", "src": "a", "dst": "b", "ts": "2026-03-01T10:05:00Z"}\n')
    refused = graphtide("ingest", log, "--store", rebuilt)
    assert refused.code == 1
    assert f"was rebuilt from {settings}" in refused.err


def test_another_bucket_gets_everything(
    graphtide: Run, record: str, settings: str, influxdb: InfluxDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "250 snapshots written" in graphtide("store", "project", "--store", record).err
    # The same server by another name stands for another one.
    monkeypatch.setenv("GRAPHTIDE_INFLUXDB__URL", influxdb.url.replace("127.0.0.1", "localhost"))
    assert "250 snapshots written" in graphtide("store", "project", "--store", record).err


def test_a_projection_is_switched_off(graphtide: Run, record: str) -> None:
    with open_writer(record) as writer, writer.transaction():
        writer.enable_projection(PROJECTION)
    with open_outbox(record) as outbox:
        assert outbox.waiting(PROJECTION) == 250
        # It needs no InfluxDB.
        assert graphtide("store", "project", "--off", "--store", record).code == 0
        with open_writer(record) as writer, writer.transaction():
            revise(writer, "toy", 3, 5)
        assert outbox.waiting(PROJECTION) == 0
    assert graphtide("store", "project", "--off", "--all", "--store", record).code == 2


@pytest.mark.usefixtures("settings")
def test_the_password_of_a_store_is_not_shown(graphtide: Run, record: str, postgres_url: str) -> None:
    ran(graphtide("store", "project", "--store", record))
    secret = postgres_url.replace("graphtide@", "graphtide:hush@")
    said = [graphtide("store", "rebuild", "--store", secret), graphtide("store", "project", "--all", "--store", secret)]
    for each in said:
        ran(each)
        assert postgres_url.replace("graphtide@", "") in each.err
        assert "hush" not in each.out + each.err


def test_a_forecast_from_influxdb_alone_is_the_same(
    graphtide: Run, record: str, settings: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SMALL.items():
        monkeypatch.setenv(f"GRAPHTIDE_{name}", value)
    ran(graphtide("store", "project", "--store", record))
    arguments = ("forecast", "toy", "--horizon", 5, "--format", "csv")
    from_record = ran(graphtide(*arguments, "--store", record))
    assert from_record.count("\n") > 5
    # The model is there by now, so that both come from the same.
    assert ran(graphtide(*arguments, "--store", settings)) == from_record


def test_a_rebuilt_graph_says_that_it_takes_no_events(
    graphtide: Run, record: str, settings: str, tmp_path: Path
) -> None:
    ran(graphtide("store", "project", "--store", record))
    rebuilt = f"sqlite:///{tmp_path / 'rebuilt.db'}"
    ran(graphtide("store", "rebuild", "--from", settings, "--store", rebuilt))
    with open_writer(rebuilt) as writer, writer.transaction():
        graph = writer.graph("toy")
        assert graph is not None
        assert graph.final_us == graph.next_step_us == graph.edges_from_us
        with pytest.raises(StoreError, match="takes no more events") as caught:
            refuse_rebuilt("toy", writer.feeders(graph))
        assert settings in caught.value.message
        refuse_rebuilt("toy", [])
    again = graphtide("store", "rebuild", "--from", settings, "--store", rebuilt)
    assert again.code == 1
    assert "has a graph 'new' already" in again.err


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_projection_beside_a_writer_survives_an_outage(
    kind: str, influxdb: InfluxDatabase, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}" if kind == "sqlite" else request.getfixturevalue("postgres_url")
    address = InfluxAddress(
        url=influxdb.url,
        org=influxdb.org,
        bucket=influxdb.bucket,
        token=influxdb.token,
        max_wait_s=0.1,
        timeout_s=5,
        settle_s=0.01,
    )
    projector = Projector(lambda: open_outbox(url), lambda: open_reader(url), address, idle_s=0.02)
    with open_writer(url) as writer:
        with writer.transaction():
            writer.enable_projection(PROJECTION)
        fill(writer, some_snapshots("toy", 100), late=0)
        with projector:
            assert projector.drain(PATIENCE_S).drained
            for turn in range(30):
                if turn == 10:
                    influxdb.server.kill()
                if turn == 20:
                    influxdb.server.restart()
                with writer.transaction():
                    revise(writer, "toy", 2 * turn, 2 * turn + 30)
                    mark_projected(writer, projector)
                projector.wake()
            assert projector.drain(PATIENCE_S).drained
            with writer.transaction():
                mark_projected(writer, projector)
    with open_outbox(url) as outbox, open_reader(url) as record, InfluxSnapshots(address) as projection:
        assert outbox.waiting(PROJECTION) == 0
        assert projection.graphs() == record.graphs()
        assert projection.snapshots("toy").digest() == record.snapshots("toy").digest()


def test_of_two_projectors_over_one_postgres_one_writes_until_it_ends(
    postgres_url: str, influxdb: InfluxDatabase
) -> None:
    address = InfluxAddress(url=influxdb.url, org=influxdb.org, bucket=influxdb.bucket, token=influxdb.token)

    def projector() -> Projector:
        opened = (lambda: open_outbox(postgres_url), lambda: open_reader(postgres_url))
        return Projector(*opened, address, idle_s=0.02).start()

    with open_writer(postgres_url) as writer:
        with writer.transaction():
            writer.enable_projection(PROJECTION)
        fill(writer, some_snapshots("toy", 20), late=0)
        first = projector()
        assert first.drain(PATIENCE_S).leads
        second = projector()
        status = second.drain(PATIENCE_S)
        assert (status.leads, status.written) == (False, 0)
        with writer.transaction():
            assert first.acknowledged() != []
            mark_projected(writer, first)
            revise(writer, "toy", 0, 5)
        assert first.drain(PATIENCE_S).written == 25
        # It ends without having its last change marked, as in a crash.
        first.close()
        deadline = time.monotonic() + PATIENCE_S
        while not (status := second.drain(PATIENCE_S)).leads:
            assert time.monotonic() < deadline
        assert status.written == 5
        second.close()


def test_projecting_waits_for_an_influxdb_that_is_away(
    graphtide: Run, record: str, settings: str, influxdb: InfluxDatabase
) -> None:
    influxdb.server.stop()
    restart = threading.Timer(1.0, influxdb.server.restart)
    restart.start()
    said = graphtide("store", "project", "--store", record)
    restart.join()
    ran(said)
    assert "Connection refused; trying again" in said.err
    assert "250 snapshots written" in said.err


def test_calls_that_cannot_work_say_what_to_do(
    graphtide: Run, record: str, settings: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = graphtide("store", "project", "--store", "sqlite:///none.db")
    assert nothing.code == 1
    assert "there is no store at none.db" in nothing.err
    assert not Path("none.db").exists()
    with pytest.raises(UsageError, match="no store of record"):
        open_writer(settings)
    empty = graphtide("store", "rebuild", "--store", "sqlite:///new.db")
    assert empty.code == 2
    assert "has no graph" in empty.err
    monkeypatch.setenv("GRAPHTIDE_INFLUXDB__BUCKET", "nowhere")
    refused = graphtide("store", "project", "--store", record)
    assert refused.code == 1
    assert "bucket 'nowhere' of InfluxDB at" in refused.err
    assert "make the bucket" in refused.err
    monkeypatch.setenv("GRAPHTIDE_INFLUXDB__URL", "")
    unset = graphtide("store", "project", "--store", record)
    assert unset.code == 2
    assert "[influxdb] url is empty" in unset.err
