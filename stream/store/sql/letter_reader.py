"""Reading dead letters from a store on an SQL database."""

from collections.abc import Sequence
from typing import Self

import msgspec
import numpy as np

from stream.decoders.records.base import Headers, Record
from stream.store.dead_letters import DeadLetter
from stream.store.sql.database import ReadDatabase, Row

_COLUMNS = (
    "dead_letters.id, sources.name, value, key, headers, topic, partition_number, record_offset, ts_us, place, reason,"
    " stage, rejected_us, delivered_us, replayed_us"
)
_FROM = f"SELECT {_COLUMNS} FROM dead_letters JOIN sources ON sources.id = source_id"
TO_DELIVER = f"{_FROM} WHERE delivered_us IS NULL ORDER BY dead_letters.id LIMIT ?"
_DECODER = msgspec.msgpack.Decoder(Headers)


class SqlDeadLetters:
    """`DeadLetters` over any database."""

    def __init__(self, database: ReadDatabase) -> None:
        self._database = database

    def elect(self) -> bool:
        """Return whether this process is the one that delivers; others get False until it closes or dies."""
        return self._database.elect("dead letters")

    def to_deliver(self, limit: int) -> list[DeadLetter]:
        """Return up to `limit` letters that were not delivered, oldest first."""
        return [_letter(row) for row in self._database.fetch(TO_DELIVER, (limit,))]

    def letters(
        self,
        *,
        after: int = 0,
        limit: int,
        topic: str | None = None,
        numbers: Sequence[int] | None = None,
        only_unreplayed: bool = False,
    ) -> list[DeadLetter]:
        """Return up to `limit` letters whose number is above `after`, by number."""
        sql, parameters = letters_query(after=after, topic=topic, only_unreplayed=only_unreplayed)
        order = " ORDER BY dead_letters.id LIMIT ?"
        if numbers is None:
            rows = self._database.fetch(sql + order, (*parameters, limit))
        else:
            keys = np.unique(np.array(numbers, dtype=np.int64))
            rows = self._database.fetch_in(f"{sql} AND dead_letters.id {{keys}}", parameters, keys)
        return [_letter(row) for row in sorted(rows, key=lambda row: int(row[0]))[:limit]]

    def close(self) -> None:
        """Release the connection."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def letters_query(*, after: int, topic: str | None, only_unreplayed: bool) -> tuple[str, list[object]]:
    """Return the query of letters by number, without its order and limit, and its parameters."""
    conditions = ["dead_letters.id > ?"]
    parameters: list[object] = [after]
    if only_unreplayed:
        conditions.append("replayed_us IS NULL")
    if topic is not None:
        conditions.append("topic = ?")
        parameters.append(topic)
    return f"{_FROM} WHERE {' AND '.join(conditions)}", parameters


def _letter(row: Row) -> DeadLetter:
    number, source, value, key, headers, topic, partition, offset, ts_us, *rest = row
    record = Record(value, key, _DECODER.decode(headers), topic, partition, offset, ts_us)
    return DeadLetter(number, source, record, *rest)
