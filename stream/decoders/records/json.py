"""JSON records: an object, an array, or one object a line, with our own names of fields or aliases of them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from stream.decoders.base import REQUIRED_ROLES
from stream.decoders.records.base import Read, Record, Rows, no_place, payloads
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
        """Read records into one block of rows."""
        alike = self.read_alike(records)
        if alike is not None:
            return alike
        objects = shaped_objects(records, self._layout, self._shape)
        rows = Rows(
            columns=self._shape.columns(objects.values),
            record=np.array(objects.record, dtype=np.int64),
            place=objects.place,
        )
        return Read(rows=[rows], bad=objects.bad, skipped=objects.skipped)

    def read_alike(self, records: Sequence[Record], *, but: str = "") -> Read | None:
        """Read records whose objects are all written alike; None if they are not, or have the key `but`.

        The result is that of `read`, several times as fast.
        """
        texts = payloads(records)
        blocks: list[Rows] = []
        for begin, end in _blocks(texts):
            found = self._alike.read(texts[begin:end])
            if found is None or but in self._alike.keys:
                return None
            values, record = found
            plain = len(record) == end - begin
            if self._layout == "document" and not plain:
                return None
            columns: dict[str, Any] = {role: [None] * len(record) for role in REQUIRED_ROLES if role not in values}
            place = no_place if plain else Places(texts[begin:end], "lines", record)
            blocks.append(Rows(columns=columns | values, record=record + begin, place=place))
        return Read(rows=blocks)


def _blocks(texts: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Cut texts into ranges of about `_BLOCK_BYTES`: what is made of them stays in the processor's caches."""
    ends = np.cumsum(np.fromiter(map(len, texts), dtype=np.int64, count=len(texts)))
    begin = 0
    while begin < len(texts):
        done = int(ends[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, done + _BLOCK_BYTES, side="right")))
        yield begin, end
        begin = end
