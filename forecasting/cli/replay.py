"""`graphtide replay`: a log, played to Kafka or into a file at its own pace or faster."""

import json
import math
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forecasting.cli.call import INTERRUPTED, Call, console, say
from forecasting.cli.ingest import parse_columns
from forecasting.cli.ingested import one_of_each_reason
from forecasting.cli.progress import progress
from infra.errors import InputError, UsageError
from infra.steps import SECOND_US, format_time

if TYPE_CHECKING:
    from infra.settings import Settings
    from stream.decoders.builder import DecodeOptions
    from stream.replay import Replayed, ReplayOptions, Sink
    from stream.sources.base import Source

SIMULATED = "simulated"
_KAFKA, _FILE, _STDOUT = "kafka", "file:", "-"
_LINE_FORMATS = ("json", "ndjson")


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(replay)


def replay(
    ctx: typer.Context,
    source: Annotated[
        str,
        typer.Argument(help="A log, a folder of logs, or 'simulated' for the simulated network.", show_default=False),
    ],
    to: Annotated[str, typer.Option("--to", metavar="PLACE", help="kafka, file:PATH, or - for standard output.")],
    bootstrap_servers: Annotated[
        str | None, typer.Option("--bootstrap-servers", metavar="HOST:PORT,…", help="Where Kafka is.")
    ] = None,
    kafka_option: Annotated[
        list[str] | None, typer.Option("--kafka-option", metavar="KEY=VALUE", help="An option of Kafka's client.")
    ] = None,
    topic: Annotated[str | None, typer.Option("--topic", metavar="NAME", help="The topic; it has to exist.")] = None,
    speed: Annotated[
        str, typer.Option("--speed", metavar="X", help="Seconds of the log in one second: 1, 3600, or max.")
    ] = "1",
    key: Annotated[str, typer.Option("--key", help="Key of the messages: graph or src.")] = "graph",
    batch: Annotated[int, typer.Option("--batch", min=1, metavar="N", help="Most events of a message.")] = 1,
    encoding: Annotated[
        str,
        typer.Option("--format", metavar="NAME", help="json, ndjson, arrow, cloudevents or cloudevents-structured."),
    ] = "json",
    limit: Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="Send so many events.")] = None,
    skip: Annotated[int, typer.Option("--skip", min=0, metavar="N", help="Leave out so many at the start.")] = 0,
    shift_to_now: Annotated[
        bool, typer.Option("--shift-to-now", help="Shift all times: the first event that is sent happens now.")
    ] = False,
    graph: Annotated[
        str | None,
        typer.Option("--graph", metavar="NAME", help="Graph of events that name none; else they still name none."),
    ] = None,
    input_format: Annotated[
        str | None, typer.Option("--input-format", metavar="NAME", help="Of the log: ndjson, csv, …; else recognised.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option("--columns", metavar="ROLE=NAME,…", help="Where fields of the log stand.")
    ] = None,
    years: Annotated[float, typer.Option("--years", min=0.001, help="Length of the simulated log.")] = 1.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the simulation.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was sent as one JSON object.")] = False,
) -> None:
    """Play a log into Kafka or a file, in the order of its times.

    Every event has an id, the same in each replay of the same log: what is sent again, or after a stop with --skip, is
    not counted twice. --batch 500 sends several times as many events a second as single ones.

    Example: graphtide replay sx-mathoverflow.txt.gz --to kafka --topic events --speed 3600
    """
    call: Call = ctx.obj
    settings = call.load({"kafka.bootstrap_servers": ("--bootstrap-servers", bootstrap_servers)}).values
    _check_place(to, topic, encoding, batch)
    # Lines stand alone, and in the order of time: nothing is gained from putting several together.
    options = _options(speed, key, batch if to == _KAFKA else 1, skip, limit, shift_to_now=shift_to_now)
    from stream.decoders.builder import DecodeOptions  # noqa: PLC0415 - numpy is not needed for --help
    from stream.encoders import event_encoder  # noqa: PLC0415
    from stream.events import DEFAULT_GRAPH, UNNAMED_GRAPH  # noqa: PLC0415
    from stream.replay import replay as play  # noqa: PLC0415

    decoding = DecodeOptions(
        graph=DEFAULT_GRAPH if graph is None else graph,
        format="auto" if input_format is None else input_format,
        columns=parse_columns(columns),
        # Whoever reads the events may name their graph; a name from here would take that away.
        keep_unnamed=graph is None,
    )
    log = _source(source, decoding, settings, years, seed, UNNAMED_GRAPH if graph is None else graph)
    encoder = event_encoder(encoding if to == _KAFKA else "ndjson")
    total = None if limit is None else float(limit)
    with (
        stopped_by_ctrl_c() as stop,
        _sink(to, topic, settings, kafka_option or [], append=skip > 0) as sink,
        progress(f"Replaying {source}") as report,
    ):
        done = play(
            log,
            encoder,
            sink,
            options,
            on_progress=lambda state: report(state.events, total, _rate(state)),
            stop=stop,
        )
    _tell(done, to, options, as_json=as_json)
    if done.stopped:
        raise typer.Exit(INTERRUPTED)


