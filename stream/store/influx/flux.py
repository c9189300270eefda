"""Questions to InfluxDB in Flux and their answers: CSV that pyarrow parses, a million values in a second."""

import io
from collections.abc import Sequence

import pyarrow as pa
from pyarrow import csv

from infra.errors import StoreError
from infra.schema import METRIC_INDEX, METRICS, SCHEMA_VERSION, Kind
from infra.steps import format_duration
from stream.store.influx.points import FACT_FIELDS, GRAPHS, GRAPHS_TIME_US, SNAPSHOTS, STORES, tag_of_graph

_TIME = pa.timestamp("us", tz="UTC")
# The header of a table that tells of an error. It is the last, whatever was answered before.
_ERROR = b"error,reference\r\n"
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "$": r"\$"})


def quoted(text: str) -> str:
    """Return a text as a string literal of Flux."""
    return '"' + text.translate(_ESCAPES) + '"'


def facts_query(bucket: str, graph: str | None = None) -> str:
    """Return the query of the facts of one graph, or of all."""
    wanted = "" if graph is None else f" and r.graph == {quoted(tag_of_graph(graph))}"
    return (
        f"from(bucket: {quoted(bucket)})"
        f" |> range({_range(GRAPHS_TIME_US, GRAPHS_TIME_US + 1)})"
        f' |> filter(fn: (r) => r._measurement == {quoted(GRAPHS)} and r.schema == "{SCHEMA_VERSION}"{wanted})'
        ' |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")'
        f" |> keep(columns: [{', '.join(map(quoted, ('graph', *FACT_FIELDS)))}])"
        " |> group()"
    )


def claims_query(bucket: str) -> str:
    """Return the query of which store writes which graph."""
    return (
        f"from(bucket: {quoted(bucket)})"
        f" |> range({_range(GRAPHS_TIME_US, GRAPHS_TIME_US + 1)})"
        f' |> filter(fn: (r) => r._measurement == {quoted(STORES)} and r.schema == "{SCHEMA_VERSION}"'
        ' and r._field == "store")'
        ' |> keep(columns: ["graph", "_value"])'
        " |> group()"
    )


def snapshots_query(
    bucket: str, graph: str, step_us: int, fields: Sequence[str] | None, start_us: int, end_us: int
) -> str:
    """Return the query of the snapshots of a graph with `start_us <= step_start < end_us`.

    Args:
        bucket: the bucket.
        graph: name of the graph.
        step_us: its step size.
        fields: metrics and `revision`; None for all.
        start_us, end_us: the range, which InfluxDB's index of time serves.
    """
    wanted = "" if fields is None else f" and ({' or '.join(f'r._field == {quoted(field)}' for field in fields)})"
    # Pivoting where the tags still form the key of the tables is what the server is quick at.
    return (
        f"from(bucket: {quoted(bucket)})"
        f" |> range({_range(start_us, end_us)})"
        f" |> filter(fn: (r) => r._measurement == {quoted(SNAPSHOTS)} and r.graph == {quoted(tag_of_graph(graph))}"
        f' and r.step == {quoted(format_duration(step_us))} and r.schema == "{SCHEMA_VERSION}"{wanted})'
        ' |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")'
        ' |> drop(columns: ["_start", "_stop", "_measurement", "graph", "schema", "step"])'
    )


def failure_in(body: bytes) -> str | None:
    """Return what InfluxDB says of an error that it met after it had begun to answer, None where it says of none."""
    before, found, said = body.rpartition(_ERROR)
    if not found or not (before in {b"", b","} or before.endswith((b"\n", b"\n,"))):
        return None
    return " ".join(said.decode("utf-8", "replace").strip("\r\n,").split())


def is_whole(body: bytes) -> bool:
    """Tell whether an answer has its end, an empty line, which not every connection that breaks off is known by."""
    return body == b"\r\n" or body.endswith(b"\r\n\r\n")


def parse_facts(body: bytes) -> pa.Table:
    """Return the columns `graph` (the tag) and `FACT_FIELDS` of an answer to `facts_query`.

    Raises:
        StoreError: the answer is not what was asked for.
    """
    return _parse(body, {"graph": pa.string(), **{name: pa.int64() for name in FACT_FIELDS}})


def parse_claims(body: bytes) -> pa.Table:
    """Return the columns `graph` (the tag) and `_value` (the identity of a store) of an answer to `claims_query`.

    Raises:
        StoreError: the answer is not what was asked for.
    """
    return _parse(body, {"graph": pa.string(), "_value": pa.string()})


def parse_snapshots(body: bytes, metrics: Sequence[str]) -> pa.Table:
    """Return the columns `_time`, `revision` and `metrics` of an answer to `snapshots_query`.

    Raises:
        StoreError: the answer is not what was asked for.
    """
    kinds = {name: pa.float64() if METRICS[METRIC_INDEX[name]].kind is Kind.SHARE else pa.int64() for name in metrics}
    return _parse(body, {"_time": _TIME, "revision": pa.int64(), **kinds})


def _range(start_us: int, end_us: int) -> str:
    # InfluxDB 1.8 also returns what stands at the stop, which version 2 leaves out. Steps begin at whole microseconds,
    # so that a nanosecond less means the same to both.
    return f"start: time(v: {start_us * 1000}), stop: time(v: {end_us * 1000 - 1})"


def _parse(body: bytes, columns: dict[str, pa.DataType]) -> pa.Table:
    schema = pa.schema(columns)
    if not body.strip():
        return schema.empty_table()
    try:
        table = csv.read_csv(
            io.BytesIO(body),
            # One block: a schema that changes in the middle is an error that InfluxDB met while it answered.
            read_options=csv.ReadOptions(block_size=len(body) + 1),
            convert_options=csv.ConvertOptions(
                column_types=columns, include_columns=list(columns), timestamp_parsers=[csv.ISO8601]
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise StoreError(
            f"InfluxDB holds or says something else than was written: {reason}",
            fix="let nobody else write the measurements graphtide_*; project anew: graphtide store project --all",
        ) from None
    if any(column.null_count for column in table.columns):
        raise StoreError(
            "InfluxDB holds snapshots that lack some of their metrics",
            fix="project the snapshots anew: graphtide store project --all",
        )
    return table
