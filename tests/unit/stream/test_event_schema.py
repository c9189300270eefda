"""The published schema and the decoder say the same about what a producer may send."""

import importlib.util
import json
import re
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from forecasting.cli.schema import event_schema_text
from stream.decoders.builder import DecodeOptions
from stream.decoders.records.base import Record
from stream.decoders.records.formats import record_decoder
from stream.event_schema import SCHEMA_DIALECT, event_schema
from stream.events import Interner
from tests.conftest import lacking

PUBLISHED = Path(__file__).parents[3] / "docs" / "schema" / "event.schema.json"
SCHEMA = event_schema()
KEYWORDS = {"$schema", "$id", "title", "description", "examples", "type", "required", "properties", "anyOf"} | {
    *("pattern", "format", "minLength", "maxLength", "minimum", "maximum")
}


def valid(value: Any, schema: dict[str, Any]) -> bool:
    """Validate by the few keywords that the schema uses; an unknown one is an error here."""
    assert schema.keys() <= KEYWORDS
    if "anyOf" in schema and not any(valid(value, each) for each in schema["anyOf"]):
        return False
    if "type" in schema and not _is(schema["type"], value):
        return False
    if isinstance(value, str):
        if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
            return False
        if "pattern" in schema and not re.search(schema["pattern"], value):
            return False
        if schema.get("format") == "date-time" and not _is_moment(value):
            return False
    if isinstance(value, int | float) and not isinstance(value, bool):
        return bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))
    if isinstance(value, dict):
        known = schema.get("properties", {})
        return all(name in value for name in schema.get("required", ())) and all(
            valid(each, known[name]) for name, each in value.items() if name in known
        )
    return True


def _is(kind: str, value: Any) -> bool:
    kinds: dict[str, Any] = {"object": dict, "string": str, "null": type(None), "integer": int, "number": (int, float)}
    return isinstance(value, kinds[kind]) and not isinstance(value, bool)


def _is_moment(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def accepted(event: Any) -> bool:
    decoder = record_decoder(DecodeOptions(format="json"), interner=Interner())
    decoded = decoder.decode([Record(json.dumps(event).encode())])
    return len(decoded.events) == 1 and not decoded.bad


def test_the_published_file_is_what_the_command_prints() -> None:
    assert PUBLISHED.read_text(encoding="utf-8") == event_schema_text(), (
        "run: graphtide schema event > docs/schema/event.schema.json"
    )


def test_the_dialect_and_the_examples() -> None:
    assert SCHEMA["$schema"] == SCHEMA_DIALECT
    for example in SCHEMA["examples"]:
        assert valid(example, SCHEMA)
        assert accepted(example)


_texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=8).filter(lambda text: text == text.strip())
_junk = st.booleans() | st.just([]) | st.just({"a": 1})
_names = (
    _texts
    | st.sampled_from(["", "x" * 512, "x" * 513, "a\x00b", "a\x7fb", "a\x85b", "ä ö", "a\nb", "\u3000", "日本"])
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False).filter(lambda f: not f.is_integer())
    | _junk
    | st.none()
)
_moments = st.datetimes(datetime(1969, 12, 30), datetime(2200, 1, 2)).map(lambda d: d.isoformat() + "Z")
_times = (
    _moments
    | st.sampled_from(["+05:00", "-23:59", "+00:00"]).flatmap(
        lambda offset: st.datetimes(datetime(1971, 1, 1), datetime(2198, 12, 31)).map(lambda d: d.isoformat() + offset)
    )
    | st.sampled_from(
        ["2026-02-30T00:00:00Z", "2026-13-01T00:00:00Z", "2026-01-01T24:01:00Z", "soon", "", "2024-02-29T"]
    )
    | st.integers(-10, 8 * 10**18)
    | st.floats(0, 7e18)
    | st.sampled_from([-1, 0, 7_258_118_400_000_000_000, 7_258_118_400_000_000_001])
    | _junk
    | st.none()
)
_optional: dict[str, st.SearchStrategy[Any]] = {
    "graph": st.sampled_from(["g", "G", "a b", "-a", "a.b_c-9", "x" * 64, "x" * 65, "é"]) | _junk | st.none(),
    "type": _texts | st.sampled_from(["", "t" * 64, "t" * 65, "a\tb"]) | _junk | st.none(),
    "weight": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**9), 10**9) | _junk | st.none(),
    # A blank id is none to the decoder, as other space around names is left out of the strict form.
    "id": _names.filter(lambda name: not isinstance(name, str) or bool(name.strip())),
}


@settings(max_examples=150)
@given(st.fixed_dictionaries({"src": _names, "dst": _names, "ts": _times}, optional=_optional))
def test_schema_and_decoder_accept_the_same(event: dict[str, Any]) -> None:
    assert valid(event, SCHEMA) == accepted(event)


@given(
    st.fixed_dictionaries({"src": st.just("a"), "dst": st.just("b"), "ts": _moments}),
    st.sampled_from([*("src", "dst", "ts"), *_optional]),
    st.data(),
)
def test_they_agree_where_one_field_alone_varies(event: dict[str, Any], name: str, data: st.DataObject) -> None:
    strategies = {"src": _names, "dst": _names, "ts": _times, **_optional}
    event[name] = data.draw(strategies[name])
    assert valid(event, SCHEMA) == accepted(event)
    del event[name]
    assert valid(event, SCHEMA) == accepted(event)


def test_where_it_is_installed_the_reference_validator_agrees() -> None:
    if importlib.util.find_spec("jsonschema") is None:
        lacking("jsonschema", "jsonschema is not installed; the tests above validate by themselves")
    import jsonschema  # noqa: PLC0415

    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    validator = jsonschema.Draft202012Validator(SCHEMA)
    for event in ({"src": "a", "dst": "b", "ts": 1}, {"src": "", "dst": "b", "ts": 1}, {"src": "a"}, []):
        assert validator.is_valid(event) == valid(event, SCHEMA)


def test_a_number_is_read_in_the_unit_that_the_schema_tells() -> None:
    decoder = record_decoder(DecodeOptions(format="json"), interner=Interner())
    for scale in (1, 1000, 10**6, 10**9):
        record = Record(json.dumps({"src": 1, "dst": 2, "ts": 1_767_268_800 * scale}).encode())
        assert [event.ts_us for event in decoder.decode([record]).events] == [1_767_268_800_000_000]
    assert Decimal(SCHEMA["properties"]["ts"]["anyOf"][0]["maximum"]) == Decimal(7_258_118_400) * 10**9
