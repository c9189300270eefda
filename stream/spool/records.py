"""The body of a request as records, and records as events of the graph that the request is for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from stream.decoders.builder import DecodeOptions
from stream.decoders.records.base import EVENT_STAGE, BadEvent, Decoded, Record
from stream.decoders.records.formats import record_decoder
from stream.events import EventBatch, IntArray, Interner, shown

_BOM = b"\xef\xbb\xbf"
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_ONE = msgspec.json.Decoder(msgspec.Raw)


@dataclass(frozen=True, slots=True)
class Request:
    """One request that was taken.

    Attributes:
        number: its place in the spool, from 1.
        graph: the graph that its events belong to.
        records: as they came.
        received_us: when, in microseconds since the epoch.
    """

    number: int
    graph: str
    records: tuple[bytes, ...]
    received_us: int


def split_records(body: bytes) -> list[bytes]:
    """Return the records of a body: the items of a JSON array, one JSON object, or the lines of NDJSON.

    Items are cut out as they stand. Whether each is an event is not looked at.

    Raises:
        ValueError: the body begins as an array and is none, or one that is nested too deeply; it says why.
    """
    body = body.removeprefix(_BOM).strip()
    try:
        if body.startswith(b"["):
            return [bytes(item) for item in _ARRAY.decode(body)]
        if body.startswith(b"{") and b"\n" in body:
            # One object may stand on several lines.
            return [bytes(_ONE.decode(body))]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if body.startswith(b"["):
            reason = "nested too deeply" if isinstance(error, RecursionError) else error
            raise ValueError(f"the array cannot be read: {reason}") from error
        # Lines, of which one alone is bad.
    return [line for line in (line.strip() for line in body.split(b"\n")) if line]


class SpoolDecoder:
    """Decodes records of requests. What a record becomes depends on it and its graph alone, here and at any time.

    Attributes:
        interner: of the batches.
    """

    def __init__(self, interner: Interner) -> None:
        self.interner = interner
        # The graph is filled in by topic: one decoder serves all graphs.
        self._decoder = record_decoder(DecodeOptions(format="auto", graph="{topic}"), interner=interner)

    def decode(self, requests: Sequence[Request]) -> tuple[list[Record], Decoded]:
        """Return the records of requests, and what became of them.

        An event that names another graph than its request is bad: who sent it may not be allowed to.
        """
        records = [
            Record(value, topic=request.graph, partition=request.number, offset=at, ts_us=request.received_us)
            for request in requests
            for at, value in enumerate(request.records)
        ]
        decoded = self._decoder.decode(records)
        graphs = np.array([self.interner.code(record.topic) for record in records], dtype=np.int64)
        is_strange = decoded.events.graph != graphs[decoded.record]
        if not is_strange.any():
            return records, decoded
        bad = [*decoded.bad]
        for row in np.flatnonzero(is_strange).tolist():
            at = int(decoded.record[row])
            given = self.interner.names[int(decoded.events.graph[row])]
            reason = f"graph {shown(given)} is not {shown(records[at].topic)}, which the request is for"
            bad.append(BadEvent(at, reason, EVENT_STAGE))
        bad.sort(key=lambda one: one.record)
        kept = np.flatnonzero(~is_strange)
        return records, Decoded(_rows(decoded.events, kept), decoded.record[kept], bad, decoded.skipped)


def _rows(events: EventBatch, rows: IntArray) -> EventBatch:
    columns = {name: getattr(events, name)[rows] for name in ("graph", "type", "src", "dst", "ts_us", "weight")}
    ids = None if events.ids is None else [events.ids[row] for row in rows.tolist()]
    return replace(events, ids=ids, **columns)
