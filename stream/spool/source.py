"""The spool as a source: drained in order, each request let go of after the store has it."""

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from infra.errors import InputError
from stream.decoders.records.base import Record
from stream.events import Interner, Reject
from stream.sources.base import Claims, Part, PartitionedBatch, Position
from stream.spool.file import Spool
from stream.spool.records import Request, SpoolDecoder

# The partition that has no events, only the place in the spool and the names of the graphs. Each graph is a partition
# of its own, so that the times of one make no event of another late.
PLACE = ""
_SHOWN_BYTES = 200


class SpoolSource:
    """Reads a spool; see `PartitionedSource`.

    Its place is the number of the last request, committed with the snapshots. Only then are the records dropped, so
    that no moment is the wrong one for a kill.

    Args:
        spool: what is drained.
        follow: wait for more, until `stop`.
        batch_records: records of one commit, about; a request is never cut.
        poll_interval_s: how often to look for more.
        idle_timeout_s: seconds without an event after which a graph no longer holds back the steps of the others.
        keep_s: seconds that answers stay, so that a repeated request is known.
        max_names: names that are kept before the source begins to collect anew, so that memory stays bounded.
        stop: asked often; True ends the reading behind what was handed over.
        sleep, clock_s: the waiting and the time.
    """

    def __init__(
        self,
        spool: Spool,
        *,
        follow: bool,
        batch_records: int = 50_000,
        poll_interval_s: float = 1.0,
        idle_timeout_s: float = 60.0,
        keep_s: float = 86_400.0,
        max_names: int = 1_000_000,
        stop: Callable[[], bool] = lambda: False,
        sleep: Callable[[float], None] = time.sleep,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spool = spool
        self._follow = follow
        self._batch_records = batch_records
        self._poll_interval_s = poll_interval_s
        self._idle_timeout_s = idle_timeout_s
        self._keep_s = keep_s
        self._max_names = max_names
        self._stop = stop
        self._sleep = sleep
        self._clock_s = clock_s
        self._number = 0
        self._graphs: list[str] = []
        self._heard_s: dict[str, float] = {}
        self._last: dict[str, int] = {}

    @property
    def name(self) -> str:
        """The identity: that of the file, which another file at its place does not have."""
        return f"spool:{self._spool.id}"

    def batches(self, claims: Claims) -> Iterator[PartitionedBatch]:
        """Yield what waits, then what comes where it is followed.

        Raises:
            InputError: the store has another kind of position for this source.
            StoreError: the spool cannot be used.
        """
        self._resume(claims.claim((PLACE,))[PLACE])
        # Those that were heard before hold back steps as they did.
        self._last = {graph: _request(place) for graph, place in claims.claim(self._graphs).items()}
        self._heard_s = dict.fromkeys(self._graphs, self._clock_s())
        self._spool.drained(self._number, keep_s=self._keep_s)
        decoder = SpoolDecoder(Interner())
        while not self._stop():
            requests = self._spool.waiting(self._number, self._batch_records)
            if not requests and not self._follow:
                return
            new = sorted({request.graph for request in requests}.difference(self._graphs))
            if new:
                claims.claim(new)
                self._graphs += new
            if len(decoder.interner) > self._max_names:
                decoder = SpoolDecoder(Interner())
            yield self._batch(requests, decoder)
            # Whoever asks for the next batch has committed this one.
            if requests:
                self._spool.drained(self._number, keep_s=self._keep_s)
            else:
                self._sleep(self._poll_interval_s)

    def _resume(self, place: Position | None) -> None:
        number, graphs = (0, "") if place is None else (place.get("request"), place.get("graphs"))
        if not isinstance(number, int) or isinstance(number, bool) or not isinstance(graphs, str):
            raise InputError(
                f"the spool {self._spool.path} cannot be resumed: the store has another kind of position for it",
                fix="ingest it into a new store",
            )
        self._number = number
        self._graphs = [graph for graph in graphs.split(",") if graph]

    def _batch(self, requests: Sequence[Request], decoder: SpoolDecoder) -> PartitionedBatch:
        """Return requests as a batch: the rows of a graph together, and the graphs that have fallen idle."""
        if requests:
            self._number = requests[-1].number
        ordered = sorted(requests, key=lambda request: request.graph)
        records, decoded = decoder.decode(ordered)
        bad_at = np.array([bad.record for bad in decoded.bad], dtype=np.int64)
        parts: list[Part] = []
        begin = row = 0
        for graph in sorted({request.graph for request in requests}):
            end = begin + sum(len(request.records) for request in ordered if request.graph == graph)
            end_row = int(np.searchsorted(decoded.record, end))
            rejected = int(np.count_nonzero((bad_at >= begin) & (bad_at < end)))
            parts.append(Part(graph, row, end_row, {"request": self._number}, rejected))
            self._heard_s[graph], self._last[graph] = self._clock_s(), self._number
            begin, row = end, end_row
        busy = {part.partition for part in parts}
        idle_from_s = self._clock_s() - self._idle_timeout_s
        parts += [
            Part(graph, row, row, {"request": self._last[graph]}, idle=True)
            for graph in self._graphs
            if graph not in busy and self._heard_s[graph] <= idle_from_s
        ]
        place: Position = {"request": self._number, "graphs": ",".join(self._graphs)}
        parts.append(Part(PLACE, row, row, place, idle=True))

        def reject(at: int, reason: str, stage: str) -> Reject:
            record = records[at]
            return Reject(place_of(record), _shown(record), reason, stage, record_of=record)

        def letter(row: int, reason: str, stage: str) -> Reject:
            return reject(int(decoded.record[row]), reason, stage)

        return PartitionedBatch(decoded.events, tuple(parts), [reject(*bad) for bad in decoded.bad], letter)


def _request(place: Position | None) -> int:
    return int(place["request"]) if place is not None else 0


def place_of(record: Record) -> str:
    """Return where a record stands, for people."""
    return f"events over HTTP for {record.topic}, request {record.partition}, record {record.offset + 1}"


def _shown(record: Record) -> str:
    return (record.value or b"")[:_SHOWN_BYTES].decode("utf-8", "backslashreplace")
