"""The JSON Schema of an event, made of the rules that the decoders hold events to.

It is the strict form. What decoders take beyond it (other names of fields, numbers as text, space around names) stays
out of it: `docs/producers.md` tells it, and a producer that keeps to the schema needs none of it.
"""

from datetime import UTC, datetime
from typing import Any

from stream.events import DEFAULT_GRAPH, EventRules

SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"
SCHEMA_ID = "urn:graphtide:schema:event:1"

# No control characters, no space at either end. Lookbehind is part of ECMA 262, which JSON Schema goes by.
_TEXT = r"^(?!\s)[^\u0000-\u001f\u007f-\u009f]+(?<!\s)$"
_MOMENT = r"-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?"
_OFFSET = r"(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
_NANOSECONDS_OF_US = 1000
_LARGEST_FLOAT = 1.7976931348623157e308


def event_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of an event as a JSON object."""
    rules = EventRules()
    return {
        "$schema": SCHEMA_DIALECT,
        "$id": SCHEMA_ID,
        "title": "Graphtide event",
        "description": "One interaction: src acted on dst at ts. Further fields are allowed and not read.",
        "type": "object",
        "required": ["src", "dst", "ts"],
        "properties": {
            "src": {"description": "Who acted.", **_name(rules)},
            "dst": {"description": "On whom or what.", **_name(rules)},
            "ts": {
                "description": "When it happened. A number counts seconds, milliseconds, microseconds or nanoseconds"
                " since 1970 in UTC: the coarsest unit that places it before 2200. A text is RFC 3339.",
                "anyOf": [
                    {"type": "number", "minimum": 0, "maximum": rules.max_ts_us * _NANOSECONDS_OF_US},
                    {"type": "string", "format": "date-time", "pattern": _time_pattern(rules)},
                ],
            },
            "graph": _optional(
                f"The network that it belongs to; without it what --graph says, else {DEFAULT_GRAPH!r}.",
                {"type": "string", "pattern": "^[a-z0-9][a-z0-9._-]{0,63}$"},
            ),
            "type": _optional(
                "What kind of interaction.",
                {"type": "string", "maxLength": rules.max_type_chars, "pattern": f"^$|{_TEXT}"},
            ),
            "weight": _optional(
                "How strong; 1 without it.",
                {"type": "number", "minimum": -_LARGEST_FLOAT, "maximum": _LARGEST_FLOAT},
            ),
            "id": _optional(
                "Its identity: an event whose id was seen in its graph shortly before is not counted again.",
                _name(rules),
            ),
        },
        "examples": [
            {"src": "ada", "dst": "bob", "ts": "2026-01-01T12:00:00Z"},
            {"src": 17, "dst": 4, "ts": 1767268800, "type": "reply", "graph": "forum", "weight": 2, "id": "r-81"},
        ],
    }


def _name(rules: EventRules) -> dict[str, Any]:
    """Return the schema of a node name or an id. Beyond 64 bits a number is safe as text only."""
    text = {"type": "string", "minLength": 1, "maxLength": rules.max_name_chars, "pattern": _TEXT}
    return {"anyOf": [text, {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}]}


def _optional(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "anyOf": [schema, {"type": "null"}]}


def _time_pattern(rules: EventRules) -> str:
    """Return the pattern of times inside the whole years of the valid range; at its ends only UTC is sure to be."""
    first, end = (datetime.fromtimestamp(us / 1e6, UTC).year for us in (rules.min_ts_us, rules.max_ts_us))
    inner = "|".join(_decades(first + 1, end - 2))
    return f"^(({first}|{end - 1}){_MOMENT}Z|({inner}){_MOMENT}{_OFFSET})$"


def _decades(first: int, last: int) -> list[str]:
    """Return patterns of the years from first to last."""
    parts: list[str] = []
    year = first
    while year <= last:
        for size in (100, 10, 1):
            if year % size == 0 and year + size - 1 <= last:
                prefix = str(year // size)
                parts.append(prefix + "[0-9]" * (len(str(size)) - 1))
                year += size
                break
    return parts
