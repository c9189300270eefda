"""`graphtide ingest kafka`: its flags, and its run under a live display."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from forecasting.cli.call import interruptible, say
from forecasting.cli.ingested import Ran, run_to_end
from forecasting.cli.watch import Watch
from infra.errors import UsageError

if TYPE_CHECKING:
    from infra.settings import Settings
    from stream.decoders.builder import DecodeOptions
    from stream.ingest import IngestOptions
    from stream.sources.base import Claims, PartitionedBatch
    from stream.sources.kafka.source import KafkaSource

KAFKA_NAME = "kafka"


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaFlags:
    """What was asked for of Kafka; all but `close_at_end` are flags that only Kafka has."""

    bootstrap_servers: str | None
    topics: tuple[str, ...]
    group: str | None
    close_at_end: bool
    client: str | None
    options: tuple[str, ...]
    metrics_port: int | None
    metrics_host: str | None


def is_kafka(source: Path, flags: KafkaFlags) -> bool:
    """Tell whether the source is Kafka; a file of that name goes before it where no topic is named.

    Raises:
        UsageError: flags of Kafka are given for another source, or Kafka is given no topic.
    """
    # A project often has a folder of that name; topics are of Kafka alone.
    kafka = str(source) == KAFKA_NAME and (bool(flags.topics) or not source.exists())
    given = [
        flag
        for flag, value in (
            ("--bootstrap-servers", flags.bootstrap_servers),
            ("--topics", flags.topics),
            ("--group", flags.group),
            ("--client", flags.client),
            ("--kafka-option", flags.options),
            ("--metrics-port", flags.metrics_port),
            ("--metrics-host", flags.metrics_host),
        )
        if value
    ]
    if given and not kafka:
        raise UsageError(f"{given[0]} is for Kafka", fix=f"leave it out, or: graphtide ingest kafka {given[0]} …")
    if kafka and not flags.topics:
        raise UsageError("no topic is named", fix="use --topics events, several with commas, or --topics '^events-.*'")
    return kafka


def run_kafka(
    flags: KafkaFlags,
    decoding: "DecodeOptions",
    settings: "Settings",
    options: "IngestOptions",
    *,
    follow: bool,
) -> Ran:
    """Read topics into the store, and show how it goes.

    Raises:
        UsageError: a flag is wrong.
        GraphtideError: the brokers, the topics or the store failed.
    """
    if follow and flags.close_at_end:
        raise UsageError("--close-at-end needs an end, and --follow has none", fix="leave out one of them")
    if flags.group is not None and flags.close_at_end:
        raise UsageError(
            "--close-at-end would close steps that other processes of the group still fill",
            fix="leave out --group, so that one process reads all partitions",
        )
    if flags.metrics_host is not None and flags.metrics_port is None:
        raise UsageError("--metrics-host names no port", fix="give one: --metrics-port 9108")
    quieten()
    from stream.sources.kafka.opening import kafka_source  # noqa: PLC0415 - not needed for --help

    name = f"topics {', '.join(flags.topics)} at {settings.kafka.bootstrap_servers}"
    with interruptible(f"Nothing of {name} was ingested yet."):
        source = kafka_source(
            settings,
            decoding,
            topics=flags.topics,
            group=flags.group,
            follow=follow,
            close_at_end=flags.close_at_end,
            given=flags.options,
            say=say,
        )
        with (
            source,
            Watch(f"Ingesting {name}", metrics_port=flags.metrics_port, metrics_host=flags.metrics_host) as watch,
        ):
            watched = _Watched(source, lambda: watch.polled(source.status()))
            result, interrupted, notes = run_to_end(
                watched, settings, options, watch.committed, watch.opened, flags.options
            )
            notes += _gaps(source)
    if result.events and not any(graph.snapshots for graph in result.graphs):
        notes.append(
            "no step is closed yet: steps wait until every partition has passed their end, or has been idle for"
            f" {settings.kafka.idle_timeout_s:g} s under --follow; --close-at-end closes them at the end of a run"
        )
    return Ran(name, KAFKA_NAME, result, interrupted, notes)


def quieten() -> None:
    """Keep away the libraries' own lines, several for each try that fails; the source says what matters."""
    if logging.getLogger().getEffectiveLevel() > logging.INFO:  # without --verbose
        for name in ("kafka", "confluent_kafka"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)


class _Watched:
    """A Kafka source that calls `on_poll` before it hands a batch over, empty ones included."""

    def __init__(self, source: "KafkaSource", on_poll: Callable[[], None]) -> None:
        self._source = source
        self._on_poll = on_poll

    @property
    def name(self) -> str:
        """See `PartitionedSource`."""
        return self._source.name

    def batches(self, claims: "Claims") -> "Iterator[PartitionedBatch]":
        """See `PartitionedSource`."""
        for batch in self._source.batches(claims):
            self._on_poll()
            yield batch


def _gaps(source: "KafkaSource") -> Sequence[str]:
    return [
        f"{partition.partition}: {partition.missing:,} offsets had no record, in {partition.gaps:,} gaps"
        " (compaction, transactions, or records that were deleted)"
        for partition in source.status().partitions
        if partition.gaps
    ]
