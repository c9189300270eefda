"""A source of one partition as a partitioned one, so that ingestion knows one kind."""

from collections.abc import Iterator

from infra.errors import StoreError
from stream.sources.base import Claims, GoingOn, Growing, Part, PartitionedBatch, Position, ReadBefore, Source

# A file has one partition; where it stands is told without its name.
ONLY_PARTITION = ""


class SinglePartition:
    """Reads a `Source` as a `PartitionedSource`."""

    def __init__(self, source: Source) -> None:
        self._source = source
        # What was read before when the source was asked where to begin, and its answer.
        self._before: list[ReadBefore] = []
        self._going_on: GoingOn | None = None

    @property
    def name(self) -> str:
        """The identity of the source in the store."""
        return self._source.name

    def batches(self, claims: Claims) -> Iterator[PartitionedBatch]:
        """Yield the source's batches from where the store has it; see `PartitionedSource`."""
        begin = self._begin(claims)
        position = claims.claim((ONLY_PARTITION,))[ONLY_PARTITION]
        is_new = position is None and isinstance(self._source, Growing)
        for batch in self._source.batches(begin if position is None else position):
            if is_new:
                # Decoding may have taken long. What is looked at here need not be looked at while others wait.
                self._check_still(claims)
                claims.check_first(lambda: self._check_still(claims))
                is_new = False
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

    def _begin(self, claims: Claims) -> Position | None:
        """Return where a source that was never read begins; what it goes on with is held by then."""
        if not isinstance(self._source, Growing):
            return None
        before = claims.read_before("")
        if any(each.name == self.name for each in before):
            return None
        going_on, held = self._source.goes_on(before), set[str]()
        while going_on is not None and not held.issuperset(going_on.after):
            claims.hold(going_on.after)
            held.update(going_on.after)
            # Until then another process may have gone on with them, and come to its end.
            if (now := claims.read_before("")) != before:
                before, going_on = now, self._source.goes_on(now)
        self._before, self._going_on = before, going_on
        return None if going_on is None else going_on.position

    def _check_still(self, claims: Claims) -> None:
        """Make sure that the source would begin where it did, after all that was read meanwhile.

        Raises:
            InputError: it cannot be told any more where to begin.
            StoreError: it would begin elsewhere.
        """
        if not isinstance(self._source, Growing) or (now := claims.read_before("")) == self._before:
            return
        if any(each.name == self.name for each in now):
            return  # Another process has taken it over, as the commit will say.
        self._before = now
        if self._source.goes_on(now) != self._going_on:
            raise StoreError(
                "another process has read of these logs meanwhile, which would count again",
                fix="run the same command again: only what is new then is added",
            )
