"""`graphtide graphs` and `graphtide snapshots`: what is in the store."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from forecasting.cli.arguments import parse_metrics, parse_time_us
from forecasting.cli.call import Call, console, say
from infra.errors import UsageError
from infra.schema import METRIC_NAMES
from infra.steps import format_duration, format_time

if TYPE_CHECKING:
    from stream.progress import GraphSummary
    from stream.store.base import GraphInfo, SnapshotTable

# What a table shows where nothing else is asked for; a file format shows all.
TABLE_STEPS = 24
TABLE_METRICS = ("events", "active_nodes", "new_nodes", "unique_edges", "new_edges", "total_nodes")

StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        help="Store of snapshots: sqlite:///PATH, postgresql://…, or influxdb://HOST:PORT/ORG/BUCKET.",
    ),
]


class Format(StrEnum):
    """How a result is shown."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


FormatOption = Annotated[Format, typer.Option("--format", help="How the result is written.")]
OutputOption = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="PATH", help="File to write; else stdout.")
]
MetricsOption = Annotated[str | None, typer.Option("--metrics", metavar="A,B,…", help="Metrics to show; else all.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(graphs)
    app.command()(snapshots)


def graphs(
    ctx: typer.Context,
    store: StoreOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array.")] = False,
) -> None:
    """List the graphs of the store.

    Example: graphtide graphs --json
    """
    from stream.store import open_reader  # noqa: PLC0415 - numpy is not needed for --help
    from stream.store.shown import shown_store  # noqa: PLC0415

    call: Call = ctx.obj
    settings = call.load({"store.url": ("--store", store)}).values
    with open_reader(settings.store.url, settings.influxdb) as reader:
        found = reader.graphs()
    if as_json:
        import msgspec  # noqa: PLC0415

        sys.stdout.write(msgspec.json.encode([graph_json(info) for info in found]).decode() + "\n")
        return
    if not found:
        say(f"The store {shown_store(settings.store.url)} has no graph yet. Ingest events first: graphtide ingest FILE")
        return
    table = Table(box=None)
    for title in ("graph", "step", "snapshots", "events", "first step", "last step", "late"):
        table.add_column(title, justify="right" if title in {"snapshots", "events", "late"} else "left", no_wrap=True)
    for info in found:
        first, last = (format_time(us) if us is not None else "-" for us in (info.first_step_us, info.last_step_us))
        counts = (f"{info.snapshots:,}", f"{info.events:,}")
        table.add_row(info.name, format_duration(info.step_us), *counts, first, last, f"{info.late:,}")
    console().print(table)


def graph_json(info: "GraphInfo | GraphSummary") -> dict[str, object]:
    """Return a graph as programs read it."""
    return {
        "graph": info.name,
        "step": format_duration(info.step_us),
        "snapshots": info.snapshots,
        "events": info.events,
        "first_step": None if info.first_step_us is None else format_time(info.first_step_us),
        "last_step": None if info.last_step_us is None else format_time(info.last_step_us),
        "late": info.late,
    }


def snapshots(
    ctx: typer.Context,
    graph: Annotated[str, typer.Argument(help="Name of the graph.", show_default=False)],
    file_format: FormatOption = Format.TABLE,
    start: Annotated[str | None, typer.Option("--start", metavar="TIME", help="First step, included (UTC).")] = None,
    end: Annotated[str | None, typer.Option("--end", metavar="TIME", help="Last step, excluded (UTC).")] = None,
    last: Annotated[int | None, typer.Option("--last", metavar="N", min=1, help="The newest N steps only.")] = None,
    metrics: MetricsOption = None,
    output: OutputOption = None,
    store: StoreOption = None,
) -> None:
    """Show the snapshots of a graph: one row a step, one column a metric.

    Example: graphtide snapshots mathoverflow --last 168 --format csv --output week.csv
    """
    from stream.store import open_reader  # noqa: PLC0415

    call: Call = ctx.obj
    settings = call.load({"store.url": ("--store", store)}).values
    is_table = file_format is Format.TABLE
    names = TABLE_METRICS if is_table and metrics is None else parse_metrics(metrics)
    check_output(file_format, output)
    start_us = None if start is None else parse_time_us("--start", start)
    end_us = None if end is None else parse_time_us("--end", end)
    if start_us is not None and end_us is not None and end_us <= start_us:
        raise UsageError(f"--end {end} is not after --start {start}", fix="--end is excluded: give a later one")
    is_short = is_table and last is None and start is None and end is None
    with open_reader(settings.store.url, settings.influxdb) as reader:
        info = reader.graph(graph)
        found = reader.snapshots(
            graph, start_us=start_us, end_us=end_us, metrics=names, last=TABLE_STEPS if is_short else last
        )
    if is_table:
        _print_table(found)
        if is_short or metrics is None:
            say(
                f"{len(found):,} of {info.snapshots:,} steps, {len(names)} of {len(METRIC_NAMES)} metrics; "
                "see --last, --start, --end, --metrics, --format"
            )
        return
    _write(found, file_format, output)


def check_output(file_format: Format, output: Path | None) -> None:
    """Refuse `--output` for a table, and Parquet on a terminal.

    Raises:
        UsageError: format and output do not go together.
    """
    if file_format is Format.TABLE and output is not None:
        raise UsageError("--output needs a file format", fix="add --format csv, json or parquet")
    if file_format is Format.PARQUET and output is None and sys.stdout.isatty():
        raise UsageError("parquet is binary and would garble the terminal", fix="add --output FILE.parquet")


def _print_table(found: "SnapshotTable") -> None:
    table = Table(box=None)
    table.add_column("step_start", no_wrap=True)
    for name in found.metrics:
        table.add_column(name, justify="right")
    for start_us, row in zip(found.step_start_us.tolist(), found.values.tolist(), strict=True):
        table.add_row(
            format_time(start_us), *(f"{value:,.0f}" if value.is_integer() else f"{value:.3f}" for value in row)
        )
    console().print(table)


def _write(found: "SnapshotTable", file_format: Format, output: Path | None) -> None:
    from forecasting.export import FileFormat, output_file, snapshot_table, table_writer  # noqa: PLC0415 - imports Arrow

    about = {"graph": found.graph, "step": format_duration(found.step_us)}
    with output_file(output) as sink, table_writer(sink, FileFormat(file_format.value), about) as write:
        write(snapshot_table(found))
    if output is not None:
        say(f"Wrote {len(found):,} steps to {output}")
