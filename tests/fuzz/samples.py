"""A few good records of each format, from which mutation starts."""

import json
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pyarrow as pa

from infra.settings import FormatSettings
from stream.decoders.records.base import Record
from stream.decoders.records.registry import Schema, UnknownSchemaError

EVENT = {"src": "ada", "dst": "bob", "ts": 1_767_225_600, "type": "reply", "weight": 2.5, "id": "e1", "graph": "g"}
ISO = "2026-01-01T00:00:00.250Z"
AVRO_SCHEMA = {
    "type": "record",
    "name": "Event",
    "fields": [
        {"name": "src", "type": "string"},
        {"name": "dst", "type": ["null", "string"]},
        {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "weight", "type": "double", "default": 1.0},
        {"name": "type", "type": {"type": "enum", "name": "Kind", "symbols": ["like", "reply"]}},
        {"name": "tags", "type": {"type": "array", "items": "string"}, "default": []},
    ],
}
OWN_FORMATS = {
    "orders": FormatSettings(
        src="payload.user.id",
        dst=["payload.items[].sku", "payload.items[].name"],
        ts="created",
        type="=order",
        weight="payload.items[].count",
        id="{payload.user.id}/{n}",
        where={"payload.kind": ["order", 7, True]},
        unless={"payload.items[].gone": True},
        needs=["payload.user"],
        time_unit="ms",
    )
}


class Registry:
    """Schemas 1 (Avro), 2 (JSON) and 3 (Protobuf), without a network."""

    def __init__(self) -> None:
        self.asked = 0

    def schema(self, schema_id: int) -> Schema:
        self.asked += 1
        if schema_id not in (1, 2, 3):
            raise UnknownSchemaError(f"the registry knows no schema {schema_id}")
        return Schema(("AVRO", "JSON", "PROTOBUF")[schema_id - 1], json.dumps(AVRO_SCHEMA))


def as_json(value: Any, **fields: Any) -> Record:
    return Record(json.dumps(value).encode(), **fields)


def framed(schema_id: int, body: bytes) -> Record:
    return Record(b"\0" + schema_id.to_bytes(4, "big") + body)


def arrow(table: Any, *, file: bool = False) -> Record:
    sink = pa.BufferOutputStream()
    with (pa.ipc.new_file if file else pa.ipc.new_stream)(sink, table.schema) as writer:
        writer.write_table(table)
    return Record(sink.getvalue().to_pybytes())


def avro(value: dict[str, Any]) -> bytes:
    import fastavro  # noqa: PLC0415 - optional

    sink = BytesIO()
    fastavro.schemaless_writer(sink, fastavro.parse_schema(AVRO_SCHEMA), value)
    return sink.getvalue()


def _json_records() -> list[Record]:
    return [
        as_json(EVENT),
        as_json({"from": "a", "to": 7, "time": ISO, "text": "é"}),
        as_json([EVENT, EVENT]),
        as_json([]),
    ]


def _ndjson_records() -> list[Record]:
    line = json.dumps(EVENT).encode()
    return [Record(line), Record(b"\n".join([line, line, b'{"src":"x","dst":"y","ts":"' + ISO.encode() + b'"}', b""]))]


def _arrow_records() -> list[Record]:
    ts = pa.array([1, 2, 3], pa.timestamp("ms", "UTC"))
    table = pa.table({"src": ["a", "b", "c"], "dst": ["x", None, "z"], "ts": ts, "weight": [1.0, 2.0, 3.0]})
    coded = pa.table(
        {
            "src": pa.array(["a", "b", "a"]).dictionary_encode(),
            "dst": pa.array([1, 2, 3]),
            "ts": pa.array([1, 2, 3]),
            "type": pa.array(["x", None, "y"]),
        }
    )
    return [arrow(table), arrow(coded), arrow(table, file=True)]


def _cloudevents_records() -> list[Record]:
    attributes = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "order", "time": ISO}
    headers = tuple((f"ce_{name}", value.encode()) for name, value in attributes.items())
    batch = (("content-type", b"application/cloudevents-batch+json"),)
    return [
        as_json({"src": "a", "dst": "b"}, headers=(*headers, ("content-type", b"application/json"))),
        as_json({**attributes, "data": EVENT}),
        as_json([{**attributes, "data": [EVENT, EVENT]}, {**attributes, "data_base64": "e30="}], headers=batch),
    ]


def _confluent_records() -> list[Record]:
    return [framed(2, json.dumps(EVENT).encode()), framed(3, b"\x08"), framed(9, b"")]


def _avro_records() -> list[Record]:
    value = {"src": "a", "dst": "b", "ts": 1_767_225_600_000, "weight": 1.5, "type": "like", "tags": ["x", "y"]}
    return [framed(1, avro(value)), framed(1, avro({**value, "dst": None}))]


