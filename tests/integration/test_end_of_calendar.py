"""Forecasts that would end behind the last year of the calendar are refused, however they are asked for."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from forecasting import job_worker, report_worker
from forecasting.jobs import JobRequest, Jobs, Status
from forecasting.live import LiveStates
from forecasting.reports.contents import ReportRequest
from forecasting.reports.records import Reports
from forecasting.service_file import ServiceFile
from forecasting.tracing import NO_TRACING
from infra.schema import METRIC_NAMES, QUANTILE_LEVELS
from infra.steps import LAST_US, WEEK_US
from stream.decoders.builder import DecodeOptions
from stream.ingest import IngestOptions, ingest
from stream.sources.files import FileSource
from stream.store import open_reader
from tests.conftest import Ran
from tests.integration.serving import problem, served, service_settings


@pytest.fixture
def long_steps(tmp_path: Path) -> tuple[str, int]:
    """The URL of a store with a graph `g` of steps of a century, and how many of them are left of our calendar."""
    url = f"sqlite:///{tmp_path}/store.db"
    log = tmp_path / "a.ndjson"
    log.write_text("".join(f'{{"src": "a", "dst": "b", "ts": "{year}-01-01T00:00:00Z"}}\n' for year in (1975, 2199)))
    ingest(FileSource(log, DecodeOptions(graph="g")), url, IngestOptions(step_us=5_000 * WEEK_US, max_ahead_us=None))
    with open_reader(url) as reader:
        info = reader.graph("g")
    assert info.last_step_us is not None
    most = (LAST_US - info.last_step_us) // info.step_us - 1
    assert 24 < most < 168
    return url, most


def test_forecasts_that_would_end_behind_the_year_9999_are_refused(
    long_steps: tuple[str, int], tmp_path: Path, graphtide: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, most = long_steps
    with served(service_settings(url, tmp_path)) as client:
        for answer in (
            client.get("/v1/graphs/g/forecast", params={"horizon": most + 1}),
            client.get("/v1/graphs/g/live", params={"horizon": most + 1}),
            client.post("/v1/graphs/g/forecasts", json={"horizon": most + 1}),
            client.post("/v1/graphs/g/reports", json={"horizon": most + 1}),
        ):
            refused = problem(answer, 422, "invalid-parameter")
            assert "behind the year 9999" in refused["detail"]
            assert refused["maximum"] == most
        assert len(client.get("/v1/graphs/g/forecast", params={"horizon": most}).json()["outputs"]) == len(METRIC_NAMES)
        long = client.get("/v1/graphs/g/forecast", params={"horizon": most, "format": "long"})
        assert long.json()["rows"][-1]["ds"].startswith("98")
    monkeypatch.setenv("GRAPHTIDE_STORE__URL", url)
    ran = graphtide("forecast", "g", "--horizon", most + 1, "--format", "csv")
    assert ran.code == 2
    assert f"{most + 1} steps of 5000w end behind the year 9999" in ran.err
    assert f"ask for at most {most} of them" in ran.err
    assert not ran.out


@pytest.mark.parametrize("kind", ["job", "report"])
def test_what_was_asked_for_before_the_steps_closed_ends_with_the_reason(
    long_steps: tuple[str, int], tmp_path: Path, kind: str
) -> None:
    url, most = long_steps
    settings = service_settings(url, tmp_path)
    with (
        ServiceFile(settings.api.service_db) as file,
        LiveStates(lambda: open_reader(url), settings.models.directory, max_graphs=1) as states,
    ):
        if kind == "job":
            jobs = Jobs(file, settings.jobs)
            jobs.create("me", "g", JobRequest(most + 1, METRIC_NAMES, QUANTILE_LEVELS, 0))
            claimed = jobs.claim("worker")
            assert claimed is not None
            job_worker._run(jobs, claimed, states, settings, job_worker._Watch(threading.Event(), NO_TRACING))
            job = jobs.get(claimed.id)
            ended = None if job is None else (job.status, job.problem)
        else:
            reports = Reports(file, settings.reports, settings.jobs)
            reports.create("me", "g", ReportRequest(most + 1, 0, 20))
            taken = reports.claim("worker")
            assert taken is not None
            report_worker._make(reports, taken, states, settings, threading.Event())
            report = reports.get(taken.id)
            ended = None if report is None else (report.status, report.problem)
    problem = f"{most + 1} steps of 5000w end behind the year 9999: ask for at most {most} of them"
    assert ended == (Status.FAILED, problem)
