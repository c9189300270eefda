"""CloudEvents 1.0: the event in the data, its identity and time in the attributes around it.

Source of the format: https://github.com/cloudevents/spec, with its Kafka binding (binary mode: attributes in headers
`ce_…`, the data as payload) and its JSON format (structured mode: all in one object; batched: an array of these). The
id of an event is its source and its id: these two name it everywhere.
"""

import binascii
import re
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from stream.decoders.records.base import (
    HEADER_STAGE,
    VALUE_STAGE,
    BadEvent,
    Read,
    Record,
    RecordReader,
    Rows,
    header,
)
from stream.decoders.records.objects import parse
from stream.events import IntArray, shown

STRUCTURED = "application/cloudevents"
PREFIX = "ce_"
NDJSON_TYPES = ("application/x-ndjson", "application/ndjson", "application/jsonl")
# The numbers of a place, such as `item 3: event 1: `.
_NUMBER = re.compile(r"(\d+): ")
_REQUIRED = ("specversion", "id", "source", "type")


class _Envelope(msgspec.Struct):
    """A structured event; its data stays as it is written, for the reader of the data."""

    specversion: Any = None
    id: Any = None
    source: Any = None
    type: Any = None
    time: Any = None
    datacontenttype: Any = None
    data: msgspec.Raw = msgspec.Raw()
    data_base64: Any = None


_ENVELOPE = msgspec.json.Decoder(_Envelope)
_ENVELOPES = msgspec.json.Decoder(list[msgspec.Raw])


@dataclass(frozen=True, slots=True)
class CloudEvent:
    """One CloudEvent; `place` is where it stands in its record, `data` its event or events."""

    record: int
    place: str
    attributes: Mapping[str, Any]
    data: bytes
    content_type: str


class CloudEventsReader:
    """Reads CloudEvents.

    Args:
        readers: content type of the data to the reader of such data, None if there is none; "" is JSON.
    """

    def __init__(self, readers: Callable[[str], RecordReader | None]) -> None:
        self._readers = readers

    def read(self, records: Sequence[Record]) -> Read:
        """Read records; those with data of one reader become one block of rows."""
        read = Read()
        by_reader: dict[int, tuple[RecordReader, list[CloudEvent]]] = {}
        for at, record in enumerate(records):
            for event in _events(at, record, read):
                reader = self._readers(event.content_type)
                if reader is None:
                    reason = f"data of type {shown(event.content_type)} is not read: send JSON, NDJSON or Arrow"
                    read.bad.append(BadEvent(at, event.place + reason, HEADER_STAGE))
                else:
                    by_reader.setdefault(id(reader), (reader, []))[1].append(event)
        full = {each.record for each in read.bad}
        for reader, events in by_reader.values():
            inner = reader.read([_inside(event, records[event.record]) for event in events])
            read.bad += [BadEvent(events[at].record, events[at].place + why, stage) for at, why, stage in inner.bad]
            read.rows += [_with_attributes(rows, events) for rows in inner.rows]
        full |= {each.record for each in read.bad}
        for rows in read.rows:
            full.update(rows.record.tolist())
        read.skipped += len(records) - len(full)
        return read


def is_binary(record: Record) -> bool:
    """Tell whether a record has attributes of a CloudEvent in its headers."""
    return any(name.lower().startswith(PREFIX) for name, _ in record.headers)


def is_structured(value: bytes) -> bool:
    """Tell whether a payload is a structured CloudEvent, or a batch that begins with one."""
    if b'"specversion"' not in value:
        return False
    try:
        if value.lstrip()[:1] == b"[":
            items = _ENVELOPES.decode(value)
            value = bytes(items[0]) if items else b""
        attributes = _ENVELOPE.decode(value)
    except (ValueError, RecursionError):
        return False
    return None not in (attributes.specversion, attributes.id, attributes.source)


def _inside(event: CloudEvent, record: Record) -> Record:
    """Return the data of a CloudEvent as a record of its own."""
    return Record(event.data, record.key, (), record.topic, record.partition, record.offset, record.ts_us)


def _events(at: int, record: Record, read: Read) -> list[CloudEvent]:
    """Return the CloudEvents of a record; what is none goes to the bad ones."""
    value = record.value or b""
    content_type = (header(record, "content-type") or b"").decode("utf-8", "replace").strip().lower()
    if content_type.startswith(STRUCTURED) or not is_binary(record):
        return _structured(at, value, read)
    attributes: dict[str, Any] = {}
    for name, data in record.headers:
        if name.lower().startswith(PREFIX):
            attributes[name.lower().removeprefix(PREFIX)] = data.decode("utf-8", "surrogateescape")
    reason = _wrong(attributes)
    if reason:
        read.bad.append(BadEvent(at, reason, HEADER_STAGE))
        return []
    return [CloudEvent(at, "", attributes, value, content_type)]


