"""Tables as files: the columns promised, the values unchanged, the same bytes for the same values."""

import csv
import io
import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from forecasting.export import FileFormat, forecast_table, output_file, snapshot_table, table_writer
from infra.errors import GraphtideError
from infra.schema import METRIC_NAMES, QUANTILE_LEVELS
from infra.steps import HOUR_US
from models.contract import ForecastChunk
from models.futures import without_paths
from stream.store.base import SnapshotTable

FIRST_US = 1_254_189_600_000_000  # 2009-09-29T02:00:00Z
METRICS = ("events", "reciprocity", "total_nodes")


def chunk(first_step: int, steps: int) -> ForecastChunk:
    generator = np.random.default_rng(first_step)
    quantiles = np.sort(generator.random((steps, len(METRIC_NAMES), len(QUANTILE_LEVELS))), axis=-1)
    return ForecastChunk(first_step, quantiles.mean(axis=-1), quantiles)


def table(part: ForecastChunk, levels: tuple[float, ...] = QUANTILE_LEVELS):  # type: ignore[no-untyped-def]
    return forecast_table(without_paths(part), first_step_us=FIRST_US, step_us=HOUR_US, metrics=METRICS, levels=levels)


def written(file_format: FileFormat, chunks: list[ForecastChunk], about: dict[str, object] | None = None) -> bytes:
    sink = io.BytesIO()
    with table_writer(sink, file_format, about or {"graph": "g", "seed": 1}) as write:
        for part in chunks:
            write(table(part))
    return sink.getvalue()


def test_forecast_is_long_form_with_the_promised_columns() -> None:
    frame = table(chunk(3, 2)).to_pandas()
    assert list(frame.columns) == [
        "step_start", "metric", "mean",
        "q0.025", "q0.1", "q0.2", "q0.3", "q0.4", "q0.5", "q0.6", "q0.7", "q0.8", "q0.9", "q0.975",
    ]  # fmt: skip
    assert frame["metric"].tolist() == [*METRICS, *METRICS]
    assert str(frame["step_start"].dt.tz) == "UTC"
    assert frame["step_start"].iloc[0].isoformat() == "2009-09-29T05:00:00+00:00"
    part = chunk(3, 2)
    column = METRIC_NAMES.index("reciprocity")
    assert frame.loc[4, "q0.9"] == part.quantiles[1, column, QUANTILE_LEVELS.index(0.9)]
    assert frame.loc[4, "mean"] == part.mean[1, column]


def test_every_format_holds_the_same_values() -> None:
    chunks = [chunk(0, 3), chunk(3, 1)]
    rows = list(csv.DictReader(io.StringIO(written(FileFormat.CSV, chunks).decode())))
    from_json = json.loads(written(FileFormat.JSON, chunks))
    frame = pq.read_table(io.BytesIO(written(FileFormat.PARQUET, chunks))).to_pandas()
    assert (from_json["graph"], from_json["seed"]) == ("g", 1)
    assert len(rows) == len(from_json["rows"]) == len(frame) == 4 * len(METRICS)
    for row, other, (_, third) in zip(rows, from_json["rows"], frame.iterrows(), strict=True):
        assert row["step_start"] == other["step_start"] == third["step_start"].strftime("%Y-%m-%dT%H:%M:%SZ")
        assert row["metric"] == other["metric"] == third["metric"]
        assert float(row["q0.025"]) == other["q0.025"] == third["q0.025"]


@pytest.mark.parametrize("file_format", list(FileFormat))
def test_same_values_give_the_same_bytes(file_format: FileFormat) -> None:
    chunks = [chunk(0, 5), chunk(5, 2)]
    assert written(file_format, chunks) == written(file_format, chunks)


def test_parquet_carries_what_it_is_about() -> None:
    metadata = pq.read_schema(io.BytesIO(written(FileFormat.PARQUET, [chunk(0, 1)]))).metadata
    assert json.loads(metadata[b"graphtide.seed"]) == 1


def test_json_without_rows_or_facts_is_still_json() -> None:
    assert json.loads(written(FileFormat.JSON, [])) == {"graph": "g", "seed": 1, "rows": []}
    sink = io.BytesIO()
    with table_writer(sink, FileFormat.JSON, {}) as write:
        write(table(chunk(0, 1)))
    assert len(json.loads(sink.getvalue())["rows"]) == len(METRICS)


def test_snapshots_keep_counts_whole() -> None:
    snapshots = SnapshotTable(
        graph="g",
        step_us=HOUR_US,
        metrics=METRICS,
        step_start_us=np.array([FIRST_US, FIRST_US + HOUR_US]),
        revision=np.array([0, 2]),
        values=np.array([[3.0, 0.5, 10.0], [0.0, 0.0, 10.0]]),
    )
    sink = io.BytesIO()
    with table_writer(sink, FileFormat.CSV, {}) as write:
        write(snapshot_table(snapshots))
    assert sink.getvalue().decode().splitlines() == [
        "step_start,revision,events,reciprocity,total_nodes",
        "2009-09-29T02:00:00Z,0,3,0.5,10",
        "2009-09-29T03:00:00Z,2,0,0,10",
    ]


def test_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("before")
    with pytest.raises(KeyboardInterrupt), output_file(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_text() == "before"
    with output_file(path) as file:
        file.write(b"after")
    assert path.read_text() == "after"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.csv"]


def test_unwritable_place_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "x.csv", tmp_path):
        with pytest.raises(GraphtideError, match="cannot write"), output_file(path):
            pass


def test_full_disk_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(GraphtideError, match="No space left"), output_file(tmp_path / "x.csv") as file:
        file.write(b"x")
    assert not list(tmp_path.iterdir())


def test_pipe_is_written_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with output_file(pipe) as file:
            file.write(b"through")
        assert os.read(reader, 100) == b"through"
    finally:
        os.close(reader)
    assert pipe.is_fifo()
