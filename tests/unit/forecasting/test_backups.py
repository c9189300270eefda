"""A backup holds one moment of everything, is whole or not there, and comes back where it is asked for."""

import errno
import json
import os
import sqlite3
import threading
from pathlib import Path

import pytest
import torch

from forecasting.backups.manifest import MANIFEST_NAME, read_manifest
from forecasting.backups.restoring import restore_backup
from forecasting.backups.taking import take_backup
from forecasting.keys import Keys, Scope
from forecasting.service_file import ServiceFile
from infra.errors import StoreError, UsageError
from infra.settings import Settings
from infra.steps import HOUR_US
from models import checkpoint
from models.forecaster import ForecasterConfig, ForecasterNet
from stream.ingest import IngestOptions, ingest
from stream.simulation.config import SimulationConfig
from stream.sources.simulate import SimulatedSource
from stream.spool.file import Spool
from stream.spool.source import SpoolSource
from stream.store import open_reader, open_writer
from tests.unit.stream.ingest_cases import dump, ingest_list, query
from tests.unit.stream.store_contract import begin

TOY = SimulationConfig(years=0.01, events_per_hour=4.0, initial_users=20, communities=2)
# An event that closes the steps of those before it.
LATER = 200
SMALL = ForecasterConfig(d_model=16, n_layers=1, d_state=8, headdim=16)


def silent(_done: float, _total: float | None, _unit: str) -> None:
    pass


def settings_in(folder: Path) -> Settings:
    return Settings(
        store={"url": f"sqlite:///{folder / 'store.db'}"},  # type: ignore[arg-type]
        api={"service_db": folder / "service.db"},  # type: ignore[arg-type]
        spool={"path": folder / "spool.db"},  # type: ignore[arg-type]
        models={"directory": folder / "models"},  # type: ignore[arg-type]
    )


def put(spool: Spool, number: int) -> None:
    record = json.dumps({"src": f"a{number}", "dst": "b", "ts": 1_600_000_000 + 1800 * number}).encode()
    spool.append(
        "web", [record], b"{}", owner="me", idempotency_key=f"k{number}", digest=b"%d" % number, max_bytes=1 << 20
    )


@pytest.fixture
def system(tmp_path: Path) -> Settings:
    """A store with a graph, a spool that was drained and has more, a key, and a model."""
    folder = tmp_path / "live"
    settings = settings_in(folder)
    ingest(SimulatedSource(TOY, graph="toy"), settings.store.url, IngestOptions())
    with Spool(settings.spool.path) as spool:
        for number in range(6):
            put(spool, number)
        ingest_list(SpoolSource(spool, follow=False), folder / "store.db")
        for number in range(6, 9):
            put(spool, number)
    with ServiceFile(settings.api.service_db) as file:
        Keys(file).create("reader", Scope.READ, ("*",))
    checkpoint.save(settings.models.directory / "toy", ForecasterNet(SMALL, seed=3), {"seed": 3})
    cache = settings.models.directory / ".backtest" / "toy"
    checkpoint.save(cache, ForecasterNet(SMALL, seed=4), {})
    return settings


def test_everything_comes_back_in_another_place(system: Settings, tmp_path: Path) -> None:
    made = take_backup(system, tmp_path / "backup", force=False, on_copied=silent)
    kinds = [file.path.split("/")[0] for file in made.files]
    assert kinds == ["models", "models", "service.db", "spool.db", "store.db"]
    assert (tmp_path / "backup").stat().st_mode & 0o077 == 0
    there = settings_in(tmp_path / "there")
    restored = restore_backup(there, tmp_path / "backup", force=False, on_copied=silent)
    assert restored == made
    for name in ("store.db", "service.db", "spool.db"):
        assert dump(tmp_path / "live" / name) == dump(tmp_path / "there" / name), name
    found = checkpoint.load(there.models.directory / "toy")
    assert found is not None
    for name, tensor in ForecasterNet(SMALL, seed=3).state_dict().items():
        assert torch.equal(tensor, found.net.state_dict()[name])
    assert not (there.models.directory / ".backtest").exists()


