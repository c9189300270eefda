"""Arrow IPC streams: the columns of events, with times that carry their unit."""

from collections.abc import Sequence

import pyarrow as pa

from stream.encoders.base import Encoded
from stream.events import Event

_SCHEMA = pa.schema(
    [
        ("src", pa.string()),
        ("dst", pa.string()),
        ("ts", pa.timestamp("us", "UTC")),
        ("graph", pa.string()),
        ("type", pa.string()),
        ("weight", pa.float64()),
        ("id", pa.string()),
    ]
)


class ArrowEncoder:
    """A stream of one batch."""

    holds_many = True

    def encode(self, events: Sequence[Event]) -> Encoded:
        """Return a record of events; see `Encoder`."""
        columns = [
            [event.src for event in events],
            [event.dst for event in events],
            pa.array([event.ts_us for event in events], pa.int64()).cast(pa.timestamp("us", "UTC")),
            [event.graph or None for event in events],
            [event.type for event in events],
            [event.weight for event in events],
            [event.id for event in events],
        ]
        batch = pa.record_batch(columns, schema=_SCHEMA)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, _SCHEMA) as writer:
            writer.write_batch(batch)
        return Encoded(sink.getvalue().to_pybytes())
