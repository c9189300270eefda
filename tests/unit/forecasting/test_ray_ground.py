"""What a replica stands on: paths that hold anywhere, files of one host, the same versions, a shared folder."""

import socket
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from forecasting.scaleout import cluster
from forecasting.scaleout.ground import Ground, from_anywhere
from forecasting.scaleout.scaling import by_requests
from infra.errors import StoreError, UsageError
from infra.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "store.db").touch()
    (tmp_path / "models").mkdir()
    return settings_of(tmp_path)


def settings_of(folder: Path, **sections: Any) -> Settings:
    api = {"service_db": folder / "service.db"} | sections.pop("api", {})
    store = {"url": f"sqlite:///{folder / 'store.db'}"} | sections.pop("store", {})
    return Settings(store=store, api=api, models={"directory": folder / "models"}, **sections)  # type: ignore[arg-type]


def test_this_process_can_serve_as_it_does(settings: Settings) -> None:
    ground = Ground.of(settings)
    ground.check()
    ground.refuse_hosts({socket.gethostname()})


def test_paths_hold_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cache = {"redis_password_file": "redis.txt", "redis_password": "x"}
    found = from_anywhere(Settings(store={"url": "sqlite:///a/b.db"}, cache=cache))  # type: ignore[arg-type]
    assert found.store.url == f"sqlite:///{tmp_path / 'a/b.db'}"
    assert found.api.service_db == tmp_path / ".graphtide/service.db"
    assert found.models.directory == tmp_path / ".graphtide/models"
    assert found.cache.redis_password_file == str(tmp_path / "redis.txt")
    assert found.cache.redis_password.get_secret_value() == "x"
    assert from_anywhere(found) == found
    plain = from_anywhere(Settings(store={"url": "postgresql://me@db/x"}))  # type: ignore[arg-type]
    assert (plain.store.url, plain.cache.redis_password_file) == ("postgresql://me@db/x", "")


def test_files_are_for_one_host(settings: Settings) -> None:
    ground = Ground.of(settings)
    with pytest.raises(UsageError, match=r"store\.db is a file that one host alone can use, and far is a node") as told:
        ground.refuse_hosts({socket.gethostname(), "far"})
    assert (told.value.place, "PostgreSQL" in str(told.value.fix)) == ("[store] url", True)
    with pytest.raises(UsageError, match="one host alone"):
        replace(ground, host="another boot").check()


@pytest.mark.parametrize(
    ("api", "place"),
    [
        ({}, "[api] service_db"),
        ({"service_db": "postgresql://me@db/x", "ingestion": True}, "[spool] path"),
        ({"service_db": "postgresql://me@db/x"}, None),
    ],
)
def test_each_file_is_named(tmp_path: Path, api: dict[str, Any], place: str | None) -> None:
    settings = settings_of(tmp_path, store={"url": "postgresql://me@db/x"})
    ground = Ground.of(settings.model_copy(update={"api": settings.api.model_copy(update=api)}))
    if place is None:
        ground.refuse_hosts({"far"})
        return
    with pytest.raises(UsageError) as told:
        ground.refuse_hosts({"far"})
    assert told.value.place == place


def test_another_file_of_the_same_name_is_refused(settings: Settings) -> None:
    ground = Ground.of(settings)
    with pytest.raises(StoreError, match="not the same file"):
        replace(ground, files={**ground.files, "[store] url": -1}).check()
    # One that is to be made later is waited for.
    replace(ground, files={}).check()


def test_models_and_versions_are_those_of_all(settings: Settings) -> None:
    ground = Ground.of(settings)
    with pytest.raises(UsageError, match="would give other answers: it has graphtide"):
        replace(ground, made_of={**ground.made_of, "graphtide": "0"}).check()
    settings.models.directory.rmdir()
    with pytest.raises(UsageError, match="has no folder"):
        ground.check()


@pytest.mark.parametrize(
    ("requests", "streams", "wanted"), [(12.0, {}, 1.5), (12.0, {"a": 3.0, "b": 9.0}, 0.0), (1.0, {"a": 2.0}, 0.0)]
)
def test_streams_are_no_load(requests: float, streams: dict[str, float], wanted: float) -> None:
    config = SimpleNamespace(get_target_ongoing_requests=lambda: 8.0)
    context = SimpleNamespace(
        aggregated_metrics={"streams": streams} if streams else None, total_num_requests=requests, config=config
    )
    assert by_requests(context) == (wanted, {})


@pytest.mark.parametrize(("missing", "told"), [("ray", "needs Ray,"), ("mmh3", "needs mmh3,")])
def test_what_is_not_installed_is_named(missing: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "find_spec", lambda name: None if name == missing else name)
    with pytest.raises(UsageError, match=told) as refused:
        cluster.require_ray("grpc", "mmh3")
    assert "graphtide[ray]" in str(refused.value.fix)
