"""A service that is pointed at InfluxDB alone answers as one at the store of record."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.settings import InfluxDBSettings
from stream.store import open_writer
from stream.store.project import make_projector, project_all
from stream.store.projector import PROJECTION
from tests.integration.serving import save_model, served, service_settings
from tests.servers.influxdb import InfluxDatabase


def projected(toy_store: str, influxdb: InfluxDatabase, folder: Path) -> tuple[str, str, dict[str, Any]]:
    """Return the URLs of a copy of the store and of its projection, and the settings of the InfluxDB."""
    copied = folder / "store.db"
    shutil.copy(toy_store.removeprefix("sqlite:///"), copied)
    url = f"sqlite:///{copied}"
    section = {"url": influxdb.url, "org": influxdb.org, "bucket": influxdb.bucket, "token": influxdb.token}
    projector = make_projector(url, InfluxDBSettings(**section))
    assert projector is not None
    with open_writer(url) as writer, projector:
        with writer.transaction():
            writer.enable_projection(PROJECTION)
        project_all(writer, projector)
    return url, f"influxdb://{influxdb.url.removeprefix('http://')}/{influxdb.org}/{influxdb.bucket}", section


@pytest.mark.parametrize("with_model", [True, False])
def test_it_answers_the_same(toy_store: str, influxdb: InfluxDatabase, tmp_path: Path, with_model: bool) -> None:
    url, shown, section = projected(toy_store, influxdb, tmp_path)
    if with_model:
        save_model(url, "toy", tmp_path / "models")
    calls = (
        "/v1/graphs",
        "/v1/graphs/toy",
        "/v1/graphs/toy/snapshots?limit=500",
        "/v1/graphs/toy/forecast?horizon=48",
        "/v1/graphs/toy/forecast?horizon=5&metrics=events&quantiles=0.1,0.9&format=long",
    )
    with (
        served(service_settings(url, tmp_path)) as record,
        served(service_settings(shown, tmp_path, influxdb=section)) as alone,
    ):
        for call in calls:
            expected, found = record.get(call), alone.get(call)
            assert (found.status_code, found.content) == (200, expected.content), call
            assert found.headers.get("etag") == expected.headers.get("etag")


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("how", ["kill", "pause"])
def test_while_influxdb_is_away_the_last_state_answers_and_the_rest_says_so(
    toy_store: str, influxdb: InfluxDatabase, tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    url, shown, section = projected(toy_store, influxdb, tmp_path)
    save_model(url, "toy", tmp_path / "models")
    patience = {"timeout_s": 1, "retry_min_s": 0.2, "retry_max_s": 0.4, "pause_s": 0.5}
    settings = service_settings(shown, tmp_path, influxdb=section | patience, api={"deadline_s": 20, "cache_mb": 0})
    forecast, snapshots = "/v1/graphs/toy/forecast?horizon=24", "/v1/graphs/toy/snapshots?limit=5"
    server = influxdb.server
    with served(settings) as client:
        before = client.get(forecast)
        assert before.status_code == client.get(snapshots).status_code == 200
        getattr(server, how)()
        until(lambda: client.get("/readyz").status_code == 503)
        after = client.get(forecast)
        assert (after.status_code, after.content) == (200, before.content)
        refused = client.get(snapshots)
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:graphtide:problem:store-unavailable")
        assert refused.headers["retry-after"]
        assert client.get("/health").json()["checks"]["database_connected"] is False
        # A process that starts now lives, says what it lacks, and is ready once it can be.
        (tmp_path / "late").mkdir()
        late = service_settings(
            shown,
            tmp_path / "late",
            models={"directory": tmp_path / "models"},
            influxdb=section | patience,
            api={"deadline_s": 20},
        )
        with served(late) as newcomer:
            assert newcomer.get("/livez").status_code == 200
            assert newcomer.get("/readyz").json()["failed"] == ["database_connected"]
            assert newcomer.get(forecast).status_code == 503
            server.heal()
            until(lambda: newcomer.get("/readyz").status_code == 200)
            assert newcomer.get(forecast).content == before.content
        until(lambda: client.get("/readyz").status_code == 200)
        assert client.get(snapshots).status_code == 200
    assert "the snapshots cannot be read" in refused.text or "were not there" in refused.text
    assert "is away: it is left alone between tries" in caplog.text
    assert "answers again" in caplog.text
    assert influxdb.token not in caplog.text or not influxdb.token


def test_a_request_that_hangs_ends_with_its_deadline(toy_store: str, influxdb: InfluxDatabase, tmp_path: Path) -> None:
    _, shown, section = projected(toy_store, influxdb, tmp_path)
    # Nobody else asks, so that no breaker is open when it comes; the client waits for less than InfluxDB would.
    settings = service_settings(
        shown,
        tmp_path,
        influxdb=section | {"timeout_s": 60, "failures": 99},
        api={"deadline_s": 3, "poll_interval_s": 600},
    )
    with served(settings) as client:
        assert client.get("/v1/graphs").status_code == 200
        influxdb.server.pause()
        try:
            assert client.get("/v1/graphs/toy/snapshots?limit=5").status_code == 503
        finally:
            influxdb.server.resume()
