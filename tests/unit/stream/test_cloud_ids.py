"""The ids of events in CloudEvents depend on where they stand in the data, and not on what else can be read."""

import json
from typing import Any

import pytest

from stream.decoders.records.base import Record
from tests.fuzz.invariants import decoder

ATTRIBUTES = {"ce_specversion": "1.0", "ce_id": "1", "ce_source": "/s", "ce_type": "t"}
A, M, C = ({"src": "a", "dst": "b", "ts": ts} for ts in (1, 2, 3))


def ids_of(data: str, content_type: str = "application/json") -> list[tuple[int, str | None]]:
    headers = {**ATTRIBUTES, "content-type": content_type}
    record = Record(data.encode(), headers=tuple((name, text.encode()) for name, text in headers.items()))
    return [(event.ts_us // 1_000_000, event.id) for event in decoder("cloudevents").decode([record]).events]


@pytest.mark.parametrize("form", ["array", "lines", "ndjson"])
@pytest.mark.parametrize("broken", [17, {"src": "a"}])
def test_what_is_mended_and_sent_again_has_the_ids_that_it_had(form: str, broken: Any) -> None:
    def sent(items: list[Any]) -> list[tuple[int, str | None]]:
        if form == "array":
            return ids_of(json.dumps(items))
        content_type = "application/json" if form == "lines" else "application/x-ndjson"
        return ids_of("\n".join(map(json.dumps, items)), content_type)

    assert sent([A, broken, C]) == [(1, "/s 1 1"), (3, "/s 1 3")]
    assert sent([A, M, C]) == [(1, "/s 1 1"), (2, "/s 1 2"), (3, "/s 1 3")]
    assert sent([broken, M]) == [(2, "/s 1 2")]


def test_one_object_has_no_number_while_an_array_or_a_line_has() -> None:
    assert ids_of(json.dumps(A)) == [(1, "/s 1")]
    assert ids_of(json.dumps(A, indent=1)) == [(1, "/s 1")]
    assert ids_of(json.dumps([A])) == [(1, "/s 1 1")]
    assert ids_of(json.dumps(A), "application/x-ndjson; charset=utf-8") == [(1, "/s 1 1")]


@pytest.mark.parametrize("type_", ["as:Follow", "https://www.w3.org/ns/activitystreams#Follow", ["x:Odd", "as:Follow"]])
def test_types_of_activities_may_have_their_vocabulary_before_them(type_: Any) -> None:
    activity = {"type": type_, "actor": "https://a/1", "object": "https://b/2", "published": "2026-01-01T00:00:00Z"}
    collection = {"type": "as:OrderedCollection", "orderedItems": [activity]}
    for value in (activity, collection):
        [event] = decoder("activitystreams").decode([Record(json.dumps(value).encode())]).events
        assert (event.src, event.dst, event.type) == ("https://a/1", "https://b/2", "follow")