@contextmanager
def stopped_by_ctrl_c() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether Ctrl-C was pressed; a second one interrupts at once."""
    pressed = threading.Event()

    def press(_signal: int, _frame: object) -> None:
        if pressed.is_set():
            raise KeyboardInterrupt
        pressed.set()

    before = signal.signal(signal.SIGINT, press)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def parse_speed(text: str) -> float | None:
    """Return seconds of event time in a second; None for `max`.

    Raises:
        UsageError: it is neither a positive number nor `max`.
    """
    if text.strip().lower() == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = math.nan
    if not (math.isfinite(speed) and speed > 0):
        raise UsageError(f"--speed cannot be {text!r}", fix="give 1 for the pace of the log, 3600, …, or max")
    return speed


def _options(speed: str, key: str, batch: int, skip: int, limit: int | None, *, shift_to_now: bool) -> "ReplayOptions":
    from stream.replay import ReplayOptions  # noqa: PLC0415

    if key not in ("graph", "src"):
        raise UsageError(f"--key cannot be {key!r}", fix="give graph or src")
    return ReplayOptions(
        speed=parse_speed(speed),
        key="graph" if key == "graph" else "src",
        batch=batch,
        skip=skip,
        limit=limit,
        shift_to_now=shift_to_now,
    )


def _check_place(to: str, topic: str | None, encoding: str, batch: int) -> None:
    if to == _KAFKA:
        if not topic:
            raise UsageError("no topic is named", fix="use --topic NAME")
    elif to != _STDOUT and not (to.startswith(_FILE) and to.removeprefix(_FILE)):
        raise UsageError(f"--to cannot be {to!r}", fix="give kafka, file:PATH, or - for standard output")
    elif encoding not in _LINE_FORMATS:
        raise UsageError(f"--format {encoding} is for Kafka", fix="leave it out: a file gets one JSON object a line")
    if encoding == "cloudevents" and batch > 1:
        raise UsageError(
            "a CloudEvent in binary mode holds one event", fix="use --format cloudevents-structured, or --batch 1"
        )


def _source(
    text: str, decoding: "DecodeOptions", settings: "Settings", years: float, seed: int, graph: str
) -> "Source":
    path = Path(text)
    if text == SIMULATED and not path.exists():
        from stream.sources.simulate import SimulatedSource, SimulationConfig  # noqa: PLC0415

        return SimulatedSource(SimulationConfig(years=years, seed=seed), graph=graph)
    from stream.sources.files import FileSource  # noqa: PLC0415

    return FileSource(
        path,
        decoding,
        batch_rows=settings.ingest.batch_rows,
        max_rows_in_memory=settings.ingest.max_rows_in_memory,
    )


@contextmanager
def _sink(
    to: str, topic: str | None, settings: "Settings", kafka_options: list[str], *, append: bool
) -> "Iterator[Sink]":
    from stream.lines import ends_a_line  # noqa: PLC0415
    from stream.replay_sinks import KafkaSink, LineSink  # noqa: PLC0415

    if to == _KAFKA:
        from stream.sources.kafka.options import connection_of  # noqa: PLC0415
        from stream.sources.kafka.sender import KafkaSender  # noqa: PLC0415

        with KafkaSender(connection_of(settings.kafka, kafka_options)) as sender:
            yield KafkaSink(sender, str(topic))
        return
    if to == _STDOUT:
        yield LineSink(sys.stdout.buffer, "standard output")
        return
    path = Path(to.removeprefix(_FILE))
    if path.exists() and path.stat().st_size and not append:
        raise UsageError(f"{path} exists", fix="remove it or name another; with --skip N, events are added to it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
        if not ends_a_line(path):
            # What was written in part comes again behind it.
            file.write(b"\n")
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror}", fix="name another file: --to file:PATH"
        ) from None
    try:
        yield LineSink(file, str(path))
    finally:
        # The sink was flushed, or an error is on its way that says more than another try to write would.
        with suppress(OSError):
            file.close()


def _rate(state: "Replayed") -> str:
    reached = "" if state.last_us is None else f", at {format_time(state.last_us)}"
    return f"events, {state.events_per_s:,.0f}/s{reached}"


def _tell(done: "Replayed", to: str, options: "ReplayOptions", *, as_json: bool) -> None:
    if as_json and to != _STDOUT:
        sys.stdout.write(json.dumps(_summary(done, options)) + "\n")
    else:
        tell = say if to == _STDOUT else console().print
        tell(
            f"{done.events:,} events in {done.records:,} messages in {done.seconds:.1f} s: {done.events_per_s:,.0f}"
            " events/s"
        )
    if done.rejected:
        say(f"note: {done.rejected:,} records were rejected and not sent, for example:")
        for reject in one_of_each_reason(done.rejects):
            say(f"  {reject.place}: {reject.reason}")
    if done.disorder_us:
        say(
            f"note: events of different keys stand up to {done.disorder_us / SECOND_US:,.3f} s out of order; read them"
            f" with [ingest] out_of_orderness_s = {math.ceil(done.disorder_us / SECOND_US)} at least"
        )
    if done.stopped:
        say(f"graphtide: stopped; what was sent has arrived. --skip {options.skip + done.events} goes on from there.")


def _summary(done: "Replayed", options: "ReplayOptions") -> dict[str, object]:
    first, last = (None if us is None else format_time(us) for us in (done.first_us, done.last_us))
    return {
        "events": done.events,
        "messages": done.records,
        "rejected": done.rejected,
        "first": first,
        "last": last,
        "seconds": round(done.seconds, 3),
        "events_per_s": round(done.events_per_s, 1),
        "disorder_s": done.disorder_us / SECOND_US,
        "stopped": done.stopped,
        "next_skip": options.skip + done.events,
    }
