"""JSON records: an object, an array, or one object a line, with our own names of fields or aliases of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stream.decoders.base import REQUIRED_ROLES
from stream.decoders.records.base import Read, Record, Rows, no_place, payloads
from stream.decoders.records.objects import Layout, Places, shaped_objects
from stream.decoders.records.shapes import ObjectShape
from stream.decoders.template import TemplateReader


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
        found = self._alike.read(texts)
        if found is None or but in self._alike.keys:
            return None
        values, record = found
        if self._layout == "document" and len(record) != len(texts):
            return None
        columns: dict[str, Any] = {role: [None] * len(record) for role in REQUIRED_ROLES if role not in values}
        place = no_place if len(record) == len(texts) else Places(texts, "lines", record)
        return Read(rows=[Rows(columns=columns | values, record=record, place=place)])
