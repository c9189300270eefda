"""From the rows of a reader to validated events: what all formats of records share."""

from collections.abc import Sequence
from itertools import compress

import numpy as np

from stream.decoders.base import BadRecord, RawColumns
from stream.decoders.builder import EventBuilder
from stream.decoders.records.base import (
    EVENT_STAGE,
    BadEvent,
    Decoded,
    Record,
    RecordReader,
    Rows,
    topic_graph,
    topics_of,
    values_of,
)
from stream.decoders.times import TimeReader
from stream.events import EventBatch, IntArray


class ReaderDecoder:
    """Decodes records of one reader.

    Args:
        reader: payloads to rows.
        builder: validates the rows and makes the batches.
        times: reads event times where the rows do not bring a reader of their own.
        topic_graphs: events without a graph belong to the one named after their topic, not to the builder's default.
    """

    def __init__(
        self, reader: RecordReader, builder: EventBuilder, *, times: TimeReader, topic_graphs: bool = False
    ) -> None:
        self._reader = reader
        self._builder = builder
        self._times = times
        self._topic_graphs = topic_graphs

    def decode(self, records: Sequence[Record]) -> Decoded:
        """Decode records; see `RecordDecoder`."""
        values = values_of(records)
        if None in values:
            full = [value is not None for value in values]
            kept = np.flatnonzero(full)
            tombstones = len(values) - len(kept)
            read = self._reader.read(list(compress(records, full)))
        else:
            kept, tombstones = np.arange(len(values)), 0
            read = self._reader.read(records)
        batches: list[EventBatch] = []
        owners: list[IntArray] = []
        bad = [BadEvent(int(kept[at]), reason, stage) for at, reason, stage in read.bad]
        for rows in read.rows:
            owner = kept[rows.record]
            if self._topic_graphs:
                _fill_graphs(rows, owner, records)
            batch, good, failed = self._build(rows)
            batches.append(batch)
            owners.append(owner[good] if failed else owner)
            bad += [BadEvent(int(owner[row]), rows.place(row) + reason, EVENT_STAGE) for row, reason in failed]
        events, record = _merge(batches, owners, self._builder)
        bad.sort(key=lambda each: each.record)
        return Decoded(events, record, bad, read.skipped + tombstones)

    def _build(self, rows: Rows) -> tuple[EventBatch, IntArray, list[tuple[int, str]]]:
        """Return the good events, their rows, and each bad row with the reason."""
        sink = _Sink()
        raw = RawColumns(lines=range(len(rows)), columns=rows.columns, text=lambda _: "", typed=True)
        batch = self._builder.build(raw, rows.times or self._times, sink)
        failed = sorted((record.line, record.reason) for record in sink.records)
        good = np.delete(np.arange(len(rows)), [row for row, _ in failed])
        return batch, good, failed


class _Sink:
    label = ""

    def __init__(self) -> None:
        self.records: list[BadRecord] = []

    def extend(self, records: list[BadRecord]) -> None:
        self.records += records


def _fill_graphs(rows: Rows, owner: IntArray, records: Sequence[Record]) -> None:
    names: dict[str, str] = {}
    topics = topics_of(records, owner.tolist())
    for topic in set(topics):
        names[topic] = topic_graph(topic)
    given = rows.columns.get("graph", [None] * len(rows))
    rows.columns["graph"] = [
        names[topic] if graph is None or (isinstance(graph, str) and not graph.strip()) else graph
        for graph, topic in zip(given, topics, strict=True)
    ]


def _merge(batches: list[EventBatch], owners: list[IntArray], builder: EventBuilder) -> tuple[EventBatch, IntArray]:
    """Join batches into one in the order of the records."""
    if not batches:
        return EventBatch.from_events([], builder.interner), np.zeros(0, dtype=np.int64)
    if len(batches) == 1:
        return batches[0], owners[0]
    record = np.concatenate(owners)
    # Blocks of a reader usually follow each other.
    in_order = bool((record[1:] >= record[:-1]).all())
    order = slice(None) if in_order else np.argsort(record, kind="stable")
    ids: list[str | None] | None = None
    if any(batch.ids is not None for batch in batches):
        joined = [each for batch in batches for each in (batch.ids if batch.ids is not None else [None] * len(batch))]
        ids = joined if isinstance(order, slice) else [joined[at] for at in order.tolist()]
    columns = {
        name: np.concatenate([getattr(batch, name) for batch in batches])[order]
        for name in ("graph", "type", "src", "dst", "ts_us", "weight")
    }
    return EventBatch(interner=builder.interner, ids=ids, lines=None, **columns), record[order]
