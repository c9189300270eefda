"""A service that is pointed at InfluxDB alone answers as one at the store of record."""

import shutil
from pathlib import Path

import pytest

from infra.settings import InfluxDBSettings
from stream.store import open_writer
from stream.store.project import make_projector, project_all
from stream.store.projector import PROJECTION
from tests.integration.serving import save_model, served, service_settings
from tests.servers.influxdb import InfluxDatabase


@pytest.mark.parametrize("with_model", [True, False])
def test_it_answers_the_same(toy_store: str, influxdb: InfluxDatabase, tmp_path: Path, with_model: bool) -> None:
    copied = tmp_path / "store.db"
    shutil.copy(toy_store.removeprefix("sqlite:///"), copied)
    url = f"sqlite:///{copied}"
    section = {"url": influxdb.url, "org": influxdb.org, "bucket": influxdb.bucket, "token": influxdb.token}
    projector = make_projector(url, InfluxDBSettings(**section))
    assert projector is not None
    with open_writer(url) as writer, projector:
        with writer.transaction():
            writer.enable_projection(PROJECTION)
        project_all(writer, projector)
    if with_model:
        save_model(url, "toy", tmp_path / "models")
    projected = f"influxdb://{influxdb.url.removeprefix('http://')}/{influxdb.org}/{influxdb.bucket}"
    calls = (
        "/v1/graphs",
        "/v1/graphs/toy",
        "/v1/graphs/toy/snapshots?limit=500",
        "/v1/graphs/toy/forecast?horizon=48",
        "/v1/graphs/toy/forecast?horizon=5&metrics=events&quantiles=0.1,0.9&format=long",
    )
    with (
        served(service_settings(url, tmp_path)) as record,
        served(service_settings(projected, tmp_path, influxdb=section)) as alone,
    ):
        for call in calls:
            expected, found = record.get(call), alone.get(call)
            assert (found.status_code, found.content) == (200, expected.content), call
            assert found.headers.get("etag") == expected.headers.get("etag")