def test_events_over_http_count_once_whatever_came_after_the_backup(system: Settings, tmp_path: Path) -> None:
    take_backup(system, tmp_path / "backup", force=False, on_copied=silent)
    with Spool(system.spool.path) as spool:
        put(spool, 9)
        put(spool, LATER)
        ingest_list(SpoolSource(spool, follow=False), tmp_path / "live" / "store.db")
    there = settings_in(tmp_path / "there")
    restore_backup(there, tmp_path / "backup", force=False, on_copied=silent)
    with Spool(there.spool.path) as spool:
        # The client sends again what was not in the backup, and something that was.
        put(spool, 9)
        put(spool, 3)
        put(spool, LATER)
        ingest_list(SpoolSource(spool, follow=False), tmp_path / "there" / "store.db")
    for url in (system.store.url, there.store.url):
        with open_reader(url) as reader:
            assert reader.graph("web").events == 10
    with open_reader(system.store.url) as one, open_reader(there.store.url) as other:
        assert one.snapshots("web").values.tobytes() == other.snapshots("web").values.tobytes()


def test_a_backup_shows_one_moment_while_the_store_is_written(system: Settings, tmp_path: Path) -> None:
    """Every commit adds a graph and an event to each: a copy of two moments would have graphs that differ."""
    enough = threading.Event()
    committed = 0

    def write() -> None:
        nonlocal committed
        with open_writer(f"sqlite:///{tmp_path / 'live' / 'store.db'}") as writer:
            while not enough.is_set():
                with writer.transaction():
                    begin(writer, f"g{committed}")
                    writer.database.fetch("UPDATE graphs SET late = late + 1")
                committed += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for number in range(5):
            before = committed
            made = take_backup(system, tmp_path / f"backup{number}", force=False, on_copied=silent)
            rows = query(tmp_path / f"backup{number}" / "store.db", "SELECT name, late FROM graphs ORDER BY id")
            n_commits = len(rows) - 2
            assert before <= n_commits <= committed + 1
            assert made.graphs == len(rows)
            assert [late for _, late in rows[2:]] == list(range(n_commits, 0, -1))
    finally:
        enough.set()
        thread.join()
    assert committed > 5


