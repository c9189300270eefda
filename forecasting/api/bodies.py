"""Snapshots and forecasts as JSON; forecasts are series by the names of KServe's
time-series API, or rows for pandas and its friends.

Numbers are written from float32 where that is exact for whole numbers, which halves the bytes: seven digits of a
forecast say all that it knows. Rounding to float32 keeps the order of numbers, and with it every invariant.
"""

from collections import OrderedDict
from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from forecasting.export import path_names
from forecasting.live import LiveState
from infra.schema import METRIC_INDEX, METRICS, QUANTILE_LEVELS, SCHEMA_VERSION, Kind
from infra.steps import format_duration, format_time
from models.contract import FloatArray, ForecastChunk, PathChunk
from stream.store.base import SnapshotTable

_EXACT_FLOAT32 = 2.0**24


class Layout(StrEnum):
    """How a forecast is laid out in JSON."""

    SERIES = "series"
    LONG = "long"


def provenance(live: LiveState, *, seed: int) -> dict[str, Any]:
    """Return what a forecast rests on: model, state step, end of its data, whether a floor answers."""
    return {
        "model": live.model.name,
        "model_digest": live.model_digest,
        "metric_schema": SCHEMA_VERSION,
        "state_step": format_time(live.next_step_us - live.step_us),
        "observed_until": format_time(live.next_step_us),
        "snapshots": live.snapshots,
        "snapshot_digest": live.digest,
        "degraded": live.degraded_reason is not None,
        "degraded_reason": live.degraded_reason,
        "calibrated_until_step": live.calibrated_until_step,
        "skill_until_step": live.skill_until_step,
        "calibrated_on": live.calibrated_on,
        "seed": seed,
    }


def compact(values: FloatArray) -> npt.NDArray[Any]:
    """Return values as float32, or as they are where whole numbers among them would not survive that."""
    return np.ascontiguousarray(values if values.max(initial=0) > _EXACT_FLOAT32 else values.astype(np.float32))


def _columns(chunk: ForecastChunk, of_metrics: list[int], of_levels: list[int]) -> list[list[bytes]]:
    """Return the numbers of each metric, its mean and then its quantiles over the steps, in the digits of `compact`.

    All are written at once and cut apart: a hundred small arrays take longer to make than to write.
    """
    both_LMC = np.concatenate(
        [chunk.mean[:, of_metrics, None], chunk.quantiles[:, of_metrics][:, :, of_levels]], axis=2
    )
    width = both_LMC.shape[2]
    exact_NL = np.ascontiguousarray(both_LMC.reshape(len(both_LMC), -1).T)
    columns = encode(exact_NL.astype(np.float32))[2:-2].split(b"],[")
    for row in np.flatnonzero(exact_NL.max(axis=1, initial=0) > _EXACT_FLOAT32).tolist():
        columns[row] = encode(exact_NL[row])[1:-1]
    return [columns[begin : begin + width] for begin in range(0, len(columns), width)]


