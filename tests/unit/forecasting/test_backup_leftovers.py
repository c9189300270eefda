"""What a killed backup or restore has left goes with the next one to the same place; nothing else does."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from forecasting.backups.manifest import read_manifest
from forecasting.backups.restoring import restore_backup
from forecasting.backups.taking import take_backup
from infra.errors import StoreError
from infra.settings import Settings
from infra.steps import HOUR_US
from stream.spool.file import Spool
from stream.store import open_writer

KILLED = """
import os, signal, sys
from pathlib import Path
from forecasting.backups.taking import take_backup
from infra.settings import Settings

def die(done, total, unit):
    os.kill(os.getpid(), signal.SIGKILL)

take_backup(Settings(store={"url": sys.argv[1]}), Path("backup"), force=True, on_copied=die)
"""
RESTORE_KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from forecasting.backups.restoring import restore_backup
from infra.settings import Settings

copy = shutil.copyfile

def die(source, target):
    copy(source, target)
    if source.name == "store.db":
        os.kill(os.getpid(), signal.SIGKILL)

shutil.copyfile = die
settings = Settings(store={"url": "sqlite:///new/store.db"}, spool={"path": "new/spool.db"})
restore_backup(settings, Path("backup"), force=False, on_copied=print)
"""


def silent(_done: float, _total: float | None, _unit: str) -> None:
    pass


@pytest.fixture
def settings(clean_environment: Path) -> Settings:
    url = f"sqlite:///{clean_environment / 'live' / 'store.db'}"
    with open_writer(url) as writer, writer.transaction():
        writer.add_graph("g", HOUR_US)
    return Settings(store={"url": url})  # type: ignore[arg-type]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"live"}


def test_what_a_killed_backup_left_goes_with_the_next(settings: Settings) -> None:
    here = Path()
    killed = subprocess.run([sys.executable, "-c", KILLED, settings.store.url], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    (left,) = names(here)
    assert (here / left / "store.db").exists()
    replaced = here / ".backup.0123abcd.old"
    replaced.mkdir()
    others = {".backup.copy.part", ".backups.0123abcd.part", ".backup.part", "backup.0123abcd.part"}
    for other in others:
        (here / other).mkdir()
    file = here / ".backup.89abcdef.part"
    file.touch()
    take_backup(settings, Path("backup"), force=False, on_copied=silent)
    assert names(here) == others | {"backup", file.name}


def test_a_backup_that_runs_is_left_alone(settings: Settings) -> None:
    others: list[str] = []

    def meanwhile(_done: float, _total: float | None, _unit: str) -> None:
        if not others:
            others.extend(names(Path()))
            take_backup(settings, Path("backup"), force=True, on_copied=silent)
            assert names(Path()) == {*others, "backup"}

    take_backup(settings, Path("backup"), force=True, on_copied=meanwhile)
    assert len(others) == 1
    assert names(Path()) == {"backup"}
    assert read_manifest(Path("backup")).has("store.db")


def test_one_that_was_killed_while_it_replaced_another_stays_until_there_is_a_new_one(settings: Settings) -> None:
    left = {".backup.0123abcd.part", ".backup.0123abcd.old"}
    for name in left:
        Path(name).mkdir()
    nothing = settings.model_copy(update={"store": settings.store.model_copy(update={"url": "sqlite:///none.db"})})
    with pytest.raises(StoreError, match="there is no store"):
        take_backup(nothing, Path("backup"), force=False, on_copied=silent)
    assert names(Path()) == left
    take_backup(settings, Path("backup"), force=False, on_copied=silent)
    assert names(Path()) == {"backup"}


@pytest.fixture
def restored(settings: Settings) -> Settings:
    """Return the settings of another place; `backup` holds a store and a spool."""
    with_spool = settings.model_copy(
        update={"spool": settings.spool.model_copy(update={"path": Path("live/spool.db")})}
    )
    Spool(with_spool.spool.path).close()
    take_backup(with_spool, Path("backup"), force=False, on_copied=silent)
    return Settings(store={"url": "sqlite:///new/store.db"}, spool={"path": Path("new/spool.db")})  # type: ignore[arg-type]


def test_what_a_killed_restore_left_goes_with_the_next(restored: Settings) -> None:
    killed = subprocess.run([sys.executable, "-c", RESTORE_KILLED], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    new = Path("new")
    assert sorted(path.name[:9] for path in new.glob(".*.part")) == [".spool.db", ".store.db"]
    others = {".store.db.copy.part", ".store.db.schema-1.0123abcd.part", ".stores.db.0123abcd.part"}
    for other in others:
        (new / other).touch()
    (new / ".store.db.0123abcd.part").mkdir()
    restore_backup(restored, Path("backup"), force=False, on_copied=silent)
    assert names(new) == others | {".store.db.0123abcd.part", "store.db", "spool.db"}


def test_a_restore_that_runs_is_left_alone(restored: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two stores are restored at once beside one spool, whose copies both are made in the same folder."""
    other = restored.model_copy(update={"store": restored.store.model_copy(update={"url": "sqlite:///b/store.db"})})
    copy = shutil.copyfile
    parts: list[Path] = []

    def meanwhile(source: Path, target: Path) -> Path:
        copy(source, target)
        if not parts:
            parts.append(target)
            restore_backup(other, Path("backup"), force=True, on_copied=silent)
            assert target.exists()
        return target

    monkeypatch.setattr(shutil, "copyfile", meanwhile)
    restore_backup(restored, Path("backup"), force=True, on_copied=silent)
    assert parts[0].name.startswith(".spool.db.")
    assert names(Path("new")) == {"store.db", "spool.db"}
