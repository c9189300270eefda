"""How good the ground of a graph's snapshots is: what its sources delivered, and what of it was not counted."""

from dataclasses import dataclass

from stream.store.base import SnapshotReader
from stream.store.sql.reader import SqlSnapshots
from stream.windows import NEVER_US

# Dead letters are counted up to this many, so that the question stays quick however many there are.
MAX_COUNTED = 10_000

_PARTITIONS = (
    "SELECT sources.name, partitions.name, watermark_us, max_ts_us, partitions.events, partitions.late, duplicates,"
    " rejected, idle FROM feeders JOIN graphs ON graphs.id = feeders.graph_id"
    " JOIN partitions ON partitions.source_id = feeders.source_id AND partitions.name = feeders.partition_name"
    " JOIN sources ON sources.id = feeders.source_id WHERE graphs.name = ? ORDER BY sources.name, partitions.name"
)
_LETTERS = (
    "SELECT count(*), count(delivered_us), count(replayed_us) FROM (SELECT delivered_us, replayed_us FROM dead_letters"
    " WHERE source_id IN (SELECT source_id FROM feeders JOIN graphs ON graphs.id = graph_id WHERE graphs.name = ?)"
    f" LIMIT {MAX_COUNTED + 1}) AS letters"
)


@dataclass(frozen=True, slots=True)
class PartitionQuality:
    """One partition that feeds a graph, perhaps others too.

    Attributes:
        source, partition: names; the partition's is empty where a source has only one.
        watermark_us: no event of an earlier time is expected any more; None while there was no event.
        newest_us: largest event time; None while there was no event.
        events: valid events, late ones and duplicates included.
        late, duplicates, rejected: how many were not counted, and why.
        idle: nothing came for a while, so that steps do not wait for it.
    """

    source: str
    partition: str
    watermark_us: int | None
    newest_us: int | None
    events: int
    late: int
    duplicates: int
    rejected: int
    idle: bool


@dataclass(frozen=True, slots=True)
class Quality:
    """What a store of record knows of the sources behind a graph.

    Attributes:
        partitions: those that feed the graph.
        dead_letters: whole records of their sources that were not counted; at most `MAX_COUNTED`, see `has_more`.
        delivered, replayed: how many of these were delivered to the dead letter target, and sent again.
        has_more: whether there are more dead letters than were counted.
    """

    partitions: tuple[PartitionQuality, ...]
    dead_letters: int
    delivered: int
    replayed: int
    has_more: bool


def read_quality(reader: SnapshotReader, graph: str) -> Quality | None:
    """Return what the store knows of a graph's sources; None where it is a projection, which holds snapshots alone.

    Raises:
        StoreError: the store cannot be read.
    """
    if not isinstance(reader, SqlSnapshots):
        return None
    partitions = tuple(
        PartitionQuality(
            source, name, _time(watermark_us), _time(newest_us), events, late, duplicates, rejected, idle > 0
        )
        for source, name, watermark_us, newest_us, events, late, duplicates, rejected, idle in reader.database.fetch(
            _PARTITIONS, (graph,)
        )
    )
    ((letters, delivered, replayed),) = reader.database.fetch(_LETTERS, (graph,))
    return Quality(partitions, min(letters, MAX_COUNTED), delivered, replayed, letters > MAX_COUNTED)


def _time(us: int) -> int | None:
    return None if us <= NEVER_US else us
