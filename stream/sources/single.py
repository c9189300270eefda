"""A source of one partition as a partitioned one, so that ingestion knows one kind."""

from collections.abc import Iterator

from stream.sources.base import Claims, Growing, Part, PartitionedBatch, Source

# A file has one partition; where it stands is told without its name.
ONLY_PARTITION = ""


class SinglePartition:
    """Reads a `Source` as a `PartitionedSource`."""

    def __init__(self, source: Source) -> None:
        self._source = source

    @property
    def name(self) -> str:
        """The identity of the source in the store."""
        return self._source.name

    def batches(self, claims: Claims) -> Iterator[PartitionedBatch]:
        """Yield the source's batches from where the store has it; see `PartitionedSource`."""
        position = claims.claim((ONLY_PARTITION,))[ONLY_PARTITION]
        if position is None and isinstance(self._source, Growing):
            kind = self._source.name.partition(":")[0]
            position = self._source.goes_on(claims.read_before(f"{kind}:"))
        for batch in self._source.batches(position):
            part = Part(ONLY_PARTITION, 0, len(batch.events), batch.position, batch.rejected)
            yield PartitionedBatch(
                batch.events,
                (part,),
                batch.rejects,
                batch.letter,
                names_graphs=False,
                end=batch.end,
                complete=batch.end,
                after=batch.after,
            )
