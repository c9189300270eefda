"""Histories and forecasts that tests of pages share."""

import itertools

import numpy as np

from infra.schema import METRIC_INDEX as INDEX
from infra.schema import METRICS, QUANTILE_LEVELS, RUNNING_TOTALS, Kind
from infra.steps import HOUR_US
from models.contract import ForecastChunk, History

START_US = 1_609_718_400_000_000  # Monday, 2021-01-04


def some_history(steps: int, seed: int = 0, step_us: int = HOUR_US) -> History:
    """Return steps whose totals are the running sums of the new."""
    generator = np.random.default_rng(seed)
    values = generator.integers(0, 50, size=(steps, len(METRICS))).astype(np.float64)
    for index, metric in enumerate(METRICS):
        if metric.kind is Kind.SHARE:
            values[:, index] = generator.random(steps)
    for total, new in RUNNING_TOTALS:
        values[:, INDEX[total]] = values[:, INDEX[new]].cumsum()
    return History(step_us, START_US, values)


def some_forecast(steps: int, seed: int = 1) -> ForecastChunk:
    """Return a forecast in one chunk; every quantile is a number of its own."""
    generator = np.random.default_rng(seed)
    quantiles = np.sort(generator.gamma(2.0, 20.0, size=(steps, len(METRICS), len(QUANTILE_LEVELS))), axis=-1)
    for total, _ in RUNNING_TOTALS:
        quantiles[:, INDEX[total]] = 10_000 + np.sort(quantiles[:, INDEX[total]], axis=0).cumsum(axis=0)
    return ForecastChunk(0, quantiles.mean(axis=-1), quantiles)


def cut(chunk: ForecastChunk, *places: int) -> list[ForecastChunk]:
    """Return a forecast cut at some steps."""
    bounds = [0, *sorted(places), len(chunk)]
    pairs = itertools.pairwise(bounds)
    return [ForecastChunk(a, chunk.mean[a:b], chunk.quantiles[a:b]) for a, b in pairs if a < b]
