"""What a page shows of a forecast is what the forecast says, however it was cut."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecasting.reports.outlook import MAX_BLOCKS, SHOWN_LEVELS, Outlook, block_length, block_values
from infra.schema import METRICS, QUANTILE_LEVELS, Kind
from infra.steps import DAY_US, HOUR_US, MINUTE_US, WEEK_US
from models.contract import ForecastChunk
from tests.unit.forecasting.forecast_cases import START_US, cut, some_forecast, some_history

TOTALS = [index for index, metric in enumerate(METRICS) if metric.kind is Kind.TOTAL]
OTHERS = [index for index, metric in enumerate(METRICS) if metric.kind is not Kind.TOTAL]
LEVELS = [QUANTILE_LEVELS.index(level) for level in SHOWN_LEVELS]


def outlook(chunks: list[ForecastChunk], near_steps: int = 5, block_steps: int = 7) -> Outlook:
    gathered = Outlook(first_us=START_US, step_us=HOUR_US, near_steps=near_steps, block_steps=block_steps)
    for chunk in chunks:
        gathered.add(chunk)
    return gathered


@given(st.integers(1, 60), st.lists(st.integers(0, 60), max_size=6), st.integers(1, 20), st.integers(0, 30))
def test_every_cut_gives_what_the_whole_gives(steps: int, places: list[int], block: int, near: int) -> None:
    whole = some_forecast(steps)
    gathered = outlook(cut(whole, *(place for place in places if place < steps)), near, block)
    assert gathered.steps == steps
    assert gathered.until_us == START_US + steps * HOUR_US

    first = gathered.near()
    np.testing.assert_array_equal(first.mean, whole.mean[:near])
    np.testing.assert_array_equal(first.quantiles, whole.quantiles[:near][..., LEVELS])

    far, count = gathered.far(), steps // block
    assert far.start_us.tolist() == [START_US + b * block * HOUR_US for b in range(count)]
    for b in range(count):
        part = slice(b * block, (b + 1) * block)
        expected = whole.quantiles[part].mean(axis=0)[:, LEVELS]
        np.testing.assert_allclose(far.quantiles[b, OTHERS], expected[OTHERS])
        np.testing.assert_allclose(far.mean[b, OTHERS], whole.mean[part].mean(axis=0)[OTHERS])
        end = part.stop - 1
        np.testing.assert_array_equal(far.quantiles[b, TOTALS], whole.quantiles[end][TOTALS][:, LEVELS])
        np.testing.assert_array_equal(far.mean[b, TOTALS], whole.mean[end][TOTALS])

    rest = gathered.rest()
    assert rest.start_us.tolist() == [START_US + step * HOUR_US for step in range(count * block, steps)]
    np.testing.assert_array_equal(rest.mean, whole.mean[count * block :])

    last = gathered.last()
    assert last.start_us.tolist() == [START_US + (steps - 1) * HOUR_US]
    np.testing.assert_array_equal(last.quantiles[0], whole.quantiles[-1][:, LEVELS])


def test_history_is_cut_into_blocks_from_its_end() -> None:
    history = some_history(17)
    starts_us, values = block_values(history, 5)
    assert starts_us.tolist() == [START_US + step * HOUR_US for step in (2, 7, 12)]
    np.testing.assert_allclose(values[0, OTHERS], history.values[2:7].mean(axis=0)[OTHERS])
    np.testing.assert_array_equal(values[-1, TOTALS], history.values[-1, TOTALS])


def test_history_shorter_than_a_block_has_none() -> None:
    starts_us, values = block_values(some_history(4), 5)
    assert len(starts_us) == len(values) == 0


@pytest.mark.parametrize("step_us", [MINUTE_US, HOUR_US, DAY_US, WEEK_US, 2 * WEEK_US])
@pytest.mark.parametrize("steps", [1, 200, 36_500, 500_000])
def test_blocks_are_whole_weeks_and_few(step_us: int, steps: int) -> None:
    block = block_length(step_us, steps)
    assert block % max(1, WEEK_US // step_us) == 0
    assert steps / block <= MAX_BLOCKS
    assert block_length(HOUR_US, 35_000 + 36_500) == 168
