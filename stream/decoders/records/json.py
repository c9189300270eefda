"""JSON records: an object, an array, or one object a line, with our own names of fields or aliases of them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from stream.decoders.base import REQUIRED_ROLES
from stream.decoders.records.base import BadEvent, Read, Record, Rows, no_place, payloads
from stream.decoders.records.objects import Layout, Places, shaped_objects
from stream.decoders.records.shapes import ObjectShape
from stream.decoders.template import TemplateReader

_BLOCK_BYTES = 1 << 20


class JsonReader:
    """Reads JSON records.

    Args:
        layout: `document` for the format `json`, `lines` for `ndjson`, `either` where the payload tells.
        columns: role to key where the caller says so; other roles are found by `decoders.base.ALIASES`.
    """

    def __init__(self, layout: Layout, *, columns: Mapping[str, str]) -> None:
        self._layout: Layout = layout
        self._shape = ObjectShape(columns)
        self._alike = TemplateReader(columns)

    def read(self, records: Sequence[Record]) -> Read:
        """Read records; those that are not written alike cost their own block the speed, and no other."""
        texts = payloads(records)
        read = Read()
        for begin, end in _blocks(texts):
            rows = self._alike_rows(texts[begin:end], begin)
            if rows is not None:
                read.rows.append(rows)
                continue
            objects = shaped_objects(texts[begin:end], self._layout, self._shape)
            record = np.array(objects.record, dtype=np.int64) + begin
            read.rows.append(Rows(self._shape.columns(objects.values), record, objects.place))
            read.bad += [BadEvent(begin + at, reason, stage) for at, reason, stage in objects.bad]
            read.skipped += objects.skipped
        return read

    def read_alike(self, records: Sequence[Record], *, but: str = "") -> Read | None:
        """Read records whose objects are all written alike; None if they are not, or have the key `but`.

        The result is that of `read`, several times as fast.
        """
        texts = payloads(records)
        blocks: list[Rows] = []
        for begin, end in _blocks(texts):
            rows = self._alike_rows(texts[begin:end], begin)
            if rows is None or but in self._alike.keys:
                return None
            blocks.append(rows)
        return Read(rows=blocks)

    def _alike_rows(self, texts: Sequence[bytes], first: int) -> Rows | None:
        """Return the rows of a block that begins with record `first`; None if its objects are not written alike."""
        found = self._alike.read(texts)
        if found is None:
            return None
        values, record = found
        plain = len(record) == len(texts)
        if self._layout == "document" and not plain:
            return None
        columns: dict[str, Any] = {role: [None] * len(record) for role in REQUIRED_ROLES if role not in values}
        place = no_place if plain else Places(texts, "lines", record)
        return Rows(columns=columns | values, record=record + first, place=place)


def _blocks(texts: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Cut texts into ranges of about `_BLOCK_BYTES`: what is made of them stays in the processor's caches."""
    ends = np.cumsum(np.fromiter(map(len, texts), dtype=np.int64, count=len(texts)))
    begin = 0
    while begin < len(texts):
        done = int(ends[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, done + _BLOCK_BYTES, side="right")))
        yield begin, end
        begin = end
