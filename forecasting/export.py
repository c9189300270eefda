"""Snapshots and forecasts as Arrow tables, and as the files that other programs read: CSV, JSON, Parquet.

A forecast is written chunk by chunk, so that memory does not grow with the horizon; the bytes depend on the values
alone."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from infra.errors import UsageError
from infra.schema import METRIC_INDEX, METRIC_NAMES, METRICS, QUANTILE_LEVELS, Kind
from infra.steps import format_duration, format_time
from infra.whole_file import whole_file
from models.contract import PathChunk
from stream.store.base import SnapshotTable

if TYPE_CHECKING:
    from forecasting.engine import ForecastRun

UTC_TIME = pa.timestamp("us", tz="UTC")
ISO_TIME = "%Y-%m-%dT%H:%M:%SZ"

Write = Callable[[pa.Table], None]


class FileFormat(StrEnum):
    """What a table can be written as."""

    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


def snapshot_table(snapshots: SnapshotTable) -> pa.Table:
    """Return snapshots as columns `step_start, revision, <metric>…`; counts and totals are integers."""
    columns = {"step_start": pa.array(snapshots.step_start_us, type=UTC_TIME), "revision": pa.array(snapshots.revision)}
    for index, name in enumerate(snapshots.metrics):
        values = snapshots.values[:, index]
        is_share = METRICS[METRIC_INDEX[name]].kind is Kind.SHARE
        columns[name] = pa.array(values if is_share else values.astype(np.int64))
    return pa.table(columns)


def forecast_table(
    chunk: PathChunk, *, first_step_us: int, step_us: int, metrics: Sequence[str], levels: Sequence[float]
) -> pa.Table:
    """Return a chunk in long form, `step_start, metric, mean, q0.025, …`: all metrics of a step, then the next step.

    Sample paths follow as `path_0`, `path_1`, …: a column is one future of all metrics.

    Args:
        chunk: the forecast steps, and the paths through them.
        first_step_us: start of forecast step 0, microseconds since the epoch.
        step_us: step size in microseconds.
        metrics: which metrics to keep.
        levels: which of `infra.schema.QUANTILE_LEVELS` to keep.
    """
    forecast = chunk.forecast
    steps = first_step_us + (chunk.first_step + np.arange(len(chunk), dtype=np.int64)) * step_us
    columns = [METRIC_INDEX[name] for name in metrics]
    table = {
        "step_start": pa.array(np.repeat(steps, len(metrics)), type=UTC_TIME),
        "metric": pa.array(np.tile(np.array(metrics, dtype=object), len(chunk)), type=pa.string()),
        "mean": pa.array(forecast.mean[:, columns].ravel()),
    }
    for level in levels:
        table[f"q{level:g}"] = pa.array(forecast.quantiles[:, columns, QUANTILE_LEVELS.index(level)].ravel())
    values = chunk.values[:, columns]
    table |= {name: pa.array(values[..., path].ravel()) for path, name in enumerate(path_names(chunk))}
    return pa.table(table)


def path_names(chunk: PathChunk) -> list[str]:
    """Return the columns of a chunk's sample paths."""
    return [f"path_{path}" for path in range(chunk.values.shape[-1])]


def table_writer(sink: BinaryIO, file_format: FileFormat, about: Mapping[str, object]) -> AbstractContextManager[Write]:
    """Return a context that yields a function to write tables of one schema, one after the other.

    Args:
        sink: where the bytes go.
        file_format: what they are.
        about: facts on the whole, JSON-able: the head of a JSON object, the metadata of a Parquet file; not in CSV.
    """
    writers = {FileFormat.CSV: _csv, FileFormat.JSON: _json, FileFormat.PARQUET: _parquet}
    return writers[file_format](sink, about)


