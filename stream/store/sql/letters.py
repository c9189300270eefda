"""The part of a writer that keeps records that are no events: whole ones as dead letters, of others a sample."""

import time
from collections.abc import Callable, Sequence

import msgspec

from stream.events import Reject
from stream.store.records import SourceState
from stream.store.sql.database import Database, Part

REJECTS_OF = "SELECT place, record, reason, stage FROM rejects WHERE source_id = ? ORDER BY number"


class Letters(Part):
    """Rejects and dead letters."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        # The time of day in microseconds since the epoch, UTC.
        self._now_us: Callable[[], int] = lambda: time.time_ns() // 1000

    def add_rejects(self, source: SourceState, rejects: Sequence[Reject], *, keep: int) -> None:
        """Keep rejects: all that have their whole record, of the others up to `keep` of a source."""
        self._add_letters(source, [reject for reject in rejects if reject.record_of is not None])
        sample = [reject for reject in rejects if reject.record_of is None]
        if not sample:
            return
        held = self.database.fetch("SELECT count(*) FROM rejects WHERE source_id = ?", (source.id,))[0][0]
        sample = sample[: max(keep - held, 0)]
        self.database.insert(
            "rejects",
            {
                "source_id": [source.id] * len(sample),
                "number": list(range(held, held + len(sample))),
                "place": [_text(reject.place) for reject in sample],
                "record": [_text(reject.record) for reject in sample],
                "reason": [_text(reject.reason) for reject in sample],
                "stage": [reject.stage for reject in sample],
            },
        )

    def rejects_of(self, source: SourceState) -> list[Reject]:
        """Return the sample of a source's rejects, without those that have their whole record."""
        return [Reject(*row) for row in self.database.fetch(REJECTS_OF, (source.id,))]

    def letters_delivered(self, numbers: Sequence[int]) -> None:
        """Note that the dead letter target has durably taken these letters."""
        self._mark("delivered_us", numbers)

    def letters_replayed(self, numbers: Sequence[int]) -> None:
        """Note that the records of these letters were sent to their topics again."""
        self._mark("replayed_us", numbers)

    def _mark(self, column: str, numbers: Sequence[int]) -> None:
        now_us = self._now_us()
        for number in numbers:
            self.database.fetch(f"UPDATE dead_letters SET {column} = ? WHERE id = ?", (now_us, number))

    def _add_letters(self, source: SourceState, rejects: list[Reject]) -> None:
        if not rejects:
            return
        now_us = self._now_us()
        rows = [(reject, reject.record_of) for reject in rejects if reject.record_of is not None]
        self.database.insert(
            "dead_letters",
            {
                "source_id": [source.id] * len(rows),
                "topic": [_text(record.topic) for _, record in rows],
                "partition_number": [record.partition for _, record in rows],
                "record_offset": [record.offset for _, record in rows],
                "ts_us": [record.ts_us for _, record in rows],
                "key": [record.key for _, record in rows],
                "value": [record.value for _, record in rows],
                "headers": [msgspec.msgpack.encode(record.headers) for _, record in rows],
                "place": [_text(reject.place) for reject, _ in rows],
                "reason": [_text(reject.reason) for reject, _ in rows],
                "stage": [reject.stage for reject, _ in rows],
                "rejected_us": [now_us] * len(rows),
            },
        )


def _text(text: str) -> str:
    """Return text that every database takes: bytes that are no UTF-8, and NUL, are written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
