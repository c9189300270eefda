"""Streams and downloads that have to end: with the key that they were begun with, or with the job's time."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from forecasting.job_worker import work
from forecasting.jobs import Job, Jobs
from forecasting.keys import KeyRing, Keys, Scope
from forecasting.service_file import ServiceFile
from infra.errors import StoreError
from infra.settings import Settings
from models.contract import PathChunk
from tests.integration.serving import save_model, served, service_settings
from tests.integration.test_long_forecasts import JOBS, SMALL, done

JOBS_PATH, LIVE_PATH = "/v1/graphs/toy/forecasts", "/v1/graphs/toy/live"
# By `[api] poll_interval_s` it is a moment; the machine may be busy.
END_S = 20
End = Callable[[Keys, str], object]


@pytest.fixture
def settings(toy_store: str, tmp_path: Path) -> Settings:
    save_model(toy_store, "toy", tmp_path / "models")
    return service_settings(toy_store, tmp_path, api={"heartbeat_s": 0.1}, jobs=JOBS)


@pytest.fixture
def client(settings: Settings) -> Iterator[httpx.Client]:
    """A service with a key; no process computes its jobs."""
    with ServiceFile(settings.api.service_db) as file:
        token = Keys(file).create("k", Scope.WRITE, ["toy"])[1]
    with served(settings) as client:
        client.headers["X-API-Key"] = token
        yield client


def stream_paths(client: httpx.Client) -> list[str]:
    here = client.post(JOBS_PATH, json=SMALL).headers["location"]
    return [f"{here}/stream", LIVE_PATH]


@pytest.mark.parametrize("end", [Keys.revoke, Keys.rotate], ids=["revoke", "rotate"])
def test_streams_end_with_the_key_or_the_secret_that_they_were_begun_with(
    client: httpx.Client, settings: Settings, end: End
) -> None:
    answers = [
        client.send(client.build_request("GET", path, headers={"Accept": "application/x-ndjson"}), stream=True)
        for path in stream_paths(client)
    ]
    lines = [answer.iter_lines() for answer in answers]
    for one in lines:
        next(one)
    with ServiceFile(settings.api.service_db) as file:
        end(Keys(file), "k")
    ended_at = time.monotonic()
    for one in lines:
        for _ in one:
            assert time.monotonic() - ended_at < END_S, "it goes on"
    for answer in answers:
        assert client.get(answer.url.path).status_code == 401


def test_streams_go_on_while_keys_cannot_be_read(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in stream_paths(client):
        with client.stream("GET", path, headers={"Accept": "application/x-ndjson"}) as answer:
            lines = answer.iter_lines()
            next(lines)
            with monkeypatch.context() as patch:

                async def away(self: KeyRing, key: object) -> bool:
                    raise StoreError("away")

                patch.setattr(KeyRing, "holds", away)
                assert [next(lines) for _ in range(3)] == ["", "", ""]


@pytest.mark.parametrize("coding", ["identity", "gzip"])
def test_a_download_whose_job_expires_breaks_off(
    toy_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, coding: str
) -> None:
    save_model(toy_store, "toy", tmp_path / "models")
    settings = service_settings(toy_store, tmp_path, jobs=JOBS)
    stop = threading.Event()
    worker = threading.Thread(target=work, args=(settings, "thread", stop), daemon=True)
    chunks = Jobs.chunks

    def expiring(self: Jobs, job: Job, after_step: int = 0) -> Iterator[PathChunk]:
        for chunk in chunks(self, job, after_step):
            yield chunk
            with self._file.transaction() as connection:
                connection.execute("DELETE FROM job_chunks WHERE job_id = ?", (job.id,))

    with served(settings) as client:
        worker.start()
        here = done(client)
        stop.set()
        worker.join(60)
        monkeypatch.setattr(Jobs, "chunks", expiring)
        with pytest.raises(httpx.RemoteProtocolError):
            client.get(f"{here}/result", headers={"Accept": "text/csv", "Accept-Encoding": coding})
