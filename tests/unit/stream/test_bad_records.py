"""Malformed records of every format come out as bad ones with reason and stage, and cost their neighbours nothing."""

import json
from typing import Any

import pyarrow as pa
import pytest

from stream.decoders.builder import DecodeOptions, EventBuilder
from stream.decoders.log import LogReader
from stream.decoders.records.base import EVENT_STAGE, HEADER_STAGE, VALUE_STAGE, Record
from stream.decoders.records.formats import RECORD_FORMATS
from stream.events import Interner
from tests.fuzz.invariants import decoder
from tests.fuzz.samples import EVENT, OWN_FORMATS, arrow, as_json, framed, samples

CLOUD = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "time": "2026-01-01T00:00:00Z"}
COMMIT = {"operation": "create", "collection": "app.bsky.feed.like", "rkey": "1"}
STATUS = {"id": "1", "created_at": "2026-01-01T00:00:00Z", "account": {"acct": "ada"}}


def ce(**attributes: str) -> tuple[tuple[str, bytes], ...]:
    return tuple((f"ce_{name}", value.encode()) for name, value in attributes.items())


def jet(**changes: Any) -> Record:
    return as_json({"did": "d", "time_us": 1_767_225_600_000_000, "kind": "commit", "commit": COMMIT, **changes})


def cut_off(record: Record) -> Record:
    assert record.value is not None
    return Record(record.value[:-40])


BAD: list[tuple[str, Record, str, str]] = [
    ("json", Record(b""), "empty", VALUE_STAGE),
    ("json", Record(b"{"), "JSON", VALUE_STAGE),
    ("json", Record(b"\xff\xfe"), "JSON", VALUE_STAGE),
    ("json", Record(b'{"src":"a","dst":"b","ts":1E' + b"2" * 90 + b"}"), "exponent", VALUE_STAGE),
    ("json", Record(b"2E" + b"2" * 90), "exponent", VALUE_STAGE),
    ("json", Record(b"7"), "no object", VALUE_STAGE),
    ("json", as_json({**EVENT, "dst": None}), "dst is missing", EVENT_STAGE),
    ("json", as_json({**EVENT, "ts": "x"}), "neither a number nor ISO 8601", EVENT_STAGE),
    ("json", as_json({**EVENT, "weight": "x"}), "weight 'x' is no number", EVENT_STAGE),
    ("json", as_json({**EVENT, "graph": "A B"}), "no graph name", EVENT_STAGE),
    ("json", as_json({**EVENT, "id": "i" * 513}), "more than 512", EVENT_STAGE),
    ("json", as_json({**EVENT, "src": "a\x00"}), "control character", EVENT_STAGE),
    ("json", as_json([EVENT, {"src": "a"}]), "dst is missing", EVENT_STAGE),
    ("ndjson", Record(json.dumps(EVENT).encode() + b"\nno\n"), "line 2: ", VALUE_STAGE),
    ("ndjson", Record(json.dumps(EVENT).encode() + b'\n{"w":1E' + b"2" * 90 + b"}\n"), "line 2: ", VALUE_STAGE),
    ("ndjson", Record(b'{"src":"a","dst":"b"}\n'), "ts is missing", EVENT_STAGE),
    ("arrow", Record(b"\xff\xff\xff\xff\x00"), "no valid Arrow IPC", VALUE_STAGE),
    ("arrow", cut_off(samples("arrow")[0]), "no valid Arrow IPC", VALUE_STAGE),
    ("arrow", arrow(pa.table({"src": ["a"], "ts": [1]})), "dst is missing", EVENT_STAGE),
    ("arrow", arrow(pa.table({"src": [[1]], "dst": ["b"], "ts": [1]})), "cannot be src", VALUE_STAGE),
    ("cloudevents", as_json(EVENT), "specversion is missing", VALUE_STAGE),
    ("cloudevents", as_json(EVENT, headers=ce(specversion="1.0", id="1")), "source is missing", HEADER_STAGE),
    ("cloudevents", as_json({**CLOUD, "specversion": "0.3", "data": EVENT}), "not read, only 1.0", VALUE_STAGE),
    ("cloudevents", as_json({**CLOUD, "data_base64": "?"}), "no base64", VALUE_STAGE),
    ("cloudevents", as_json(CLOUD), "data is missing", VALUE_STAGE),
    ("cloudevents", as_json({**CLOUD, "datacontenttype": "text/csv", "data": "a"}), "is not read", HEADER_STAGE),
    ("cloudevents", as_json({**CLOUD, "time": None, "data": {"src": "a", "dst": "b"}}), "ts is missing", EVENT_STAGE),
    ("confluent", as_json(EVENT), "does not begin with a zero byte", VALUE_STAGE),
    ("confluent", Record(b"\0\0"), "too few", VALUE_STAGE),
    ("confluent", framed(9, b"{}"), "knows no schema 9", VALUE_STAGE),
    ("confluent", framed(3, b"\x08"), "Protobuf", VALUE_STAGE),
    ("confluent", framed(2, b"{"), "JSON", VALUE_STAGE),
    ("activitystreams", Record(b"["), "JSON", VALUE_STAGE),
    ("activitystreams", as_json({"actor": "https://a"}), "type is missing", EVENT_STAGE),
    ("activitystreams", as_json({"type": "Like", "object": "https://b/1"}), "actor", EVENT_STAGE),
    ("jetstream", Record(b"{]"), "JSON", VALUE_STAGE),
    ("jetstream", as_json({"did": "d"}), "kind is missing", EVENT_STAGE),
    ("jetstream", jet(commit=None), "commit is missing", EVENT_STAGE),
    ("jetstream", jet(), "commit.record is missing", EVENT_STAGE),
    ("jetstream", jet(commit={**COMMIT, "record": {"subject": "at://"}}), "names no account", EVENT_STAGE),
    ("jetstream", jet(commit={**COMMIT, "record": {}}), "dst is missing", EVENT_STAGE),
    ("mastodon", Record(b"no", headers=(("event", b"update"),)), "JSON", VALUE_STAGE),
    ("mastodon", Record(b"no"), "JSON", VALUE_STAGE),
    ("mastodon", as_json({"id": "1"}), "account is missing", EVENT_STAGE),
    ("mastodon", as_json({"event": "update", "payload": "{"}), "payload: ", EVENT_STAGE),
    ("mastodon", as_json({"event": "update", "payload": 1}), "no text of JSON", EVENT_STAGE),
    ("mastodon", as_json({**STATUS, "mentions": 7}), "is no list", EVENT_STAGE),
    ("mastodon", as_json({**STATUS, "mentions": [{}]}), "mentions[0].acct is missing", EVENT_STAGE),
    ("wikimedia", Record(b"data"), "JSON", VALUE_STAGE),
    ("wikimedia", as_json({"user": "a"}), "meta is missing", EVENT_STAGE),
    ("wikimedia", as_json({"meta": {"dt": "2026-01-01T00:00:00Z"}, "user": "a"}), "dst is missing", EVENT_STAGE),
    ("gharchive", Record(b"{"), "JSON", VALUE_STAGE),
    ("gharchive", as_json({"type": "WatchEvent", "actor": {"login": "a"}}), "missing", EVENT_STAGE),
    ("orders", Record(b"x"), "JSON", VALUE_STAGE),
    (
        "orders",
        as_json({"n": 1, "payload": {"kind": "order", "user": {"id": 7}, "items": [{"sku": "s"}]}}),
        "missing",
        EVENT_STAGE,
    ),
    ("auto", Record(b"<xml/>"), "JSON", VALUE_STAGE),
    ("auto", Record(b"a,b,1", headers=(("content-type", b"text/csv"),)), "CSV is not read", HEADER_STAGE),
]


