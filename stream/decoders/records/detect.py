"""The format `auto`: what each record is, told from its headers and its first bytes."""

from collections.abc import Mapping, Sequence

import numpy as np

from stream.decoders.records.arrow import FILE_MAGIC, STREAM_MARK
from stream.decoders.records.base import (
    HEADER_STAGE,
    BadEvent,
    Read,
    Record,
    RecordReader,
    any_headers,
    header,
    values_of,
)
from stream.decoders.records.cloudevents import NDJSON_TYPES, STRUCTURED, is_binary, is_structured
from stream.decoders.records.confluent import MAGIC
from stream.decoders.records.json import JsonReader
from stream.events import shown

# Media types by the format of their payload; others, such as octet streams, say nothing.
FORMAT_OF_TYPE = {
    "application/json": "json",
    **dict.fromkeys(NDJSON_TYPES, "ndjson"),
    "application/vnd.apache.arrow.stream": "arrow",
    "application/vnd.apache.arrow.file": "arrow",
    "application/activity+json": "activitystreams",
    "application/ld+json": "activitystreams",
}
_REFUSED_TYPES = {
    "application/protobuf": "Protobuf",
    "application/x-protobuf": "Protobuf",
    "text/csv": "CSV",
    "application/xml": "XML",
    "text/xml": "XML",
}


def _is_plain(value: bytes | None) -> bool:
    return value is not None and value[:1] == b"{" and b'"specversion"' not in value


def media_type(content_type: str) -> str:
    """Return a content type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def format_of(record: Record) -> str:
    """Return the format of a record, or why it has none, behind a colon."""
    if record.headers:
        type_ = media_type((header(record, "content-type") or b"").decode("utf-8", "replace"))
        if type_.startswith(STRUCTURED) or is_binary(record):
            return "cloudevents"
        if type_ in _REFUSED_TYPES:
            return f":{_REFUSED_TYPES[type_]} is not read ({shown(type_)}): send JSON, NDJSON, Arrow or Avro"
        if type_ in FORMAT_OF_TYPE and not (record.value or b"").startswith(MAGIC):
            # Framing comes before the content type: serializers of schema registries set both.
            return FORMAT_OF_TYPE[type_] if type_ != "application/json" else "either"
    value = record.value or b""
    if value.startswith(MAGIC):
        return "confluent"
    if value.startswith((FILE_MAGIC, STREAM_MARK)):
        return "arrow"
    return "cloudevents" if is_structured(value) else "either"


class AutoReader:
    """Reads each record by the reader of its format.

    Args:
        readers: format to its reader.
        either: reads JSON that is a document or lines.
    """

    def __init__(self, readers: Mapping[str, RecordReader], either: JsonReader) -> None:
        self._readers = {**readers, "either": either}
        self._either = either

    def read(self, records: Sequence[Record]) -> Read:
        """Read records; those of one format together."""
        if not any_headers(records):
            alike = self._either.read_alike(records, but="specversion")
            if alike is not None:
                return alike
            if all(map(_is_plain, values_of(records))):
                return self._either.read(records)
        groups: dict[str, list[int]] = {}
        for at, record in enumerate(records):
            groups.setdefault(format_of(record), []).append(at)
        read = Read()
        for name, members in groups.items():
            if name.startswith(":"):
                read.bad += [BadEvent(at, name[1:], HEADER_STAGE) for at in members]
                continue
            part = self._readers[name].read([records[at] for at in members])
            at_of = np.array(members, dtype=np.int64)
            for rows in part.rows:
                rows.record = at_of[rows.record]
            read.rows += part.rows
            read.bad += [BadEvent(members[at], reason, stage) for at, reason, stage in part.bad]
            read.skipped += part.skipped
        return read
