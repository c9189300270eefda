"""`graphtide ingest`: events of a file, a folder or a live stream become snapshots in the store."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forecasting.cli.arguments import split_list
from forecasting.cli.call import INTERRUPTED, Call, interruptible, say
from forecasting.cli.ingested import Ran, run_to_end, summarise, summary_json, write_rejects
from forecasting.cli.kafka import KafkaFlags, is_kafka, run_kafka
from forecasting.cli.live import is_live, live_source
from forecasting.cli.progress import Report, progress
from forecasting.cli.reject_files import reject_folder
from forecasting.cli.spool import is_spool, run_spool
from forecasting.cli.store import StoreOption
from infra.errors import UsageError
from infra.steps import format_time

if TYPE_CHECKING:
    from infra.settings import Settings
    from stream.decoders.builder import DecodeOptions
    from stream.ingest import IngestOptions
    from stream.progress import IngestProgress
    from stream.sources.files import FileSource, FollowSource
    from stream.sources.live import LiveSource

KAFKA = "Kafka"


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(ingest)


def ingest(
    ctx: typer.Context,
    source: Annotated[
        Path,
        typer.Argument(
            help="A log, a folder of logs (read as one), kafka, spool, wikimedia, jetstream or mastodon.",
            show_default=False,
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
    restart_if_replaced: Annotated[
        bool,
        typer.Option("--restart-if-replaced", help="With --follow: read the new file where another took its place."),
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first record that is no valid event.")] = False,
    file_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="json, ndjson, csv, tsv, edgelist; of records: docs/producers.md; else recognised.",
        ),
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
    split: Annotated[
        list[str] | None,
        typer.Option("--split", metavar="GRAPH", help="Processes of one Kafka group feed this graph together; repeat."),
    ] = None,
    backfill: Annotated[
        bool, typer.Option("--backfill", help="The events are missing in closed steps: revise their snapshots.")
    ] = False,
    close_at_end: Annotated[
        bool | None,
        typer.Option(
            "--close-at-end/--no-close-at-end",
            help="At the end of a log its last step closes (files), or stays open for what follows (Kafka).",
            show_default=False,
        ),
    ] = None,
    bootstrap_servers: Annotated[
        str | None,
        typer.Option("--bootstrap-servers", metavar="HOST:PORT,…", help="Kafka: the brokers.", rich_help_panel=KAFKA),
    ] = None,
    topics: Annotated[
        str | None,
        typer.Option(
            "--topics", metavar="A,B,…", help="Kafka: topics, or ^ and a regular expression.", rich_help_panel=KAFKA
        ),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            "--group", metavar="NAME", help="Kafka: processes of a group share the partitions.", rich_help_panel=KAFKA
        ),
    ] = None,
    client: Annotated[
        str | None,
        typer.Option("--client", metavar="NAME", help="Kafka: auto, kafka-python, confluent.", rich_help_panel=KAFKA),
    ] = None,
    kafka_option: Annotated[
        list[str] | None,
        typer.Option(
            "--kafka-option", metavar="KEY=VALUE", help="Kafka: an option of its own; repeat.", rich_help_panel=KAFKA
        ),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            "--metrics-port", metavar="N", help="Kafka: serve Prometheus metrics on loopback.", rich_help_panel=KAFKA
        ),
    ] = None,
    metrics_host: Annotated[
        str | None,
        typer.Option(
            "--metrics-host",
            metavar="ADDRESS",
            help="Kafka: serve them on this address; they hold no secret, but anyone who reaches it reads them.",
            rich_help_panel=KAFKA,
        ),
    ] = None,
    store: StoreOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")] = False,
) -> None:
    """Turn the events of a log into one snapshot per time step.

    Reads JSON, NDJSON, CSV, TSV and bare edge lists (src dst [weight] time), plain or as gz, zst or zip. Every batch is
    one transaction with its position: whatever interrupts a run, the same command goes on without loss or repeat.

    wikimedia, jetstream and mastodon are read as they happen, until Ctrl-C. kafka reads topics, to their ends or,
    with --follow, for ever.

    Example: graphtide ingest sx-mathoverflow.txt.gz --graph mathoverflow --step 1h

    Example: graphtide ingest kafka --bootstrap-servers localhost:9092 --topics events --group graphtide --follow
    """
    call: Call = ctx.obj
    kafka_flags = KafkaFlags(
        bootstrap_servers=bootstrap_servers,
        topics=tuple(split_list(topics or "")),
        group=group,
        close_at_end=bool(close_at_end),
        client=client,
        options=tuple(kafka_option or ()),
        metrics_port=metrics_port,
        metrics_host=metrics_host,
    )
    kafka = is_kafka(source, kafka_flags)
    settings = call.load(
        {
            "ingest.step": ("--step", step),
            "store.url": ("--store", store),
            "kafka.bootstrap_servers": ("--bootstrap-servers", bootstrap_servers),
            "kafka.client": ("--client", client),
            "ingest.split_graphs": ("--split", split or None),
        }
    ).values
    from forecasting.ingestion import ingest_options  # noqa: PLC0415 - numpy is not needed for --help
    from stream.decoders.builder import DecodeOptions  # noqa: PLC0415
    from stream.events import DEFAULT_GRAPH  # noqa: PLC0415

    decoding = DecodeOptions(
        graph=DEFAULT_GRAPH if graph is None else graph,
        format="auto" if file_format is None else file_format,
        columns=parse_columns(columns),
        bipartite=bipartite,
        time_unit="auto" if time_unit is None else time_unit,
        strict=strict,
    )
    if restart_if_replaced and not follow:
        raise UsageError("--restart-if-replaced is for --follow", fix="add --follow, or leave it out")
    live = not kafka and is_live(source, url)
    spool = not kafka and is_spool(source)
    as_they_come = follow or live or kafka or spool
    if close_at_end is not None and not kafka and as_they_come:
        raise UsageError("--close-at-end needs an end, and what is read as it comes has none", fix="leave it out")
    options = ingest_options(
        settings,
        split_by_type=split_by_type,
        backfill=backfill,
        live=as_they_come,
        close_last=kafka or close_at_end is not False,
    )
    if spool:
        ran = run_spool(decoding, settings, options, follow=follow)
    elif kafka:
        ran = run_kafka(kafka_flags, decoding, settings, options, follow=follow)
    else:
        restart = restart_if_replaced
        ran = _run_log(
            source, decoding, settings, options, url=url if live else None, live=live, follow=follow, restart=restart
        )
    for note in ran.notes:
        say(f"note: {note}")
    reject_file = write_rejects(ran.result, reject_folder(settings.store.url), f"{decoding.graph}.{ran.file_name}")
    if as_json:
        sys.stdout.write(json.dumps(summary_json(ran.result, reject_file)) + "\n")
    else:
        summarise(ran.name, ran.result, reject_file)
    if ran.interrupted:
        say("graphtide: stopped. What was committed is kept; the same command goes on from there.")
        raise typer.Exit(INTERRUPTED)


def _run_log(
    source: Path,
    decoding: "DecodeOptions",
    settings: "Settings",
    options: "IngestOptions",
    *,
    url: str | None,
    live: bool,
    follow: bool,
    restart: bool,
) -> Ran:
    from forecasting.cut_logs import notes_of_cut  # noqa: PLC0415
    from stream.graphs import BeginsBeforeError  # noqa: PLC0415
    from stream.sources.files import FileSource  # noqa: PLC0415
    from stream.sources.single import SinglePartition  # noqa: PLC0415

    with interruptible(f"Nothing of {source.name} was ingested yet."), progress(f"Ingesting {source.name}") as report:
        events: LiveSource | FileSource | FollowSource
        if live:
            events = live_source(str(source), decoding, settings, url)
        else:
            backfill = options.backfill
            events = _source(source, decoding, settings, report, follow=follow, restart=restart, backfill=backfill)
        try:
            result, interrupted, notes = run_to_end(
                SinglePartition(events), settings, options, lambda state: report(state.events, None, _rate(state))
            )
        except BeginsBeforeError as error:
            if isinstance(events, FileSource) and events.rewritten is not None:
                raise events.rewritten.error(error.message) from None
            raise
    if result.ended and not result.unchanged and options.close_last:
        notes += notes_of_cut(settings.store.url, result)
    return Ran(str(source), source.resolve().name, result, interrupted, [*notes, *events.notes])


def _source(
    path: Path,
    decoding: "DecodeOptions",
    settings: "Settings",
    report: Report,
    *,
    follow: bool,
    restart: bool = False,
    backfill: bool = False,
) -> "FileSource | FollowSource":
    from stream.sources.files import FileSource, FollowSource  # noqa: PLC0415

    keeps = bool(settings.dead_letters.target)
    decoding = replace(decoding, reject_sample=settings.ingest.keep_rejects, keep_records=keeps)
    if follow:
        return FollowSource(
            path,
            decoding,
            poll_interval_s=settings.ingest.poll_interval_s,
            restart_if_replaced=restart,
            may_be_late=backfill,
        )
    return FileSource(
        path,
        decoding,
        batch_rows=settings.ingest.batch_rows,
        max_rows_in_memory=settings.ingest.max_rows_in_memory,
        on_progress=lambda done, total: report(done, total, "bytes read"),
        may_be_late=backfill,
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
