"""Forecasts with as many sample paths as are asked for, none included, in one form for all who pass them on."""

from collections.abc import Iterator, Sequence

import numpy as np

from infra.schema import METRIC_NAMES
from models.contract import ForecastChunk, Model, PathChunk, State


def roll_out(
    model: Model[State], state: State, horizon_steps: int, *, n_paths: int, chunk_steps: int, seed: int
) -> Iterator[PathChunk]:
    """Yield a forecast and `n_paths` sample paths through it, in chunks.

    The forecast is the same with paths and without them; without them nothing is drawn.

    Args:
        model, state: what to roll out.
        horizon_steps: how far.
        n_paths: how many paths; 0 for none.
        chunk_steps: steps of a chunk.
        seed: of all that is drawn.

    Raises:
        ModelError: from the chunks, the model made no forecast.
    """
    if n_paths > 0:
        return model.sample_paths(state, horizon_steps, n_paths=n_paths, chunk_steps=chunk_steps, seed=seed)
    chunks = model.rollout(state, horizon_steps, chunk_steps=chunk_steps, seed=seed)
    return (without_paths(chunk) for chunk in chunks)


def without_paths(chunk: ForecastChunk) -> PathChunk:
    """Return a forecast through which no path was drawn."""
    return PathChunk(chunk.first_step, np.empty((len(chunk), len(METRIC_NAMES), 0)), chunk)


def part(chunk: PathChunk, begin: int, end: int) -> PathChunk:
    """Return the steps of a chunk from its `begin` (inclusive) to its `end` (exclusive)."""
    first, forecast = chunk.first_step + begin, chunk.forecast
    cut = ForecastChunk(first, forecast.mean[begin:end], forecast.quantiles[begin:end])
    return PathChunk(first, chunk.values[begin:end], cut)


def joined(chunks: Sequence[PathChunk]) -> PathChunk:
    """Return consecutive chunks, at least one, as one."""
    first, forecasts = chunks[0].first_step, [chunk.forecast for chunk in chunks]
    whole = ForecastChunk(
        first,
        np.concatenate([forecast.mean for forecast in forecasts]),
        np.concatenate([forecast.quantiles for forecast in forecasts]),
    )
    return PathChunk(first, np.concatenate([chunk.values for chunk in chunks]), whole)