def test_nothing_is_overwritten_without_force(system: Settings, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    take_backup(system, backup, force=False, on_copied=silent)
    first = (backup / MANIFEST_NAME).read_bytes()
    with pytest.raises(UsageError, match="is there already") as refused:
        take_backup(system, backup, force=False, on_copied=silent)
    assert "--force" in str(refused.value)
    assert (backup / MANIFEST_NAME).read_bytes() == first
    before = dump(tmp_path / "live" / "store.db")
    with pytest.raises(UsageError, match="is there already, and 4 more"):
        restore_backup(system, backup, force=False, on_copied=silent)
    with open_writer(system.store.url) as writer, writer.transaction():
        writer.add_graph("more", HOUR_US)
    restore_backup(system, backup, force=True, on_copied=silent)
    assert dump(tmp_path / "live" / "store.db") == before
    take_backup(system, backup, force=True, on_copied=silent)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup", "live"]


def test_force_replaces_nothing_but_a_backup(system: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    thesis = tmp_path / "home" / "docs" / "thesis.txt"
    thesis.parent.mkdir(parents=True)
    thesis.write_text("years of work")
    (tmp_path / "home" / MANIFEST_NAME).write_text('{"name": "an app"}')
    monkeypatch.chdir(tmp_path / "home")
    for folder in (tmp_path / "home", Path(), Path(".."), tmp_path / "live", Path("/")):
        with pytest.raises(UsageError, match="something else than a backup") as refused:
            take_backup(system, folder, force=True, on_copied=silent)
        assert refused.value.fix
    assert thesis.read_text() == "years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "live"]


def test_what_lies_in_a_backup_and_is_not_of_it_is_not_deleted(system: Settings, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    take_backup(system, backup, force=False, on_copied=silent)
    take_backup(system, backup / "monday", force=False, on_copied=silent)
    with pytest.raises(UsageError, match="something else than a backup, which would be deleted: monday"):
        take_backup(system, backup, force=True, on_copied=silent)
    assert read_manifest(backup / "monday").has("store.db")


def test_a_damaged_backup_and_an_empty_folder_are_replaced(
    system: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = tmp_path / "backup"
    backup.mkdir()
    monkeypatch.chdir(backup)
    take_backup(system, Path(), force=True, on_copied=silent)
    (backup / "store.db").unlink()
    take_backup(system, backup, force=True, on_copied=silent)
    assert read_manifest(backup).has("store.db")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup", "live"]


def test_a_backup_that_cannot_be_replaced_stays(
    system: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = tmp_path / "backup"
    take_backup(system, backup, force=False, on_copied=silent)
    first = (backup / MANIFEST_NAME).read_bytes()
    rename = Path.rename

    def failing(path: Path, target: Path) -> Path:
        if path.suffix == ".part":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(StoreError, match="cannot write the backup"):
        take_backup(system, backup, force=True, on_copied=silent)
    assert (backup / MANIFEST_NAME).read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup", "live"]


def test_a_store_that_is_being_written_is_not_replaced(system: Settings, tmp_path: Path) -> None:
    take_backup(system, tmp_path / "backup", force=False, on_copied=silent)
    with open_writer(system.store.url) as writer:
        with writer.transaction():
            begin(writer, "more")
        with pytest.raises(StoreError, match="another process is writing the store"):
            restore_backup(system, tmp_path / "backup", force=True, on_copied=silent)
    with open_reader(system.store.url) as reader:
        assert "more" in [info.name for info in reader.graphs()]


@pytest.mark.parametrize("name", ["store.db", "spool.db", "service.db", "models/toy/card.json"])
@pytest.mark.parametrize("how", ["flipped", "cut", "gone"])
def test_a_backup_that_changed_is_refused_before_anything_is_written(
    system: Settings, tmp_path: Path, name: str, how: str
) -> None:
    take_backup(system, tmp_path / "backup", force=False, on_copied=silent)
    path = tmp_path / "backup" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(content if how == "flipped" else content[:-1])
    with pytest.raises(StoreError, match="a file of the backup"):
        restore_backup(settings_in(tmp_path / "there"), tmp_path / "backup", force=False, on_copied=silent)
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "has format 2; this version of graphtide reads up to 1"),
        ({"store_schema": 99}, "has schema 99"),
        ({"files": [{"path": "../live/store.db", "bytes": 1, "sha256": ""}]}, "outside the backup"),
        ({"files": []}, "holds no store"),
        ({"files": 7}, "the manifest of the backup is damaged"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    system: Settings, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    take_backup(system, tmp_path / "backup", force=False, on_copied=silent)
    path = tmp_path / "backup" / MANIFEST_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(StoreError, match=message):
        restore_backup(settings_in(tmp_path / "there"), tmp_path / "backup", force=False, on_copied=silent)
    assert not (tmp_path / "there").exists()


def test_what_is_no_backup_and_what_is_no_store_is_said(system: Settings, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is no backup"):
        read_manifest(tmp_path)
    with pytest.raises(StoreError, match="there is no store"):
        take_backup(settings_in(tmp_path / "none"), tmp_path / "backup", force=False, on_copied=silent)
    influx = system.model_copy(update={"store": system.store.model_copy(update={"url": "influxdb://localhost:1/o/b"})})
    with pytest.raises(StoreError):
        take_backup(influx, tmp_path / "backup", force=False, on_copied=silent)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["live"]


def test_a_spool_without_a_pause_ends_the_backup_with_a_reason(
    system: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.sqlite_copy._BUSY_TIMEOUT_S", 0.05)
    connection = sqlite3.connect(system.spool.path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match=r"spool\.db: database is locked"):
        take_backup(system, tmp_path / "backup", force=False, on_copied=silent)
    connection.close()
    assert not (tmp_path / "backup").exists()
