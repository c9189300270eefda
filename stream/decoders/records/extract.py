"""Objects that are events only after some thought: one function an object, for the formats that are not our own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from stream.decoders.base import REQUIRED_ROLES
from stream.decoders.records.base import EVENT_STAGE, BadEvent, Read, Record, Rows
from stream.decoders.records.objects import Objects
from stream.decoders.times import TimeReader
from stream.events import InvalidEventError


class Row(NamedTuple):
    """One event as raw values, None for nothing."""

    src: Any
    dst: Any
    ts: Any
    type: Any = None
    graph: Any = None
    weight: Any = None
    id: Any = None


ROLES = Row._fields


class Extract(Protocol):
    """The interactions of an object."""

    @property
    def looked_for(self) -> Mapping[str, str]:
        """Where `src`, `dst` and `ts` are looked for, as reasons name it."""
        ...

    def rows(self, fields: dict[str, Any], record: Record) -> list[Row]:
        """Return its events; none if it is no interaction by design.

        Raises:
            InvalidEventError: it is broken.
        """
        ...


class ExtractReader:
    """Reads records whose objects `extract` understands.

    Args:
        codec: payloads to objects.
        extract: objects to events.
        times: reads their times; None for what the options say.
    """

    def __init__(
        self, codec: Callable[[Sequence[Record]], Objects], extract: Extract, *, times: TimeReader | None = None
    ) -> None:
        self._codec = codec
        self._extract = extract
        self._times = times

    def read(self, records: Sequence[Record]) -> Read:
        """Read records into one block of rows."""
        objects = self._codec(records)
        bad = objects.bad
        found: list[Row] = []
        owner: list[int] = []
        place: list[tuple[int, str]] = []
        full = {each.record for each in bad}
        for at, (fields, record) in enumerate(zip(objects.values, objects.record, strict=True)):
            try:
                rows = self._extract.rows(fields, records[record])
            except InvalidEventError as error:
                bad.append(BadEvent(record, f"{objects.place(at)}{error}", EVENT_STAGE))
                full.add(record)
                continue
            for number, row in enumerate(rows, start=1):
                within = f"event {number}: " if len(rows) > 1 else ""
                full.add(record)
                missing = next((role for role in REQUIRED_ROLES if getattr(row, role) is None), None)
                if missing is not None:
                    reason = f"{missing} is missing (looked for {self._extract.looked_for[missing]})"
                    bad.append(BadEvent(record, f"{objects.place(at)}{within}{reason}", EVENT_STAGE))
                    continue
                found.append(row)
                owner.append(record)
                place.append((at, within))
        columns: dict[str, Any] = {role: [row[at] for row in found] for at, role in enumerate(ROLES)}
        for role in ROLES:
            if role not in REQUIRED_ROLES and not any(value is not None for value in columns[role]):
                del columns[role]

        def placed(row: int) -> str:
            at, within = place[row]
            return objects.place(at) + within

        rows_ = Rows(columns, np.array(owner, dtype=np.int64), placed, self._times)
        # A record without any object has been counted by the codec.
        empty = set(objects.record) - full
        return Read([rows_], bad, objects.skipped + len(empty))


def text_at(fields: Any, *keys: str) -> str | None:
    """Return the text at a path of keys; None where it leads to none."""
    for key in keys:
        if not isinstance(fields, dict):
            return None
        fields = fields.get(key)
    return fields if isinstance(fields, str) and fields else None
