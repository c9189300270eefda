"""A Kafka source as the settings want it."""

from collections.abc import Callable, Sequence

from infra.settings import Settings
from stream.decoders.builder import DecodeOptions
from stream.decoders.records.base import RecordDecoder
from stream.decoders.records.formats import open_registry, record_decoder
from stream.events import Interner
from stream.sources.kafka.clients import connector
from stream.sources.kafka.decoding import BatchDecoder
from stream.sources.kafka.options import connection_of
from stream.sources.kafka.plan import KafkaOptions
from stream.sources.kafka.source import KafkaSource


def kafka_source(
    settings: Settings,
    decoding: DecodeOptions,
    *,
    topics: Sequence[str],
    group: str | None = None,
    follow: bool = False,
    close_at_end: bool = False,
    given: Sequence[str] = (),
    say: Callable[[str], None],
) -> KafkaSource:
    """Return a source that connects when it is entered.

    Args:
        settings: the sections `[kafka]`, `[ingest]`, `[schema_registry]` and `[formats]` count.
        decoding: format and graph of the records.
        topics: names, and regular expressions that begin with `^`.
        group: shares the partitions with all processes of the group; None reads all of them here.
        follow: wait for more at the end; else stop at the ends as they were at the start.
        close_at_end: the last batch of a bounded read closes all open steps.
        given: further options of Kafka, as `key=value`.
        say: tells the user what goes on, a line at a time.

    Raises:
        UsageError: an option is wrong, or the client is not installed.
        InputError: a password cannot be read.
    """
    kafka = settings.kafka
    registry = open_registry(settings.schema_registry)

    def make_decoder(interner: Interner) -> RecordDecoder:
        return record_decoder(decoding, interner=interner, own_formats=settings.formats, registry=registry)

    return KafkaSource(
        connector(kafka.client, connection_of(kafka, given), group=group),
        BatchDecoder(make_decoder, strict=decoding.strict),
        KafkaOptions(
            where=kafka.bootstrap_servers,
            topics=tuple(topics),
            group=group,
            follow=follow,
            close_at_end=close_at_end,
            start=kafka.start,
            skip_lost=kafka.on_gap == "skip",
            batch_records=settings.ingest.batch_rows,
            connect_timeout_s=kafka.connect_timeout_s,
            idle_timeout_s=kafka.idle_timeout_s,
            stall_timeout_s=kafka.stall_timeout_s,
        ),
        say=say,
    )
