import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import UsageError
from stream.decoders.builder import DecodeOptions
from stream.decoders.records.base import Record
from stream.decoders.records.formats import record_decoder
from stream.encoders import ENCODINGS, event_encoder
from stream.encoders.cloudevents import SOURCE, cloud_id
from stream.events import UNNAMED_GRAPH, Event, EventRules, Interner

CLOUD = ("cloudevents", "cloudevents-structured")
RULES = EventRules()


def _text(max_size: int) -> st.SearchStrategy[str]:
    kept = st.characters(exclude_categories=("Cs", "Cc"))
    return st.text(kept, min_size=1, max_size=max_size).map(str.strip).filter(bool)


def events(*, ids: st.SearchStrategy[str | None]) -> st.SearchStrategy[Event]:
    return st.builds(
        Event,
        src=_text(20) | st.just("x" * RULES.max_name_chars),
        dst=_text(20),
        ts_us=st.integers(RULES.min_ts_us, RULES.max_ts_us),
        graph=st.from_regex(r"[a-z0-9][a-z0-9._-]{0,10}", fullmatch=True),
        type=st.just("") | _text(16),
        weight=st.floats(allow_nan=False, allow_infinity=False),
        id=ids,
    ).map(RULES.event)


some_ids = _text(30) | st.just("i" * RULES.max_name_chars)


@pytest.mark.parametrize("name", ENCODINGS)
@given(data=st.data())
def test_records_are_read_back_as_they_were(name: str, data: st.DataObject) -> None:
    encoder = event_encoder(name)
    ids: st.SearchStrategy[str | None] = some_ids if name in CLOUD else st.none() | some_ids
    sent = data.draw(st.lists(events(ids=ids), min_size=1, max_size=4 if encoder.holds_many else 1))
    encoded = encoder.encode(sent)
    record = Record(encoded.value, headers=encoded.headers)
    formats = ["auto", name.removesuffix("-structured")]
    for each in formats:
        decoded = record_decoder(DecodeOptions(format=each), interner=Interner()).decode([record])
        assert decoded.bad == []
        read = list(decoded.events)
        assert read == ([RULES.event(_with_id(event)) for event in sent] if name in CLOUD else sent)
        signs = [math.copysign(1, event.weight) for event in sent]
        assert [math.copysign(1, event.weight) for event in read] == signs


@pytest.mark.parametrize("name", ENCODINGS)
def test_event_without_a_graph_is_of_the_one_that_its_reader_names(name: str) -> None:
    encoded = event_encoder(name).encode([Event("a", "b", 1, graph=UNNAMED_GRAPH, id="1")])
    # Arrow has the column, without a value in it.
    assert name == "arrow" or b'"graph"' not in encoded.value
    decoder = record_decoder(DecodeOptions(graph="town"), interner=Interner())
    decoded = decoder.decode([Record(encoded.value, headers=encoded.headers)])
    assert decoded.bad == []
    assert [event.graph for event in decoded.events] == ["town"]


def _with_id(event: Event) -> Event:
    fields = (event.src, event.dst, event.ts_us, event.graph, event.type, event.weight)
    return Event(*fields, id=f"{SOURCE} {cloud_id(event)}")


def test_long_ids_of_cloud_events_stay_apart() -> None:
    long = [Event("a", "b", 1, id="i" * 511 + end) for end in "xy"]
    ids = [cloud_id(event) for event in long]
    assert ids[0] != ids[1]
    assert all(len(f"{SOURCE} {each}") <= RULES.max_name_chars for each in ids)


def test_cloud_events_need_an_id_and_binary_mode_holds_one() -> None:
    for name in CLOUD:
        with pytest.raises(ValueError, match="needs an id"):
            event_encoder(name).encode([Event("a", "b", 1)])
    with pytest.raises(ValueError, match="holds one"):
        event_encoder("cloudevents").encode([Event("a", "b", 1, id="1")] * 2)
    assert [name for name in ENCODINGS if not event_encoder(name).holds_many] == ["cloudevents"]


def test_an_unknown_encoding_is_told() -> None:
    with pytest.raises(UsageError, match="cannot be written as 'avro'"):
        event_encoder("avro")


def test_defaults_are_left_out_of_json() -> None:
    plain = event_encoder("json").encode([Event("a", "b", 1_000_000, weight=float("1"))])
    assert plain.value == b'{"src":"a","dst":"b","ts":"1970-01-01T00:00:01Z","graph":"default"}'