@contextmanager
def _csv(sink: BinaryIO, _about: Mapping[str, object]) -> Iterator[Write]:
    has_header = False
    # "needed" would put every text in quotes; times and metric names hold nothing that needs them.
    options = pa_csv.WriteOptions(include_header=False, quoting_style="none")

    def write(table: pa.Table) -> None:
        nonlocal has_header
        if not has_header:
            # Arrow would put every name in quotes.
            sink.write((",".join(table.column_names) + "\n").encode())
            has_header = True
        pa_csv.write_csv(_with_iso_time(table), sink, options)

    yield write


@contextmanager
def _json(sink: BinaryIO, about: Mapping[str, object]) -> Iterator[Write]:
    head = msgspec.json.encode(dict(about))[:-1]
    sink.write(head + (b',"rows":[' if about else b'"rows":['))
    separator = b"\n"

    def write(table: pa.Table) -> None:
        nonlocal separator
        for row in _with_iso_time(table).to_pylist():
            sink.write(separator + msgspec.json.encode(row))
            separator = b",\n"

    yield write
    sink.write(b"\n]}\n")


@contextmanager
def _parquet(sink: BinaryIO, about: Mapping[str, object]) -> Iterator[Write]:
    metadata = {f"graphtide.{key}": msgspec.json.encode(value) for key, value in about.items()}
    writer: pq.ParquetWriter | None = None

    def write(table: pa.Table) -> None:
        nonlocal writer
        if writer is None:
            writer = pq.ParquetWriter(sink, table.schema.with_metadata(metadata), compression="zstd")
        writer.write_table(table.replace_schema_metadata(metadata))

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()


def _with_iso_time(table: pa.Table) -> pa.Table:
    index = table.schema.get_field_index("step_start")
    whole_seconds = table.column(index).cast(pa.timestamp("s", tz="UTC"))
    return table.set_column(index, "step_start", pc.strftime(whole_seconds, format=ISO_TIME))


def write_forecast(
    run: "ForecastRun",
    chunks: Iterable[PathChunk],
    path: Path | None,
    file_format: FileFormat,
    *,
    horizon_steps: int,
    seed: int,
    metrics: Sequence[str] = METRIC_NAMES,
    levels: Sequence[float] = QUANTILE_LEVELS,
) -> None:
    """Write a forecast in long form, chunk by chunk, to `path` or stdout.

    Args:
        run: what is forecast.
        chunks: those of the run, perhaps watched on their way.
        path: where to; None for stdout.
        file_format: how.
        horizon_steps, seed: what was asked for; the same seed gives the same bytes.
        metrics, levels: which of them to write.

    Raises:
        GraphtideError: the file cannot be written; nothing is left of it.
    """
    about = {
        "graph": run.graph,
        "model": run.model_name,
        "model_digest": run.card.get("digest"),
        "degraded": run.degraded_reason is not None,
        "degraded_reason": run.degraded_reason,
        "calibrated_until_step": run.calibrated_until_step,
        "skill_until_step": run.skill_until_step,
        "calibrated_on": run.calibrated_on,
        "step": format_duration(run.step_us),
        "first_step": format_time(run.first_step_us),
        "horizon": horizon_steps,
        "seed": seed,
    }
    place = {"first_step_us": run.first_step_us, "step_us": run.step_us}
    with output_file(path) as sink, table_writer(sink, file_format, about) as write:
        for chunk in chunks:
            write(forecast_table(chunk, **place, metrics=metrics, levels=levels))


@contextmanager
def output_file(path: Path | None) -> Iterator[BinaryIO]:
    """Yield what to write to: a file that becomes `path` when the block ends well, or stdout for None.

    A device or a pipe (`/dev/stdout`) is written directly: it cannot be replaced.

    Raises:
        UsageError: `path` is a folder.
        GraphtideError: it cannot be written, as on a full disk.
    """
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    elif path.is_dir():
        raise UsageError(f"cannot write {path}: it is a folder", fix="name a file in it")
    elif path.exists() and not path.is_file():
        with path.open("wb") as sink:
            yield sink
    else:
        with whole_file(path) as temporary, temporary.open("wb") as sink:
            yield sink
