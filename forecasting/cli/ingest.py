"""`graphtide ingest`: events of a file, a folder or a live stream become snapshots in the store."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from forecasting.cli.arguments import split_list
from forecasting.cli.call import INTERRUPTED, Call, console, interruptible, say
from forecasting.cli.live import is_live, live_source
from forecasting.cli.progress import Report, progress
from forecasting.cli.store import StoreOption, graph_json
from infra.errors import UsageError
from infra.steps import format_duration, format_time
from infra.whole_file import whole_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infra.settings import Settings
    from stream.decoders.builder import DecodeOptions
    from stream.events import Reject
    from stream.progress import IngestProgress, IngestResult
    from stream.sources.files import FileSource, FollowSource
    from stream.sources.live import LiveSource

SHOWN_REJECTS = 5
SHOWN_GRAPHS = 20


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(ingest)


def ingest(
    ctx: typer.Context,
    source: Annotated[
        Path,
        typer.Argument(
            help="A log, a folder of logs (read as one), wikimedia, jetstream or mastodon.", show_default=False
        ),
    ],
    graph: Annotated[
        str | None, typer.Option("--graph", metavar="NAME", help="Graph of events that name none; else 'default'.")
    ] = None,
    step: Annotated[str | None, typer.Option("--step", metavar="DURATION", help="Step size: 15m, 1h, 1d, …")] = None,
    url: Annotated[
        str | None, typer.Option("--url", metavar="URL", help="Where the live source is; else as config.toml says.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for more as the file grows, until Ctrl-C.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first record that is no valid event.")] = False,
    file_format: Annotated[
        str | None,
        typer.Option("--format", metavar="NAME", help="json, ndjson, csv, tsv, edgelist; else recognised."),
    ] = None,
    time_unit: Annotated[
        str | None,
        typer.Option("--time-unit", metavar="UNIT", help="Unit of numeric times: s, ms, us, ns; else auto."),
    ] = None,
    bipartite: Annotated[
        bool, typer.Option("--bipartite", help="Sources and targets are counted apart: 3 -> 3 joins two nodes.")
    ] = False,
    columns: Annotated[
        str | None,
        typer.Option("--columns", metavar="ROLE=NAME,…", help="Where fields stand: src=author,dst=to,ts=at."),
    ] = None,
    split_by_type: Annotated[
        bool, typer.Option("--split-by-type", help="Keep one graph per event type, too: NAME:TYPE.")
    ] = False,
    backfill: Annotated[
        bool, typer.Option("--backfill", help="The events are missing in closed steps: revise their snapshots.")
    ] = False,
    store: StoreOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")] = False,
) -> None:
    """Turn the events of a log into one snapshot per time step.

    Reads JSON, NDJSON, CSV, TSV and bare edge lists (src dst [weight] time), plain or as gz, zst or zip. Every batch is
    one transaction with its position: whatever interrupts a run, the same command goes on without loss or repeat.

    wikimedia, jetstream and mastodon are read as they happen, until Ctrl-C.

    Example: graphtide ingest sx-mathoverflow.txt.gz --graph mathoverflow --step 1h
    """
    call: Call = ctx.obj
    settings = call.load({"ingest.step": ("--step", step), "store.url": ("--store", store)}).values
    from forecasting.ingestion import ingest_options, ingestion  # noqa: PLC0415 - numpy is not needed for --help
    from stream.decoders.builder import DecodeOptions  # noqa: PLC0415
    from stream.events import DEFAULT_GRAPH  # noqa: PLC0415
    from stream.sources.single import SinglePartition  # noqa: PLC0415

    decoding = DecodeOptions(
        graph=DEFAULT_GRAPH if graph is None else graph,
        format="auto" if file_format is None else file_format,
        columns=parse_columns(columns),
        bipartite=bipartite,
        time_unit="auto" if time_unit is None else time_unit,
        strict=strict,
    )
    live = is_live(source, url)
    options = ingest_options(settings, split_by_type=split_by_type, backfill=backfill, live=follow or live)
    interrupted = False
    with interruptible(f"Nothing of {source.name} was ingested yet."), progress(f"Ingesting {source.name}") as report:
        events: LiveSource | FileSource | FollowSource
        if live:
            events = live_source(str(source), decoding, settings, url)
        else:
            events = _source(source, decoding, settings, report, follow=follow)
        with ingestion(
            SinglePartition(events), settings, options, lambda state: report(state.events, None, _rate(state))
        ) as running:
            try:
                running.run.run()
            except KeyboardInterrupt:
                interrupted = True
            result = running.run.result()
            projected = running.drain(0.0 if interrupted else settings.influxdb.drain_s)
    if projected is not None and not projected.drained:
        say(f"note: {projected.waiting:,} snapshots are not in InfluxDB yet; they wait in the store for the next run")
    for note in events.notes:
        say(f"note: {note}")
    reject_file = _write_rejects(result, settings.store.url, decoding.graph, source)
    if as_json:
        sys.stdout.write(json.dumps(_summary_json(result, reject_file)) + "\n")
    else:
        _summarise(source, result, reject_file)
    if interrupted:
        say("graphtide: stopped. What was committed is kept; the same command goes on from there.")
        raise typer.Exit(INTERRUPTED)


def _source(
    path: Path, decoding: "DecodeOptions", settings: "Settings", report: Report, *, follow: bool
) -> "FileSource | FollowSource":
    from stream.sources.files import FileSource, FollowSource  # noqa: PLC0415

    if follow:
        return FollowSource(path, decoding, poll_interval_s=settings.ingest.poll_interval_s)
    return FileSource(
        path,
        decoding,
        batch_rows=settings.ingest.batch_rows,
        max_rows_in_memory=settings.ingest.max_rows_in_memory,
        on_progress=lambda done, total: report(done, total, "bytes read"),
    )


def parse_columns(text: str | None) -> dict[str, str]:
    """Return the fields of `src=author,dst=parent` by role.

    Raises:
        UsageError: a part is not ROLE=NAME, or a role stands twice.
    """
    fields: dict[str, str] = {}
    for part in split_list(text or ""):
        role, equals, name = part.partition("=")
        if not equals or not role or not name or role in fields:
            raise UsageError(f"--columns: cannot read {part!r}", fix="write each role once: src=NAME,dst=NAME,ts=NAME")
        fields[role] = name
    return fields


def _rate(state: "IngestProgress") -> str:
    reached = "" if state.event_time_us is None else f", at {format_time(state.event_time_us)}"
    return f"events, {state.events_per_s:,.0f}/s, {state.snapshots:,} snapshots{reached}"


def _write_rejects(result: "IngestResult", store_url: str, graph: str, source: Path) -> Path | None:
    """Write the sample of rejected records beside the store; return where, or None if there is nothing to write."""
    if not result.rejects:
        return None
    from stream.store.sqlite_file import path_of_url  # noqa: PLC0415

    path = path_of_url(store_url).parent / "rejects" / f"{graph}.{source.resolve().name}.ndjson"
    with whole_file(path) as temporary:
        lines = (json.dumps({"place": r.place, "reason": r.reason, "record": r.record}) for r in result.rejects)
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def _summary_json(result: "IngestResult", reject_file: Path | None) -> dict[str, object]:
    return {
        "source": result.source,
        "ended": result.ended,
        "unchanged": result.unchanged,
        "events": result.events,
        "late": result.late,
        "rejected": result.rejected,
        "reject_file": None if reject_file is None else str(reject_file),
        "seconds": round(result.seconds, 3),
        "graphs": [{**graph_json(graph), "nodes": graph.nodes, "edges": graph.edges} for graph in result.graphs],
    }


def _summarise(source: Path, result: "IngestResult", reject_file: Path | None) -> None:
    table = Table(box=None)
    for title in ("graph", "events", "nodes", "edges", "snapshots", "step", "first step", "last step"):
        is_count = title in {"events", "nodes", "edges", "snapshots"}
        table.add_column(title, justify="right" if is_count else "left", no_wrap=True)
    for graph in result.graphs[:SHOWN_GRAPHS]:
        first, last = (format_time(us) if us is not None else "-" for us in (graph.first_step_us, graph.last_step_us))
        counts = (f"{count:,}" for count in (graph.events, graph.nodes, graph.edges, graph.snapshots))
        table.add_row(graph.name, *counts, format_duration(graph.step_us), first, last)
    out = console()
    out.print(table)
    if len(result.graphs) > SHOWN_GRAPHS:
        out.print(f"and {len(result.graphs) - SHOWN_GRAPHS:,} more graphs; see: graphtide graphs")
    if result.unchanged:
        out.print(f"Already ingested, nothing changed: {result.events:,} events of {source}")
    else:
        out.print(f"{result.events:,} events of {source} in {result.seconds:.1f} s")
    if result.late or result.rejected:
        out.print(f"{result.late:,} events came too late and {result.rejected:,} records were rejected, for example:")
        for reject in _one_of_each_reason(result.rejects):
            out.print(f"  {reject.place}: {reject.reason}")
        if reject_file is not None:
            out.print(f"A sample of {len(result.rejects):,} is in {reject_file}")


def _one_of_each_reason(rejects: "Sequence[Reject]") -> "list[Reject]":
    # Reasons quote values; their first words tell them apart.
    first_of: dict[tuple[str, ...], Reject] = {}
    for reject in rejects:
        first_of.setdefault(tuple(reject.reason.split()[:2]), reject)
    return list(first_of.values())[:SHOWN_REJECTS]
