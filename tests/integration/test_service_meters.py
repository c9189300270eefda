"""What the service measures of itself: the age of the data, its queues, and how its forecasts came out."""

import json
import re
import time
from pathlib import Path

import httpx
import pytest

from forecasting.api.scoring import Scoring
from infra.steps import HOUR_US, format_time
from stream.ingest import IngestOptions, ingest
from stream.sources.files import FileSource
from tests.integration.serving import save_model, served, service_settings

FIRST_US = 1_609_459_200_000_000
HOURS = 400
WAIT_S = 30.0


def write_hours(path: Path, hours: range) -> None:
    """Write a log with some events an hour: the same number at the same hour of the day."""
    with path.open("w") as log:
        for hour in hours:
            for number in range(3 + hour % 24):
                ts = format_time(FIRST_US + hour * HOUR_US + number * 1_000_000)
                log.write(json.dumps({"graph": "town", "src": f"u{number}", "dst": f"u{number + 1}", "ts": ts}) + "\n")


def meter(client: httpx.Client, line: str) -> float:
    """Return the value of a line of the exposition; 0 where it is not there yet."""
    found = re.search(rf"^{re.escape(line)} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return 0.0 if found is None else float(found.group(1))


def wait_for(client: httpx.Client, line: str, value: float) -> None:
    until_s = time.monotonic() + WAIT_S
    while meter(client, line) != value:
        if time.monotonic() > until_s:
            pytest.fail(f"{line} stayed at {meter(client, line)}, not {value}")
        time.sleep(0.05)


def next_step(client: httpx.Client) -> str:
    answer = client.get("/v1/graphs/town/forecast", params={"horizon": 1, "metrics": "events"}).json()
    return str(answer["outputs"][0]["start_timestamp"])


def test_the_age_of_the_data_grows_while_nobody_asks(toy_store: str, tmp_path: Path) -> None:
    with served(service_settings(toy_store, tmp_path)) as client:
        first = meter(client, 'graphtide_data_age_seconds{graph="toy"}')
        assert first > 0
        time.sleep(0.05)
        assert meter(client, 'graphtide_data_age_seconds{graph="toy"}') > first
        assert meter(client, 'graphtide_step_seconds{graph="toy"}') == 3600


def test_queues_are_told_by_kind_and_status(toy_store: str, tmp_path: Path) -> None:
    # No process works the queue off, for `served` starts none.
    with served(service_settings(toy_store, tmp_path)) as client:
        assert meter(client, 'graphtide_jobs{kind="forecast",status="queued"}') == 0
        assert meter(client, 'graphtide_job_wait_seconds{kind="forecast"}') == 0
        for _ in range(2):
            assert client.post("/v1/graphs/toy/forecasts", json={"horizon": 500}).status_code == 202
        assert client.post("/v1/graphs/toy/reports", json={"horizon": 500}).status_code == 202
        assert meter(client, 'graphtide_jobs{kind="forecast",status="queued"}') == 2
        assert meter(client, 'graphtide_jobs{kind="forecast",status="running"}') == 0
        assert meter(client, 'graphtide_jobs{kind="report",status="queued"}') == 1
        assert meter(client, 'graphtide_job_wait_seconds{kind="forecast"}') > 0


def test_a_forecast_is_scored_once_the_step_has_closed(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'store.db'}"
    log = tmp_path / "log.ndjson"
    write_hours(log, range(HOURS))
    ingest(FileSource(log), store, IngestOptions())
    save_model(store, "town", tmp_path / "models")
    scored = 'graphtide_forecast_scored_values_total{graph="town"}'
    with served(service_settings(store, tmp_path)) as client:
        forecast = client.get("/v1/graphs/town/forecast", params={"horizon": 1, "metrics": "events"}).json()
        assert meter(client, scored) == 0
        later = tmp_path / "later.ndjson"
        write_hours(later, range(HOURS, HOURS + 1))
        ingest(FileSource(later), store, IngestOptions())
        wait_for(client, scored, 18)
        observed = 3 + HOURS % 24
        median = forecast["outputs"][0]["quantiles"]["0.5"][0]
        error = meter(client, 'graphtide_forecast_event_error_total{graph="town"}')
        assert error == pytest.approx(abs(median - observed), abs=1e-4)
        assert meter(client, 'graphtide_forecast_events_observed_total{graph="town"}') == observed
        assert 0 <= meter(client, 'graphtide_forecast_inside_80_total{graph="town"}') <= 18


def test_a_mistake_in_scoring_is_told_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_arguments: object) -> None:
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr(Scoring, "score", broken)
    store = f"sqlite:///{tmp_path / 'store.db'}"
    for name, hours in (
        ("log", range(HOURS)),
        ("later", range(HOURS, HOURS + 1)),
        ("last", range(HOURS + 1, HOURS + 2)),
    ):
        write_hours(tmp_path / f"{name}.ndjson", hours)
    ingest(FileSource(tmp_path / "log.ndjson"), store, IngestOptions())
    save_model(store, "town", tmp_path / "models")
    with served(service_settings(store, tmp_path)) as client:
        first = next_step(client)
        for name in ("later", "last"):
            told = len(caplog.records)
            ingest(FileSource(tmp_path / f"{name}.ndjson"), store, IngestOptions())
            until_s = time.monotonic() + WAIT_S
            while not any("was not scored" in record.message for record in caplog.records[told:]):
                assert time.monotonic() < until_s
                time.sleep(0.05)
        assert next_step(client) > first
