"""Ingestion as the settings want it: its options, and the store with all that works beside it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.settings import Settings
from infra.steps import SECOND_US
from stream.closing import Limits
from stream.companion import Companion
from stream.deadletters import FileTarget, Target, TopicTarget
from stream.delivery import Delivery
from stream.ingest import Ingest, IngestOptions
from stream.progress import IngestProgress
from stream.sources.base import PartitionedSource
from stream.store import open_dead_letters, open_writer
from stream.store.project import Projection, enable, make_projector
from stream.store.projector import Projector, ProjectorStatus
from stream.store.writer import StoreWriter


def ingest_options(
    settings: Settings,
    *,
    split_by_type: bool = False,
    backfill: bool = False,
    live: bool = False,
    close_last: bool = True,
) -> IngestOptions:
    """Return the options of a run.

    Args:
        settings: all settings.
        split_by_type: also keep a graph for each event type.
        backfill: the events revise closed steps.
        live: events come as they happen, so that a time ahead of the clock is a wrong clock. A log may hold any time.
        close_last: the end of a source closes the step that holds its last event.
    """
    ingest, metrics = settings.ingest, settings.metrics
    return IngestOptions(
        step_us=ingest.step_us,
        out_of_orderness_us=ingest.out_of_orderness_s * SECOND_US,
        allowed_lateness_us=ingest.allowed_lateness_s * SECOND_US,
        max_ahead_us=ingest.max_ahead_s * SECOND_US if live else None,
        idle_hold_us=ingest.idle_hold_s * SECOND_US,
        dedup_window_us=ingest.dedup_window_s * SECOND_US,
        keep_edges_us=ingest.keep_edges_s * SECOND_US or None,
        backfill=backfill,
        close_last=close_last,
        split_by_type=split_by_type,
        split_graphs=frozenset(ingest.split_graphs),
        limits=Limits(metrics.max_nodes, metrics.max_edges, ingest.max_empty_steps),
        keep_rejects=ingest.keep_rejects,
    )


@dataclass(frozen=True, slots=True)
class Ingestion:
    """A run of ingestion with its store open.

    Attributes:
        run: to be run, and asked for its result.
        projector: projects the store to InfluxDB meanwhile; None where no InfluxDB is set.
        delivery: delivers dead letters to their target meanwhile; None where there is none but the store.
    """

    run: Ingest
    writer: StoreWriter
    projector: Projector | None
    delivery: Delivery | None

    def deliver(self, timeout_s: float) -> bool:
        """Wait until the dead letters that were committed are delivered, and mark them; return whether all are."""
        return self.delivery is None or self.delivery.drain(self.writer, timeout_s)

    def drain(self, timeout_s: float) -> ProjectorStatus | None:
        """Wait until all that was committed is in InfluxDB and note it; return what is left, None without InfluxDB.

        Raises:
            StoreError: the store cannot be written.
        """
        if self.projector is None:
            return None
        status = self.projector.drain(timeout_s)
        projection = Projection(self.projector)
        if projection.has_news():
            with self.writer.transaction():
                projection.commit(self.writer)
            projection.committed()
        return status


@contextmanager
def ingestion(
    source: PartitionedSource,
    settings: Settings,
    options: IngestOptions,
    on_progress: Callable[[IngestProgress], None] | None = None,
    *,
    kafka_options: Sequence[str] = (),
) -> Iterator[Ingestion]:
    """Open the store of record for a run of `source`, and start what works beside it.

    Args:
        source: what is read.
        settings: all settings.
        options: how events become snapshots.
        on_progress: told after each commit.
        kafka_options: options of Kafka's own, as `key=value`, for dead letters that go to a topic.

    Raises:
        UsageError: the settings name no store, or no InfluxDB, properly.
        StoreError: the store cannot be written, or another process writes it.
    """
    with ExitStack() as stack:
        writer = stack.enter_context(open_writer(settings.store.url))
        projector = make_projector(settings.store.url, settings.influxdb)
        companions: list[Companion] = []
        if projector is not None:
            with writer.transaction():
                enable(writer, projector)
            companions.append(Projection(stack.enter_context(projector)))
        delivery = _delivery(settings, kafka_options)
        if delivery is not None:
            companions.append(stack.enter_context(delivery))
        yield Ingestion(Ingest(source, writer, options, on_progress, companions), writer, projector, delivery)


def _delivery(settings: Settings, kafka_options: Sequence[str]) -> Delivery | None:
    kind, _, name = settings.dead_letters.target.partition(":")
    if not kind:
        return None
    if kind == "file":
        return Delivery(lambda: open_dead_letters(settings.store.url), lambda: FileTarget(Path(name)))
    # A client of Kafka is slow to import, and few runs need one here.
    from stream.sources.kafka.options import connection_of  # noqa: PLC0415
    from stream.sources.kafka.sender import KafkaSender  # noqa: PLC0415

    connection = connection_of(settings.kafka, kafka_options)

    @contextmanager
    def open_topic() -> Iterator[Target]:
        with KafkaSender(connection) as sender:
            yield TopicTarget(sender, name)

    return Delivery(lambda: open_dead_letters(settings.store.url), open_topic)
