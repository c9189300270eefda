"""Bodies of forecasts: the numbers as text, cut together from what was written once."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecasting.api.bodies import Digits, encode, series
from infra.schema import METRIC_INDEX, METRIC_NAMES, QUANTILE_LEVELS
from models.contract import ForecastChunk
from tests.unit.forecasting.forecast_cases import some_forecast

PLACE = {"first_step_us": 1_600_000_000_000_000, "step_us": 3_600_000_000}
some_metrics = st.lists(st.sampled_from(METRIC_NAMES), min_size=1, unique=True).map(tuple)
some_levels = st.lists(st.sampled_from(QUANTILE_LEVELS), unique=True).map(tuple)


def written(chunk: ForecastChunk, metrics: tuple[str, ...], levels: tuple[float, ...], digits: Digits | None) -> bytes:
    return encode(series(chunk, **PLACE, metrics=metrics, levels=levels, digits=digits))


@given(metrics=some_metrics, levels=some_levels, steps=st.integers(1, 5))
def test_every_part_of_a_forecast_has_its_numbers(
    metrics: tuple[str, ...], levels: tuple[float, ...], steps: int
) -> None:
    chunk = some_forecast(steps)
    body = written(chunk, metrics, levels, None)
    for name, found in zip(metrics, json.loads(body), strict=True):
        index = METRIC_INDEX[name]
        assert (found["name"], found["start_timestamp"], found["frequency"]) == (name, "2020-09-13T12:26:40Z", "1h")
        assert found["mean_forecast"] == pytest.approx(chunk.mean[:, index])
        assert list(found["quantiles"]) == [f"{level:g}" for level in levels]
        for level in levels:
            expected = chunk.quantiles[:, index, QUANTILE_LEVELS.index(level)]
            assert found["quantiles"][f"{level:g}"] == pytest.approx(expected)


@given(asked=st.lists(st.tuples(some_metrics, some_levels), min_size=1, max_size=4))
def test_what_was_written_before_changes_no_byte(asked: list[tuple[tuple[str, ...], tuple[float, ...]]]) -> None:
    digits, chunks = Digits(2), [some_forecast(steps) for steps in (1, 3, 3)]
    for metrics, levels in asked:
        for chunk in chunks:
            assert written(chunk, metrics, levels, digits) == written(chunk, metrics, levels, None)


def test_whole_numbers_survive_that_are_too_large_for_seven_digits() -> None:
    chunk = some_forecast(2)
    large = chunk.mean.copy()
    large[:, METRIC_INDEX["events"]] = [16_777_217.0, 5.0]
    body = written(ForecastChunk(0, large, chunk.quantiles), ("active_nodes", "events"), (0.5,), Digits(1))
    assert json.loads(body)[1]["mean_forecast"] == [16_777_217.0, 5.0]
    assert np.allclose(json.loads(body)[0]["mean_forecast"], chunk.mean[:, METRIC_INDEX["active_nodes"]])
