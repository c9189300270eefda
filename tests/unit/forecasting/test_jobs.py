"""The table of jobs: one key one job, limits, leases, fences, and chunks that come back as they were."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from forecasting import job_chunks
from forecasting.jobs import Job, JobRequest, Jobs, KeyReusedError, LostJobError, Status, TooManyJobsError
from forecasting.service_file import ServiceFile
from infra.errors import StoreError
from infra.schema import METRIC_INDEX, METRIC_NAMES, QUANTILE_LEVELS
from infra.settings import JobSettings
from models.contract import PathChunk
from models.futures import without_paths
from tests.unit.forecasting.forecast_cases import cut, some_forecast

REQUEST = JobRequest(30, ("total_nodes", "events"), (0.1, 0.9), 0)


class Clock:
    """A time of day that a test moves."""

    us = 1_000_000_000_000_000

    def __call__(self) -> int:
        self.us += 1
        return self.us


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table(service_db: Path | str, clock: Clock) -> Iterator[Jobs]:
    settings = JobSettings(max_active=5, max_active_per_key=3, max_attempts=2, lease_s=10, keep_s=60)
    with ServiceFile(service_db) as file:
        yield Jobs(file, settings, clock)


def begun(table: Jobs, worker: str = "w") -> Job:
    job = table.claim(worker)
    assert job is not None
    return job


def stands(table: Jobs, job: Job) -> Job:
    found = table.get(job.id)
    assert found is not None
    return found


def test_one_idempotency_key_one_job(table: Jobs) -> None:
    first, is_new = table.create("o", "g", REQUEST, "k")
    assert is_new
    assert table.create("o", "g", REQUEST, "k") == (first, False)
    with pytest.raises(KeyReusedError):
        table.create("o", "g", JobRequest(31, REQUEST.metrics, REQUEST.quantiles, 0), "k")
    with pytest.raises(KeyReusedError):
        table.create("o", "h", REQUEST, "k")
    assert table.create("other", "g", REQUEST, "k")[0].id != first.id


def test_limits_of_an_owner_and_of_all(table: Jobs) -> None:
    for _ in range(3):
        last, _ = table.create("a", "g", REQUEST)
    with pytest.raises(TooManyJobsError) as refused:
        table.create("a", "g", REQUEST)
    assert refused.value.of_caller
    for _ in range(2):
        table.create("b", "g", REQUEST)
    with pytest.raises(TooManyJobsError) as refused:
        table.create("b", "g", REQUEST)
    assert not refused.value.of_caller
    table.cancel(last.id)
    table.create("a", "g", REQUEST)


def test_jobs_are_begun_in_order_and_by_one_process_each(table: Jobs) -> None:
    queued = [table.create("o", "g", REQUEST)[0].id for _ in range(3)]
    assert [begun(table, worker).id for worker in "abc"] == queued
    assert table.claim("d") is None


def test_who_is_taken_over_keeps_nothing_more(table: Jobs, clock: Clock) -> None:
    table.create("o", "g", REQUEST)
    slow = begun(table, "slow")
    table.begin(slow, {"snapshots": 3})
    table.keep(slow, 0, 10, b"4")
    clock.us += 9_000_000
    table.renew(slow)
    clock.us += 9_000_000
    assert table.claim("quick") is None
    clock.us += 2_000_000
    quick = begun(table, "quick")
    assert (quick.id, quick.steps_done, quick.ground) == (slow.id, 10, {"snapshots": 3})
    for late in (
        lambda: table.keep(slow, 10, 10, b"4"),
        lambda: table.renew(slow),
        lambda: table.begin(slow, {}),
        lambda: table.finish(slow),
    ):
        with pytest.raises(LostJobError):
            late()
    table.keep(quick, 10, 20, b"4")
    table.finish(quick)
    done = stands(table, quick)
    assert (done.status, done.steps_done, done.ground) == (Status.DONE, 30, {"snapshots": 3})
    assert list(table.kept_digests(done)) == [0, 10]


def test_a_cancelled_job_ends_and_a_finished_one_stays(table: Jobs) -> None:
    table.create("o", "g", REQUEST)
    job = begun(table)
    table.cancel(job.id)
    with pytest.raises(LostJobError):
        table.keep(job, 0, 10, b"4")
    assert table.kept_digests(job) == {}
    table.cancel(job.id)
    assert stands(table, job).status is Status.CANCELLED
    table.create("o", "g", REQUEST)
    other = begun(table)
    table.finish(other)
    table.cancel(other.id)
    assert stands(table, other).status is Status.DONE


def test_a_job_that_ends_its_process_again_and_again_fails(table: Jobs) -> None:
    table.create("o", "g", REQUEST)
    for worker in "ab":
        begun(table, worker)
        table.release(worker, is_blameless=False)
    job_id = table.create("o", "g", REQUEST)[0].id
    assert begun(table, "c").id == job_id, "the one that fails does not hold up the next"


def test_a_job_that_was_put_back_for_no_fault_of_its_own_goes_on(table: Jobs) -> None:
    job, _ = table.create("o", "g", REQUEST)
    for worker in "abcd":
        assert begun(table, worker).id == job.id
        table.release(worker, is_blameless=True)
    assert stands(table, job).status is Status.QUEUED


def test_finished_jobs_go_when_their_time_is_over(table: Jobs, clock: Clock) -> None:
    table.create("o", "g", REQUEST)
    job = begun(table)
    table.keep(job, 0, 30, b"4")
    table.finish(job)
    table.sweep()
    assert table.get(job.id) is not None
    clock.us += 61_000_000
    waiting, _ = table.create("o", "g", REQUEST)
    table.sweep()
    assert table.get(job.id) is None
    assert table.kept_digests(job) == {}
    assert table.get(waiting.id) is not None


def test_chunks_come_back_cut_behind_the_last_step_that_was_read(table: Jobs) -> None:
    table.create("o", "g", REQUEST)
    job, whole = begun(table), some_forecast(30)
    for chunk in cut(whole, 10, 25):
        body = job_chunks.pack(without_paths(chunk), REQUEST.metrics, REQUEST.quantiles)
        table.keep(job, chunk.first_step, len(chunk), body)
    for after in (0, 5, 10, 24, 29, 30):
        chunks = list(table.chunks(job, after))
        assert sum(len(chunk) for chunk in chunks) == 30 - after
        if not chunks:
            continue
        assert chunks[0].first_step == after
        values = np.concatenate([chunk.forecast.quantiles for chunk in chunks])
        for name in REQUEST.metrics:
            for level in REQUEST.quantiles:
                at = METRIC_INDEX[name], QUANTILE_LEVELS.index(level)
                assert values[:, *at] == pytest.approx(whole.quantiles[after:, *at], rel=1e-6)


def test_a_job_whose_time_is_over_is_not_taken_for_one_that_was_read_to_its_end(table: Jobs, clock: Clock) -> None:
    job, _ = table.create("o", "g", REQUEST)
    begun(table)
    running = stands(table, job)
    for chunk in cut(some_forecast(30), 10, 20):
        body = job_chunks.pack(without_paths(chunk), REQUEST.metrics, REQUEST.quantiles)
        table.keep(running, chunk.first_step, len(chunk), body)
    table.finish(running)
    done = stands(table, job)
    halfway = table.chunks(done)
    assert len(next(halfway)) == 10
    clock.us += 61_000_000
    table.sweep()
    with pytest.raises(StoreError, match="its time is over"):
        next(halfway)
    with pytest.raises(StoreError, match="its time is over"):
        next(table.chunks(done))
    assert list(table.chunks(done, 30)) == []


def test_large_whole_numbers_are_kept_to_the_last_digit() -> None:
    chunk = some_forecast(5)
    chunk.mean[:] = 2.0**24 + 1
    back = job_chunks.unpack(job_chunks.pack(without_paths(chunk), ("events",), (0.5,)), 0, ("events",), (0.5,))
    assert (back.forecast.mean[:, METRIC_INDEX["events"]] == 2.0**24 + 1).all()


def test_paths_are_kept_beside_the_levels_and_jobs_without_them_stay_readable() -> None:
    forecast = some_forecast(5)
    values = np.arange(5 * len(METRIC_NAMES) * 3, dtype=np.float64).reshape(5, len(METRIC_NAMES), 3)
    body = job_chunks.pack(PathChunk(0, values, forecast), ("events", "new_nodes"), (0.5,))
    back = job_chunks.unpack(body, 0, ("events", "new_nodes"), (0.5,), 3)
    for name in ("events", "new_nodes"):
        assert np.array_equal(back.values[:, METRIC_INDEX[name]], values[:, METRIC_INDEX[name]])
        at = METRIC_INDEX[name], QUANTILE_LEVELS.index(0.5)
        assert back.forecast.quantiles[:, *at] == pytest.approx(forecast.quantiles[:, *at], rel=1e-6)
    of_before = '{"horizon": 30, "metrics": ["total_nodes", "events"], "quantiles": [0.1, 0.9], "seed": 0}'
    assert JobRequest.parse(of_before) == REQUEST


@pytest.mark.parametrize("body", [b"", b"5abcd", b"4", b"4abc"])
def test_damaged_chunks_are_noticed(body: bytes) -> None:
    if body == b"4":
        assert len(job_chunks.unpack(body, 0, ("events",), (0.5,))) == 0
        return
    with pytest.raises(StoreError, match="damaged"):
        job_chunks.unpack(body, 0, ("events",), (0.5,))
