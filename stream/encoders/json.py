"""JSON: one object, an array of them, or one a line.

Times are ISO 8601 text in UTC: a number would have to tell its unit, and one of microseconds soon after 1970 could not.
"""

from collections.abc import Sequence

import msgspec

from infra.steps import format_time
from stream.encoders.base import Encoded
from stream.events import Event

# Defaults are left out by their identity.
_ONE = 1.0


class JsonEvent(msgspec.Struct, omit_defaults=True, gc=False):
    """The fields of an event as JSON has them; those with their default value are left out."""

    src: str
    dst: str
    ts: str
    graph: str = ""
    type: str = ""
    weight: float = _ONE
    id: str | None = None


_ENCODER = msgspec.json.Encoder()


def json_event(event: Event) -> JsonEvent:
    """Return an event as JSON has it."""
    weight = _ONE if event.weight == _ONE else event.weight
    return JsonEvent(event.src, event.dst, format_time(event.ts_us), event.graph, event.type, weight, event.id)


class JsonEncoder:
    """One event as an object, several as an array."""

    holds_many = True

    def encode(self, events: Sequence[Event]) -> Encoded:
        """Return a record of events; see `Encoder`."""
        if len(events) == 1:
            return Encoded(_ENCODER.encode(json_event(events[0])))
        return Encoded(_ENCODER.encode(list(map(json_event, events))))


class NdjsonEncoder:
    """One object a line."""

    holds_many = True

    def encode(self, events: Sequence[Event]) -> Encoded:
        """Return a record of events; see `Encoder`."""
        return Encoded(_ENCODER.encode_lines(list(map(json_event, events))))