@pytest.mark.parametrize(
    ("name", "record", "reason", "stage"), BAD, ids=[f"{at}-{name}" for at, (name, *_) in enumerate(BAD)]
)
def test_bad_records_have_a_reason_and_a_stage_and_their_neighbours_count(
    name: str, record: Record, reason: str, stage: str
) -> None:
    good, alone = next(
        (sample, decoded)
        for sample in samples(name)
        if len((decoded := decoder(name).decode([sample])).events) and not decoded.bad
    )
    decoded = decoder(name).decode([good, record, good])
    assert [bad.record for bad in decoded.bad] == [1]
    assert reason in decoded.bad[0].reason
    assert decoded.bad[0].stage == stage
    of_good = [event for event, at in zip(decoded.events, decoded.record.tolist(), strict=True) if at != 1]
    assert of_good == 2 * list(alone.events)


def test_every_format_has_bad_records_here() -> None:
    assert {name for name, *_ in BAD} == {*RECORD_FORMATS, *OWN_FORMATS}


def test_what_a_stream_of_mastodon_tells_beside_statuses_is_skipped_whatever_it_holds() -> None:
    update, delete = ((("event", name),) for name in (b"update", b"delete"))
    status = {**STATUS, "reblog": {"account": {"acct": "bob"}}}
    records = [
        Record(b"110", headers=delete),
        as_json(status, headers=update),
        Record(b"x", headers=update),
        Record(b"y", headers=delete),
    ]
    decoded = decoder("mastodon").decode(records)
    assert decoded.record.tolist() == [1]
    assert [bad.record for bad in decoded.bad] == [2]
    assert decoded.skipped == 2


def test_a_file_with_an_exponent_of_too_many_digits_is_read_past_it() -> None:
    lines = b'{"src":"a","dst":"b","ts":1}\n{"src":"a","dst":"b","ts":1,"w":1E' + b"2" * 90 + b"}\n"
    for name in ("ndjson", "json", "auto"):
        reader = LogReader("log", EventBuilder(Interner(), DecodeOptions(format=name)))
        batches = reader.feed(lines) + reader.finish()
        assert sum(map(len, batches)) == 1
        assert reader.rejects.count == 1
