"""The drill: a backup of a running system is restored elsewhere, and ingestion goes on as if nothing had been.

Events come through a real broker all the while; the end is compared with a run that nothing disturbed.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from forecasting.keys import Keys, Scope
from forecasting.service_file import ServiceFile
from infra.errors import StoreError
from stream.store import open_reader, open_writer
from tests.conftest import Ran
from tests.integration.test_chaos import PARTITIONS, Producer, metrics_of
from tests.servers.kafka import KafkaServer

Cli = Callable[..., Ran]
GRAPHTIDE = str(Path(sys.executable).with_name("graphtide"))
SETTINGS = {
    "GRAPHTIDE_INGEST__BATCH_ROWS": "150",
    "GRAPHTIDE_INGEST__OUT_OF_ORDERNESS_S": "5",
    "GRAPHTIDE_INGEST__ALLOWED_LATENESS_S": "120",
    "GRAPHTIDE_INGEST__DEDUP_WINDOW_S": "600",
    "OMP_NUM_THREADS": "1",
}
N_BURSTS = 6
BURST_EVENTS = 400
DEADLINE_S = 60


@contextmanager
def following(call: list[str], store: str, folder: Path) -> Iterator[None]:
    """Run an ingestion beside what is done here; it is killed at the end, not asked to stop."""
    log = folder / "ingest.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [GRAPHTIDE, *call, "--store", store, "--follow"],
            cwd=folder, env={**os.environ, **SETTINGS}, stdout=subprocess.DEVNULL, stderr=errors,
        )  # fmt: skip
    try:
        yield
        assert process.poll() is None, log.read_text(errors="replace")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(DEADLINE_S)


def wait_for_snapshots(store: str, more_than: int) -> int:
    """Return how many snapshots there are once there are more than so many."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            with open_reader(store) as reader:
                found = sum(info.snapshots for info in reader.graphs())
        except StoreError:  # it is not there yet
            found = 0
        if found > more_than:
            return found
        time.sleep(0.05)
    pytest.fail(f"the store has {found} snapshots after {DEADLINE_S} s")


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_restored_store_goes_on_as_if_nothing_had_been(
    kind: str, graphtide: Cli, kafka: KafkaServer, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    folder = Path.cwd()
    live = f"sqlite:///{folder / 'live.db'}" if kind == "sqlite" else request.getfixturevalue("postgres_url")
    producer = Producer(kafka, kafka.create_topic(partitions=PARTITIONS), random.Random(7))
    topic = producer.topic
    call = ["ingest", "kafka", "--bootstrap-servers", kafka.bootstrap_servers, "--topics", topic, "--step", "1m"]
    backups = []
    with following(call, live, folder):
        snapshots = 0
        for burst in range(N_BURSTS):
            producer.send(BURST_EVENTS)
            snapshots = wait_for_snapshots(live, snapshots)
            backups.append(folder / f"backup{burst}")
            ran = graphtide("store", "backup", backups[-1], "--store", live)
            assert ran.code == 0, ran.err
    producer.send(BURST_EVENTS)

    undisturbed = f"sqlite:///{folder / 'undisturbed.db'}"
    assert graphtide(*call, "--store", undisturbed, "--close-at-end").code == 0
    with open_reader(undisturbed) as reader:
        expected = metrics_of(reader)
        late = {info.name: info.late for info in reader.graphs()}
    assert all(late.values()), "no event was late"
    for number in (0, N_BURSTS - 1):
        restored = f"sqlite:///{folder / f'restored{number}.db'}"
        assert graphtide("store", "restore", backups[number], "--store", restored).code == 0
        with open_reader(restored) as reader:
            before = metrics_of(reader)
        assert 0 < len(before["town"][0]) < len(expected["town"][0])
        ran = graphtide(*call, "--store", restored, "--close-at-end")
        assert ran.code == 0, ran.err
        with open_reader(restored) as reader:
            assert metrics_of(reader) == expected
            assert {info.name: info.late for info in reader.graphs()} == late


def test_a_backup_is_restored_into_postgresql(graphtide: Cli, toy_store: str, postgres_url: str) -> None:
    assert graphtide("store", "backup", "backup", "--store", toy_store).code == 0
    ran = graphtide("store", "restore", "backup", "--store", postgres_url)
    assert ran.code == 0, ran.err
    assert graphtide("store", "verify", toy_store, postgres_url).code == 0
    again = graphtide("store", "restore", "backup", "--store", postgres_url, "--force")
    assert again.code == 1
    assert "is not empty" in again.err


def test_a_restore_into_postgresql_that_failed_is_run_again(
    graphtide: Cli, toy_store: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ServiceFile(Path("service.db")) as file:
        Keys(file).create("reader", Scope.READ, ("*",))
    monkeypatch.setenv("GRAPHTIDE_API__SERVICE_DB", "service.db")
    assert graphtide("store", "backup", "backup", "--store", toy_store).code == 0
    Path("taken").write_text("no folder")
    monkeypatch.setenv("GRAPHTIDE_API__SERVICE_DB", "taken/service.db")
    assert graphtide("store", "restore", "backup", "--store", postgres_url).code == 1
    monkeypatch.setenv("GRAPHTIDE_API__SERVICE_DB", "there/service.db")
    ran = graphtide("store", "restore", "backup", "--store", postgres_url)
    assert ran.code == 0, ran.err
    assert graphtide("store", "verify", toy_store, postgres_url).code == 0
    assert Path("there/service.db").exists()


def test_a_store_in_postgresql_that_is_not_empty_is_refused_before_anything_is_replaced(
    graphtide: Cli, toy_store: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHTIDE_API__SERVICE_DB", "service.db")
    with ServiceFile(Path("service.db")) as file:
        Keys(file).create("before", Scope.READ, ("*",))
    assert graphtide("store", "backup", "backup", "--store", toy_store).code == 0
    with ServiceFile(Path("service.db")) as file:
        Keys(file).create("after", Scope.READ, ("*",))
    with open_writer(postgres_url) as writer, writer.transaction():
        writer.add_source("another", split_by_type=False)
    ran = graphtide("store", "restore", "backup", "--store", postgres_url, "--force")
    assert ran.code == 1
    assert "is not empty" in ran.err
    with ServiceFile(Path("service.db")) as file:
        assert sorted(key.name for key in Keys(file).all()) == ["after", "before"]
