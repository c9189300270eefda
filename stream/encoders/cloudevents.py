"""CloudEvents 1.0 with JSON data: attributes in headers (binary mode of the Kafka binding), or all in one object.

The reader names an event by its source and its id together, so the id that comes back begins with the source.
"""

import hashlib
from collections.abc import Sequence

import msgspec

from infra.steps import format_time
from stream.encoders.base import JSON_TYPE, Encoded
from stream.events import Event, EventRules

SOURCE = "/graphtide"
# The attribute must not be empty; the data says that the event has no type.
NO_TYPE = "interaction"

_MAX_ID_CHARS = EventRules().max_name_chars - len(SOURCE) - 1
_ENCODER = msgspec.json.Encoder()


class _Data(msgspec.Struct, gc=False):
    """What stands in the data; the type always does, for that of the attributes may be a stand-in.

    The graph does unless the event names none.
    """

    src: str
    dst: str
    graph: str | msgspec.UnsetType
    type: str
    weight: float


class _Envelope(msgspec.Struct, gc=False):
    id: str
    type: str
    time: str
    data: _Data
    specversion: str = "1.0"
    source: str = SOURCE
    datacontenttype: str = JSON_TYPE.decode()


class BinaryEncoder:
    """One event a record, its attributes in the headers."""

    holds_many = False

    def encode(self, events: Sequence[Event]) -> Encoded:
        """Return a record of one event that has an id; see `Encoder`.

        Raises:
            ValueError: there are several events, or the event has no id.
        """
        if len(events) != 1:
            raise ValueError("a CloudEvent in binary mode holds one event")
        event = events[0]
        headers = (
            ("ce_specversion", b"1.0"),
            ("ce_id", cloud_id(event).encode()),
            ("ce_source", SOURCE.encode()),
            ("ce_type", (event.type or NO_TYPE).encode()),
            ("ce_time", format_time(event.ts_us).encode()),
            ("content-type", JSON_TYPE),
        )
        return Encoded(_ENCODER.encode(_data(event)), headers)


class StructuredEncoder:
    """One event as an object, several as a batch."""

    holds_many = True

    def encode(self, events: Sequence[Event]) -> Encoded:
        """Return a record of events that have ids; see `Encoder`.

        Raises:
            ValueError: an event has no id.
        """
        envelopes = [
            _Envelope(cloud_id(event), event.type or NO_TYPE, format_time(event.ts_us), _data(event))
            for event in events
        ]
        if len(envelopes) == 1:
            content_type = b"application/cloudevents+json"
            return Encoded(_ENCODER.encode(envelopes[0]), (("content-type", content_type),))
        return Encoded(_ENCODER.encode(envelopes), (("content-type", b"application/cloudevents-batch+json"),))


def cloud_id(event: Event) -> str:
    """Return the attribute `id` of an event; one that would be too long together with the source is a digest."""
    if event.id is None:
        raise ValueError("a CloudEvent needs an id")
    if len(event.id) <= _MAX_ID_CHARS:
        return event.id
    return hashlib.sha256(event.id.encode()).hexdigest()


def _data(event: Event) -> _Data:
    return _Data(event.src, event.dst, event.graph or msgspec.UNSET, event.type, event.weight)