class Digits:
    """The numbers of the latest forecasts as text, written once for all answers that are parts of them.

    For one thread.

    Args:
        keep: forecasts whose numbers are kept.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        # By identity: a chunk that is held here has its number to itself.
        self._known: OrderedDict[int, tuple[ForecastChunk, list[list[bytes]]]] = OrderedDict()

    def columns(self, chunk: ForecastChunk, of_metrics: list[int], of_levels: list[int]) -> list[list[bytes]]:
        """Return for each metric the text of its mean and of its quantiles over the steps."""
        if id(chunk) not in self._known:
            whole = _columns(chunk, list(range(len(METRICS))), list(range(len(QUANTILE_LEVELS))))
            self._known[id(chunk)] = chunk, whole
            while len(self._known) > self._keep:
                self._known.popitem(last=False)
        _, whole = self._known[id(chunk)]
        columns = [0, *(1 + level for level in of_levels)]
        return [[whole[metric][column] for column in columns] for metric in of_metrics]


@lru_cache(maxsize=1024)
def _frame(name: str, start: str, frequency: str, levels: tuple[float, ...]) -> list[bytes]:
    """Return what stands before, between and behind the numbers of a metric, its mean first."""
    empty = {
        "type": "time_series_forecast",
        "name": name,
        "start_timestamp": start,
        "frequency": frequency,
        "mean_forecast": [],
        "quantiles": {f"{level:g}": [] for level in levels},
    }
    first, *between, last = orjson.dumps(empty).split(b"[]")
    return [first + b"[", *(b"]" + text + b"[" for text in between), b"]" + last]


def series(
    chunk: ForecastChunk,
    *,
    first_step_us: int,
    step_us: int,
    metrics: Sequence[str],
    levels: Sequence[float],
    digits: Digits | None = None,
) -> list[orjson.Fragment]:
    """Return one object a metric: `name, start_timestamp, frequency, mean_forecast, quantiles`; for `encode`.

    Args:
        chunk: the forecast steps, at least one.
        first_step_us: start of forecast step 0.
        step_us: step size in microseconds.
        metrics, levels: which of them.
        digits: where numbers that were written already are found, and kept for the next call.
    """
    start, frequency = format_time(first_step_us + chunk.first_step * step_us), format_duration(step_us)
    of_metrics = [METRIC_INDEX[name] for name in metrics]
    of_levels = [QUANTILE_LEVELS.index(level) for level in levels]
    columns = (digits.columns if digits is not None else _columns)(chunk, of_metrics, of_levels)
    found = []
    for name, numbers in zip(metrics, columns, strict=True):
        parts = [b""] * (2 * len(numbers) + 1)
        parts[::2] = _frame(name, start, frequency, tuple(levels))
        parts[1::2] = numbers
        found.append(orjson.Fragment(b"".join(parts)))
    return found


def path_series(values: FloatArray, metrics: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """Return sample paths [H, M, P] of all metrics by metric, [P, H] each: the values of path 0, then of the next."""
    return {name: compact(values[:, METRIC_INDEX[name]].T) for name in metrics}


def rows(
    chunk: PathChunk,
    *,
    graph: str,
    first_step_us: int,
    step_us: int,
    metrics: Sequence[str],
    levels: Sequence[float],
) -> list[dict[str, Any]]:
    """Return one object a step and metric, as pandas and Nixtla's libraries read it.

    Its members are `unique_id, ds, mean, q0.1, …`, then `path_0, …` where paths were drawn.
    """
    forecast, columns = chunk.forecast, [(f"q{level:g}", QUANTILE_LEVELS.index(level)) for level in levels]
    keys = ["mean", *(key for key, _ in columns), *path_names(chunk)]
    found = []
    for name in metrics:
        index = METRIC_INDEX[name]
        quantiles = [forecast.quantiles[:, index, q] for _, q in columns]
        numbers = compact(np.column_stack([forecast.mean[:, index], *quantiles, chunk.values[:, index]]))
        for step, values in enumerate(numbers):
            start = format_time(first_step_us + (chunk.first_step + step) * step_us)
            found.append({"unique_id": f"{graph}/{name}", "ds": start, **dict(zip(keys, values, strict=True))})
    return found


def paths_member(chunk: PathChunk, metrics: Sequence[str]) -> dict[str, Any]:
    """Return the member `paths` of an answer, in an object of its own; without paths an empty one."""
    return {"paths": path_series(chunk.values, metrics)} if chunk.values.shape[-1] else {}


def snapshot_rows(table: SnapshotTable) -> list[dict[str, Any]]:
    """Return one object a snapshot: `step_start, revision`, and its metrics, counts as whole numbers."""
    starts = [format_time(us) for us in table.step_start_us.tolist()]
    columns: list[list[float] | list[int]] = []
    for index, name in enumerate(table.metrics):
        is_share = METRICS[METRIC_INDEX[name]].kind is Kind.SHARE
        values = table.values[:, index]
        columns.append(values.tolist() if is_share else values.astype("int64").tolist())
    keys = ("step_start", "revision", *table.metrics)
    return [dict(zip(keys, row, strict=True)) for row in zip(starts, table.revision.tolist(), *columns, strict=True)]


def encode(document: Any) -> bytes:
    """Return a document with arrays in it as JSON; NaN cannot occur, every forecast is finite."""
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def forecast_body(
    live: LiveState,
    chunk: PathChunk,
    *,
    layout: Layout,
    metrics: Sequence[str],
    levels: Sequence[float],
    seed: int,
    digits: Digits | None = None,
) -> bytes:
    """Return the whole answer to a short-range request as JSON; `digits` as for `series`."""
    head = {"graph": live.graph, "horizon": len(chunk), "provenance": provenance(live, seed=seed)}
    place = {"first_step_us": live.next_step_us, "step_us": live.step_us}
    if layout is Layout.SERIES:
        body = {**head, "outputs": series(chunk.forecast, **place, metrics=metrics, levels=levels, digits=digits)}
        return encode(body | paths_member(chunk, metrics))
    return encode({**head, "rows": rows(chunk, graph=live.graph, **place, metrics=metrics, levels=levels)})
