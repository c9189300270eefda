"""Jobs that end while they are read: a result breaks off, a stream ends without telling of an end."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forecasting import job_chunks
from forecasting.api import results, streams
from forecasting.jobs import Job, JobRequest, Jobs
from forecasting.service_file import ServiceFile
from infra.errors import StoreError
from infra.settings import JobSettings
from infra.steps import HOUR_US
from models.futures import without_paths
from tests.unit.forecasting.forecast_cases import START_US, cut, some_forecast

REQUEST = JobRequest(30, ("events", "total_nodes"), (0.1, 0.9), 0)
KEEP_S = 60


class Clock:
    """A time of day that a test moves."""

    us = 1_000_000_000_000_000

    def __call__(self) -> int:
        return self.us


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def jobs(tmp_path: Path, clock: Clock) -> Iterator[Jobs]:
    with ServiceFile(tmp_path / "service.db") as file:
        yield Jobs(file, JobSettings(keep_s=KEEP_S), clock)


@pytest.fixture
def job(jobs: Jobs) -> Job:
    """A job whose three chunks are done."""
    jobs.create("o", "g", REQUEST)
    running = jobs.claim("w")
    assert running is not None
    jobs.begin(running, {"first_step_us": START_US, "step_us": HOUR_US, "chunk_steps": 10})
    for chunk in cut(some_forecast(30), 10, 20):
        body = job_chunks.pack(without_paths(chunk), REQUEST.metrics, REQUEST.quantiles)
        jobs.keep(running, chunk.first_step, len(chunk), body)
    jobs.finish(running)
    done = jobs.get(running.id)
    assert done is not None
    return done


def expire(jobs: Jobs, clock: Clock) -> None:
    clock.us += (KEEP_S + 1) * 1_000_000
    jobs.sweep()


def told(jobs: Jobs, job: Job, on_event: Callable[[], None] | None = None, over_after: int = 100) -> list[str]:
    """Return the kinds of events of a job's stream; `on_event` is called after each, `over_after` looks it is over."""
    looks = 0

    async def is_over() -> bool:
        nonlocal looks
        looks += 1
        return looks > over_after

    async def read() -> list[str]:
        kinds = []
        async for event in streams.events(jobs, job.id, 0, streams.SSE, heartbeat_s=60, is_over=is_over):
            kinds.append(event.split(b"event: ")[1].split(b"\n")[0].decode())
            if on_event is not None:
                on_event()
        return kinds

    return asyncio.run(read())


@pytest.mark.parametrize("media_type", [results.CSV, results.PARQUET, results.ARROW])
def test_a_result_that_expires_halfway_has_no_valid_end(jobs: Jobs, job: Job, clock: Clock, media_type: str) -> None:
    content = results.content(jobs, job, media_type)
    next(content)
    expire(jobs, clock)
    with pytest.raises(StoreError, match="its time is over"):
        list(content)


@pytest.mark.parametrize("media_type", results.MEDIA_TYPES)
def test_a_result_that_expired_before_its_first_chunk_is_no_empty_one(
    jobs: Jobs, job: Job, clock: Clock, media_type: str
) -> None:
    content = results.content(jobs, job, media_type)
    expire(jobs, clock)
    with pytest.raises(StoreError, match="its time is over"):
        list(content)


def test_a_stream_tells_all_chunks_and_how_the_job_ended(jobs: Jobs, job: Job) -> None:
    assert told(jobs, job) == ["chunk", "chunk", "chunk", "end"]


def test_a_stream_whose_job_expires_ends_without_telling_that_it_was_done(
    jobs: Jobs, job: Job, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    assert told(jobs, job, on_event=lambda: expire(jobs, clock)) == ["chunk"]
    assert "its time is over" in caplog.text


def test_a_stream_ends_once_its_reader_may_not_go_on(jobs: Jobs) -> None:
    waiting, _ = jobs.create("o", "g", REQUEST)
    assert told(jobs, waiting, over_after=3) == []
