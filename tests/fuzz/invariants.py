"""What must hold for any bytes, of every decoder."""

from typing import Any

from infra.errors import GraphtideError
from stream.decoders.builder import DecodeOptions, EventBuilder
from stream.decoders.log import LogReader
from stream.decoders.records.base import EVENT_STAGE, HEADER_STAGE, VALUE_STAGE, Record, RecordDecoder
from stream.decoders.records.formats import RECORD_FORMATS, record_decoder
from stream.events import Event, EventRules, Interner
from tests.fuzz.samples import OWN_FORMATS, Registry

FORMATS = (*RECORD_FORMATS, "avro", *OWN_FORMATS)
FILE_FORMATS = ("auto", "ndjson", "json", "csv", "tsv", "edgelist")
STAGES = {VALUE_STAGE, HEADER_STAGE, EVENT_STAGE}
HEADERS: tuple[tuple[tuple[str, bytes], ...], ...] = (
    (),
    (("content-type", b"application/cloudevents+json"),),
    (("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"/s"), ("ce_type", b"t")),
    (("ce_specversion", b"1.0"), ("ce_id", b"\xff"), ("ce_source", b"/s"), ("ce_type", b""), ("ce_time", b"now")),
    (("content-type", b"application/x-ndjson"),),
    (("content-type", b"application/vnd.apache.arrow.stream"), ("event", b"delete")),
)


def decoder(name: str) -> RecordDecoder:
    """Return a fresh decoder of a format."""
    options = DecodeOptions(format="confluent" if name == "avro" else name)
    return record_decoder(options, interner=Interner(), own_formats=OWN_FORMATS, registry=Registry())


def outcome(records: list[Record], by: RecordDecoder) -> list[tuple[list[Event], list[tuple[str, str]]]]:
    """Decode records; return for each its events and why others are bad, after checking what must hold."""
    decoded = by.decode(records)
    found: list[tuple[list[Event], list[tuple[str, str]]]] = [([], []) for _ in records]
    assert len(decoded.record) == len(decoded.events)
    owners = decoded.record.tolist()
    assert owners == sorted(owners)
    for event, owner in zip(decoded.events, owners, strict=True):
        assert EventRules().event(event) == event
        found[owner][0].append(event)
    assert [bad.record for bad in decoded.bad] == sorted(bad.record for bad in decoded.bad)
    for bad in decoded.bad:
        assert bad.stage in STAGES
        assert bad.reason
        assert "\n" not in bad.reason
        bad.reason.encode()
        found[bad.record][1].append((bad.reason, bad.stage))
    assert decoded.skipped == sum(not events and not reasons for events, reasons in found)
    return found


def check_records(records: list[Record], name: str, used: RecordDecoder) -> None:
    """Assert that a record's events depend on the record alone, whatever stands beside it and `used` saw before."""
    together = outcome(records, used)
    alone = [outcome([record], decoder(name))[0] for record in records]
    assert together == alone


def records_of(data: bytes) -> list[Record]:
    """Return records made of fuzzed bytes: the first byte says with which headers, and whether to cut into several."""
    if not data:
        return [Record(b"")]
    headers = HEADERS[data[0] % len(HEADERS)]
    parts: list[Any] = data[1:].split(b"\x1e") if data[0] & 0x80 else [data[1:]]
    return [Record(part, headers=headers, ts_us=1) for part in parts[:4]]


def as_bytes(record: Record) -> bytes:
    """Return a sample as bytes from which `records_of` makes it again."""
    at = next((at for at, headers in enumerate(HEADERS) if dict(headers).keys() == dict(record.headers).keys()), 0)
    return bytes([at]) + (record.value or b"")


def check_file(data: bytes, name: str) -> None:
    """Assert that the bytes of a file end in valid events or in an error for the user."""
    reader = LogReader("log", EventBuilder(Interner(), DecodeOptions(format=name)))
    try:
        batches = reader.feed(data) + reader.finish()
    except GraphtideError as error:
        assert error.message
        return
    for batch in batches:
        for event in batch:
            assert EventRules().event(event) == event
