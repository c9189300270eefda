"""Results of long-range forecasts as files: JSON, CSV, Parquet or Arrow, written as they are read."""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast

import numpy as np
import orjson
import pyarrow as pa

from forecasting.api.accepting import weighted
from forecasting.api.bodies import compact, encode, series
from forecasting.api.problems import Problem
from forecasting.export import FileFormat, Write, forecast_table, table_writer
from forecasting.jobs import Job, Jobs
from infra.schema import METRIC_INDEX
from models.contract import ForecastChunk

JSON, CSV = "application/json", "text/csv"
PARQUET, ARROW = "application/vnd.apache.parquet", "application/vnd.apache.arrow.stream"
MEDIA_TYPES = (JSON, CSV, PARQUET, ARROW)
# What compression makes smaller.
TEXTS = (JSON, CSV)


def accepted(header: str | None, offered: tuple[str, ...]) -> str:
    """Return which of the offered media types an `Accept` header prefers; the first for none.

    Of equal weights the type named first wins.

    Raises:
        Problem: 406, none of them is wanted.
    """
    ranges = list(weighted(header or "*/*"))
    best = max(offered, key=lambda media_type: _wish(media_type, ranges))
    if _wish(best, ranges)[0] <= 0:
        raise Problem(
            406, "not-acceptable", f"Accept names none of {', '.join(offered)}", offered=offered, example=offered[0]
        )
    return best


def _wish(media_type: str, ranges: Sequence[tuple[str, float]]) -> tuple[float, int]:
    """Return the weight of a media type, and what is greater the earlier it is named.

    The closest range tells, whatever a wider one says (RFC 9110, section 12.5.1).
    """
    for closest in (media_type, f"{media_type.partition('/')[0]}/*", "*/*"):
        wishes = [(max(0.0, weight), -place) for place, (name, weight) in enumerate(ranges) if name == closest]
        if wishes:
            return max(wishes)
    return 0.0, 0


def about(job: Job) -> dict[str, Any]:
    """Return what stands at the head of a result."""
    return {"id": job.id, "graph": job.graph, "horizon": job.request.horizon, "provenance": public_ground(job)}


def public_ground(job: Job) -> dict[str, Any] | None:
    """Return what a job rests on as it is shown: without what only the work needs."""
    inner = {"first_step_us", "step_us", "chunk_steps"}
    return None if job.ground is None else {key: value for key, value in job.ground.items() if key not in inner}


def place(job: Job) -> dict[str, int]:
    """Return where the first step of a job lies, and its step size, in microseconds."""
    ground = job.ground or {}
    return {"first_step_us": ground["first_step_us"], "step_us": ground["step_us"]}


def content(jobs: Jobs, job: Job, media_type: str) -> Iterator[bytes]:
    """Yield the result of a job that is done.

    Raises:
        StoreError: the chunks cannot be read.
    """
    if media_type == JSON:
        return _json(jobs, job)
    writers: dict[str, Callable[[io.BytesIO], AbstractContextManager[Write]]] = {
        CSV: lambda sink: table_writer(sink, FileFormat.CSV, {}),
        PARQUET: lambda sink: table_writer(sink, FileFormat.PARQUET, about(job)),
        ARROW: lambda sink: _arrow(sink, about(job)),
    }
    return _table(jobs, job, writers[media_type])


def _table(jobs: Jobs, job: Job, writer: Callable[[io.BytesIO], AbstractContextManager[Write]]) -> Iterator[bytes]:
    sink = _Drain()
    with writer(cast(io.BytesIO, sink)) as write:
        for chunk in jobs.chunks(job):
            write(forecast_table(chunk, **place(job), metrics=job.request.metrics, levels=job.request.quantiles))
            yield sink.drain()
    yield sink.drain()


def _json(jobs: Jobs, job: Job) -> Iterator[bytes]:
    """Yield the series one after the other; the numbers of all of them are in memory, their text is not."""
    forecasts, paths = [], []
    # Of the metrics that were not asked for, there are no paths worth their memory.
    columns = [METRIC_INDEX[name] for name in job.request.metrics]
    for chunk in jobs.chunks(job):
        forecasts.append(chunk.forecast)
        paths.append(compact(chunk.values[:, columns]))
    whole = ForecastChunk(
        0, np.concatenate([chunk.mean for chunk in forecasts]), np.concatenate([chunk.quantiles for chunk in forecasts])
    )
    yield orjson.dumps(about(job))[:-1] + b',"outputs":['
    for number, name in enumerate(job.request.metrics):
        (one,) = series(whole, **place(job), metrics=[name], levels=job.request.quantiles, digits=None)
        yield (b"," if number else b"") + encode(one)
    yield b"]"
    if job.request.paths:
        yield b',"paths":{'
        for number, name in enumerate(job.request.metrics):
            of_metric = np.concatenate([part[:, number] for part in paths])
            yield (b"," if number else b"") + orjson.dumps(name) + b":" + encode(np.ascontiguousarray(of_metric.T))
        yield b"}"
    yield b"}"


@contextmanager
def _arrow(sink: io.BytesIO, facts: dict[str, Any]) -> Iterator[Write]:
    metadata = {f"graphtide.{key}": orjson.dumps(value) for key, value in facts.items()}
    writer: pa.RecordBatchStreamWriter | None = None

    def write(table: pa.Table) -> None:
        nonlocal writer
        if writer is None:
            writer = pa.ipc.new_stream(sink, table.schema.with_metadata(metadata))
        writer.write_table(table)

    yield write
    if writer is not None:
        writer.close()


class _Drain(io.RawIOBase):
    """A file that is written to, and emptied by who sends what was written."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []
        self._written = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self._pieces.append(piece)
        self._written += len(piece)
        return len(piece)

    def tell(self) -> int:
        return self._written

    def drain(self) -> bytes:
        content, self._pieces = b"".join(self._pieces), []
        return content
