"""JSON records: an object, an array, or one object a line, with our own names of fields or aliases of them."""

from collections.abc import Mapping, Sequence

import numpy as np

from stream.decoders.records.base import Read, Record, Rows
from stream.decoders.records.objects import Layout, shaped_objects
from stream.decoders.records.shapes import ObjectShape


class JsonReader:
    """Reads JSON records.

    Args:
        layout: `document` for the format `json`, `lines` for `ndjson`, `either` where the payload tells.
        columns: role to key where the caller says so; other roles are found by `decoders.base.ALIASES`.
    """

    def __init__(self, layout: Layout, *, columns: Mapping[str, str]) -> None:
        self._layout: Layout = layout
        self._shape = ObjectShape(columns)

    def read(self, records: Sequence[Record]) -> Read:
        """Read records into one block of rows."""
        objects = shaped_objects(records, self._layout, self._shape)
        rows = Rows(
            columns=self._shape.columns(objects.values),
            record=np.array(objects.record, dtype=np.int64),
            place=objects.place,
        )
        return Read(rows=[rows], bad=objects.bad, skipped=objects.skipped)