def _structured(at: int, value: bytes, read: Read) -> list[CloudEvent]:
    try:
        envelopes: list[Any] = list(_ENVELOPES.decode(value)) if value.lstrip()[:1] == b"[" else [value]
    except (ValueError, RecursionError):
        envelopes = [value]
    events = []
    for number, text in enumerate(envelopes, start=1):
        place = f"item {number}: " if len(envelopes) > 1 else ""
        try:
            events.append(_event(at, place, bytes(text)))
        except ValueError as error:
            read.bad.append(BadEvent(at, f"{place}{error}", VALUE_STAGE))
    return events


def _event(at: int, place: str, text: bytes) -> CloudEvent:
    try:
        envelope = _ENVELOPE.decode(text)
    except (ValueError, RecursionError):
        reasons = parse(text, "document").reasons
        raise ValueError(reasons[0] if reasons else "no CloudEvent") from None
    attributes = {name: getattr(envelope, name) for name in (*_REQUIRED, "time")}
    reason = _wrong(attributes)
    if reason:
        raise ValueError(reason)
    content_type = envelope.datacontenttype
    data = bytes(envelope.data)
    if envelope.data_base64 is not None:
        try:
            data = b64decode(envelope.data_base64, validate=True)
        except (binascii.Error, ValueError, TypeError):
            raise ValueError("data_base64 is no base64") from None
    elif data[:1] == b'"' and not _is_json(content_type if isinstance(content_type, str) else ""):
        data = msgspec.json.decode(data, type=str).encode()  # data that is no JSON stands in a text
    if not data or data == b"null":
        raise ValueError("data is missing")
    return CloudEvent(
        at, place, attributes, data, content_type.strip().lower() if isinstance(content_type, str) else ""
    )


def _wrong(attributes: Mapping[str, Any]) -> str:
    """Return what is wrong with the attributes, "" for nothing."""
    for name in _REQUIRED:
        value = attributes.get(name)
        if not isinstance(value, str) or not value:
            said = "is missing" if value in (None, "") else f"{shown(value)} is no text"
            return f"CloudEvent attribute {name} {said}"
    if not attributes["specversion"].startswith("1."):
        return f"CloudEvents specversion {shown(attributes['specversion'])} is not read, only 1.0"
    return ""


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return not kind or kind.endswith(("/json", "+json"))


def _with_attributes(rows: Rows, events: Sequence[CloudEvent]) -> Rows:
    """Return rows of data with what the attributes say: always the id, type and time where the data has none."""
    of = rows.record.tolist()
    columns = dict(rows.columns)
    columns["type"] = _filled(columns.get("type"), [events[at].attributes["type"] for at in of])
    columns["ts"] = _filled(columns["ts"], [events[at].attributes.get("time") for at in of])
    columns["id"] = _ids(rows, events)
    owner: IntArray = np.array([events[at].record for at in of], dtype=np.int64)
    return Rows(columns, owner, lambda row: events[of[row]].place + rows.place(row), rows.times)


def _filled(values: Any, others: list[Any]) -> Any:
    if isinstance(values, np.ndarray):
        return values
    if values is None:
        return others
    return [other if value is None else value for value, other in zip(values, others, strict=True)]


def _ids(rows: Rows, events: Sequence[CloudEvent]) -> list[str]:
    """Return source and id of each row's CloudEvent, parted by a space, which no URI has, and the number of the row.

    That is the number of its item or line in the data, whatever became of the others: data that was mended in places
    gives the rest the ids that it had. Data that is one object has none.
    """
    ids = []
    for row, at in enumerate(rows.record.tolist()):
        attributes = events[at].attributes
        number = ".".join(_NUMBER.findall(rows.place(row))) or ("1" if _is_lines(events[at]) else "")
        name = f"{attributes['source']} {attributes['id']}"
        ids.append(f"{name} {number}" if number else name)
    return ids


def _is_lines(event: CloudEvent) -> bool:
    """Tell whether data is lines, of which a single one has no place."""
    return event.content_type.partition(";")[0].strip() in NDJSON_TYPES
