"""Chunks of a long-range forecast as bytes: the wanted metrics, levels and paths, in float32 where that is exact."""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from infra.errors import StoreError
from infra.schema import METRIC_INDEX, METRIC_NAMES, QUANTILE_LEVELS
from models.contract import ForecastChunk, PathChunk

# Whole numbers up to here survive float32.
EXACT_FLOAT32 = 2.0**24
_KINDS = {b"4": "<f4", b"8": "<f8"}


def pack(chunk: PathChunk, metrics: Sequence[str], levels: Sequence[float]) -> bytes:
    """Return a chunk's mean, levels and paths [steps, metrics, 1 + levels + paths]; equal numbers give equal bytes."""
    rows = [METRIC_INDEX[name] for name in metrics]
    columns = [QUANTILE_LEVELS.index(level) for level in levels]
    quantiles = chunk.forecast.quantiles[:, rows][:, :, columns]
    numbers = np.concatenate([chunk.forecast.mean[:, rows, None], quantiles, chunk.values[:, rows]], axis=-1)
    kind = b"4" if numbers.max(initial=0) <= EXACT_FLOAT32 else b"8"
    return kind + np.ascontiguousarray(numbers, dtype=_KINDS[kind]).tobytes()


def unpack(
    body: bytes, first_step: int, metrics: Sequence[str], levels: Sequence[float], n_paths: int = 0
) -> PathChunk:
    """Return the chunk of `pack`; metrics and levels that were not kept are 0.

    Raises:
        StoreError: the bytes are no such chunk.
    """
    width = 1 + len(levels) + n_paths
    kind = _KINDS.get(body[:1])
    if kind is None or (len(body) - 1) % (len(metrics) * width * np.dtype(kind).itemsize):
        raise StoreError("a chunk of the forecast is damaged", fix="ask for the forecast again")
    numbers: npt.NDArray[np.float64] = np.frombuffer(body, dtype=kind, offset=1).astype(np.float64)
    numbers = numbers.reshape(-1, len(metrics), width)
    mean = np.zeros((len(numbers), len(METRIC_NAMES)))
    quantiles = np.zeros((len(numbers), len(METRIC_NAMES), len(QUANTILE_LEVELS)))
    rows = np.array([METRIC_INDEX[name] for name in metrics])
    columns = np.array([QUANTILE_LEVELS.index(level) for level in levels])
    mean[:, rows] = numbers[:, :, 0]
    quantiles[:, rows[:, None], columns[None]] = numbers[:, :, 1 : width - n_paths]
    values = np.zeros((len(numbers), len(METRIC_NAMES), n_paths))
    values[:, rows] = numbers[:, :, width - n_paths :]
    return PathChunk(first_step, values, ForecastChunk(first_step, mean, quantiles))


def digest(body: bytes) -> bytes:
    """Return a digest of a chunk's bytes."""
    return hashlib.blake2b(body, digest_size=16).digest()
