"""Answers as frames: their times reach as far as a forecast does."""

from typing import Any

import httpx
import pandas as pd
import pytest

from graphtide.results import forecast_of, series_frame
from tests.unit.graphtide.client_cases import both_clients, call


@pytest.mark.parametrize(
    ("start", "frequency", "steps", "last"),
    [
        ("2026-03-06T12:00:00Z", "1h", 24, "2026-03-07T11:00:00Z"),
        ("2250-01-01T00:00:00Z", "1d", 36_500, "2349-12-07T00:00:00Z"),
        ("2300-01-01T00:00:00Z", "1w", 36_500, "2999-07-08T00:00:00Z"),
    ],
)
def test_times_are_those_of_the_files_also_past_the_nanoseconds(
    start: str, frequency: str, steps: int, last: str
) -> None:
    numbers = [0.0] * steps
    one = {"name": "events", "start_timestamp": start, "frequency": frequency, "mean_forecast": numbers}
    frame = series_frame([{**one, "quantiles": {"0.5": numbers}}])
    assert frame["step_start"].dtype == pd.DatetimeTZDtype("us", "UTC")
    assert frame["step_start"].iloc[0] == pd.Timestamp(start)
    assert frame["step_start"].iloc[-1] == pd.Timestamp(last)


@pytest.mark.parametrize(
    ("provenance", "told"),
    [
        ({"calibrated_on": "other graphs"}, "other graphs"),
        ({"calibrated_on": "this graph"}, "this graph"),
        ({"calibrated_on": None}, None),
        # An older service, or a job that it kept.
        ({}, None),
    ],
)
def test_a_forecast_tells_on_which_graphs_it_was_calibrated(
    provenance: dict[str, str | None], told: str | None
) -> None:
    assert forecast_of({"graph": "toy", "outputs": [], "provenance": provenance}).calibrated_on == told


@both_clients
@pytest.mark.parametrize("metrics", ["events", ["events", "reciprocity"]])
def test_snapshots_of_a_range_without_a_step_are_a_frame_with_its_columns(is_async: bool, metrics: Any) -> None:
    def none(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"rows": [], "next_cursor": None})

    frame = call(is_async, none, "snapshots", "toy", start="2030-01-01", metrics=metrics)
    assert frame.empty
    assert list(frame.columns) == ["revision", *([metrics] if isinstance(metrics, str) else metrics)]
    assert isinstance(frame.index.dtype, pd.DatetimeTZDtype)
    assert frame["events"].sum() == 0


@pytest.mark.parametrize("what", ["metric", "paths"])
def test_a_metric_that_was_not_asked_for_is_an_error_and_no_empty_frame(what: str) -> None:
    outputs = [
        {"name": name, "start_timestamp": "2026-03-06T12:00:00Z", "frequency": "1h", "mean_forecast": [1.0]}
        | {"quantiles": {"0.5": [1.0]}}
        for name in ("events", "reciprocity")
    ]
    forecast = forecast_of({"graph": "toy", "outputs": outputs, "provenance": {}})
    assert len(getattr(forecast, what)("events")) == 1
    with pytest.raises(KeyError, match="no 'event' in this forecast, which is of events, reciprocity"):
        getattr(forecast, what)("event")