def _activity_records() -> list[Record]:
    user = "https://a.example/users/ada"
    note = {"id": f"{user}/notes/1", "inReplyTo": "https://b.example/users/bob/statuses/7"}
    create = {"type": "Create", "actor": user, "object": note, "published": ISO, "id": f"{user}/1"}
    like = {"type": "Like", "actor": {"id": user}, "object": "https://b.example/users/bob/statuses/7"}
    return [
        as_json(create),
        as_json(like, ts_us=1_767_225_600_000_000),
        as_json({"type": "OrderedCollection", "orderedItems": [create, like, "https://c.example/1"]}),
        as_json({"type": "Delete", "actor": user}),
    ]


def _jetstream_records() -> list[Record]:
    def commit(collection: str, record: dict[str, Any]) -> dict[str, Any]:
        inside = {
            "operation": "create",
            "collection": collection,
            "rkey": "3k",
            "record": record,
            "cid": "b",
            "rev": "3",
        }
        return {"did": "did:plc:ada", "time_us": 1_767_225_600_000_001, "kind": "commit", "commit": inside}

    uri = "at://did:plc:bob/app.bsky.feed.post/3j"
    return [
        as_json(commit("app.bsky.feed.like", {"subject": {"uri": uri, "cid": "c"}, "createdAt": ISO})),
        as_json(commit("app.bsky.graph.follow", {"subject": "did:plc:bob"})),
        as_json(commit("app.bsky.feed.post", {"text": "hi", "reply": {"root": {"uri": uri}, "parent": {"uri": uri}}})),
        as_json(commit("app.bsky.feed.post", {"text": "to nobody"})),
        as_json({"did": "did:plc:ada", "time_us": 1, "kind": "identity", "identity": {}}),
    ]


def _mastodon_records() -> list[Record]:
    status = {
        "id": "110",
        "created_at": ISO,
        "in_reply_to_account_id": "2",
        "account": {"id": "1", "acct": "ada"},
        "mentions": [{"id": "2", "acct": "bob@b.example"}, {"id": "3", "acct": "cleo"}],
        "reblog": None,
    }
    reblog = {**status, "reblog": {"id": "7", "account": {"acct": "bob@b.example"}}, "mentions": []}
    envelope = {"stream": ["public"], "event": "update", "payload": json.dumps(status)}
    deletion = Record(b"110", headers=(("event", b"delete"),))
    return [as_json(envelope), as_json(reblog), as_json({"event": "delete", "payload": "110"}), deletion]


def _wikimedia_records() -> list[Record]:
    change = {
        "meta": {"id": "u-1", "dt": "2026-01-01T00:00:00Z", "domain": "en.wikipedia.org"},
        **{"type": "edit", "namespace": 0, "title": "Ada Lovelace", "user": "Bob", "wiki": "enwiki", "bot": False},
    }
    talk = {**change, "namespace": 3, "title": "User talk:Ada/Archive 1"}
    return [as_json(change), as_json(talk), as_json({**change, "meta": {"domain": "canary"}})]


def _gharchive_records() -> list[Record]:
    event = {"id": "1", "type": "WatchEvent", "actor": {"login": "ada"}, "repo": {"name": "o/r"}, "created_at": ISO}
    comment = {**event, "type": "IssueCommentEvent", "payload": {"issue": {"user": {"login": "bob"}}}}
    return [as_json(event), as_json(comment), Record(json.dumps(event).encode() + b"\n" + json.dumps(comment).encode())]


def _own_records() -> list[Record]:
    items = [{"sku": "s1", "count": 2}, {"name": "n2"}, {"sku": "s3", "gone": True}]
    order = {"n": 5, "created": 1_767_225_600_000, "payload": {"kind": "order", "user": {"id": 7}, "items": items}}
    return [as_json(order), as_json({**order, "payload": {"kind": "other"}})]


SAMPLES: dict[str, Callable[[], list[Record]]] = {
    "json": _json_records,
    "ndjson": _ndjson_records,
    "arrow": _arrow_records,
    "cloudevents": _cloudevents_records,
    "confluent": _confluent_records,
    "activitystreams": _activity_records,
    "jetstream": _jetstream_records,
    "mastodon": _mastodon_records,
    "wikimedia": _wikimedia_records,
    "gharchive": _gharchive_records,
    "orders": _own_records,
}


def samples(name: str) -> list[Record]:
    """Return good records of a format; `auto` has those of all that it tells apart, `avro` is framed."""
    if name == "avro":
        return _avro_records()
    if name == "auto":
        told = ("json", "ndjson", "arrow", "cloudevents", "confluent")
        return [record for each in told for record in SAMPLES[each]()]
    return SAMPLES[name]()
