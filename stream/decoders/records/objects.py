"""Records that hold JSON objects, one, several in an array or one a line: found and decoded, each with its place."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

import msgspec

from stream.decoders.ndjson import parse_json, parse_object
from stream.decoders.records.base import VALUE_STAGE, BadEvent, Record, no_place, payloads
from stream.decoders.records.shapes import JSON_ERRORS, ObjectShape
from stream.events import IntArray

# One JSON document, an object or an array of objects; one object a line; or what of both the payload looks like.
Layout = Literal["document", "lines", "either"]

_DECODER = msgspec.json.Decoder(float_hook=Decimal)
_BOM = b"\xef\xbb\xbf"


@dataclass(slots=True)
class Objects:
    """n objects of records.

    Attributes:
        values: [n] the objects.
        record: [n] index of the record of each, ascending.
        place: the place of an object inside its record, "" where it has the record for itself.
        bad: what is no object.
        skipped: records without any object.
    """

    values: list[Any] = field(default_factory=list)
    record: list[int] = field(default_factory=list)
    place: Callable[[int], str] = no_place
    bad: list[BadEvent] = field(default_factory=list)
    skipped: int = 0


@dataclass(slots=True)
class Parsed:
    """The objects of one payload, each with its place, and why the others are none."""

    objects: list[dict[str, Any]] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)


def parse(text: bytes, layout: Layout) -> Parsed:
    """Return the objects of a payload and the reason of each value that is none; never raises."""
    text = text.removeprefix(_BOM)
    if not text.strip():
        return Parsed(reasons=["the record is empty"])
    if layout == "lines":
        return _parse_lines(text)
    parsed = _parse_document(text)
    if layout == "either" and not parsed.objects and parsed.reasons and _has_object_line(text):
        return _parse_lines(text)
    return parsed


def dict_objects(records: Sequence[Record], layout: Layout) -> Objects:
    """Return the objects of records as dicts."""
    texts = payloads(records)
    if layout != "lines":
        try:
            values = list(map(_DECODER.decode, texts))
            if set(map(type, values)) <= {dict}:
                return Objects(values=values, record=list(range(len(values))))
        except JSON_ERRORS:
            pass  # which one, `parse` tells
    return gather([parse(text, layout) for text in texts])


def shaped_objects(texts: Sequence[bytes], layout: Layout, shape: ObjectShape) -> Objects:
    """Return the objects of payloads as `shape` gives them; `shape` learns the keys that it lacks."""
    try:
        if layout != "lines":
            return Objects(values=shape.each(texts), record=list(range(len(texts))))
        return _all_lines(texts, shape)
    except JSON_ERRORS:
        return _one_by_one(texts, layout, shape)


class Places:
    """Places of the objects of records, told when one is asked for: only those of bad events are."""

    def __init__(self, texts: Sequence[bytes], layout: Layout, record: Sequence[int] | IntArray) -> None:
        self._texts = texts
        self._layout = layout
        self._record = record
        self._known: dict[int, tuple[int, list[str]]] = {}

    def __call__(self, row: int) -> str:
        """Return the place of an object."""
        at = int(self._record[row])
        if at not in self._known:
            self._known[at] = (bisect_left(self._record, at), parse(self._texts[at], self._layout).places)
        first, places = self._known[at]
        return places[row - first]


def _all_lines(texts: Sequence[bytes], shape: ObjectShape) -> Objects:
    """Return the objects of all lines at once; raises one of `JSON_ERRORS` where one is none."""
    lines: list[bytes] = []
    record: list[int] = []
    for at, text in enumerate(texts):
        found = [line for line in text.split(b"\n") if line]
        if not found:
            raise ValueError("the record is empty")
        lines += found
        record += [at] * len(found)
    return Objects(values=shape.each(lines), record=record, place=Places(texts, "lines", record))


def _one_by_one(texts: Sequence[bytes], layout: Layout, shape: ObjectShape) -> Objects:
    shaped: list[list[Any] | None] = []
    parsed: dict[int, Parsed] = {}
    learned = False
    for at, text in enumerate(texts):
        if layout != "lines":
            try:
                shaped.append([shape.one(text)])
                continue
            except JSON_ERRORS:
                pass  # an array, several objects, or none
        shaped.append(_shaped(text, layout, shape))
        if shaped[-1] is None:
            parsed[at] = parse(text, layout)
            # At once, so that few of the texts that follow have to be parsed.
            learned |= shape.learn(key for fields in parsed[at].objects for key in fields)
    if learned:
        return _one_by_one(texts, layout, shape)  # at most once: now it knows the keys of all objects
    objects = Objects()
    for at, plain in enumerate(shaped):
        reasons = [] if plain is not None else parsed[at].reasons
        values = plain if plain is not None else [shape.of(fields) for fields in parsed[at].objects]
        objects.bad += [BadEvent(at, reason, VALUE_STAGE) for reason in reasons]
        objects.skipped += not values and not reasons
        objects.values += values
        objects.record += [at] * len(values)
    objects.place = Places(texts, layout, objects.record)
    return objects


def _shaped(text: bytes, layout: Layout, shape: ObjectShape) -> list[Any] | None:
    """Return the objects of one payload; None if it is not as plain as that."""
    opening = text[:1] if text[:1] in (b"{", b"[") else text.lstrip()[:1]
    try:
        if opening == b"[" and layout != "lines":
            return shape.array(text)
        if opening != b"{":
            return None
        if layout != "lines":
            try:
                return [shape.one(text)]
            except JSON_ERRORS:
                if layout == "document" or b"\n" not in text:
                    return None
        return shape.each([line for line in text.split(b"\n") if line])
    except JSON_ERRORS:
        return None


def gather(found: Sequence[Parsed]) -> Objects:
    """Return the objects of payloads, each from the record of its index."""
    objects = Objects()
    places: list[str] = []
    for at, parsed in enumerate(found):
        objects.values += parsed.objects
        objects.record += [at] * len(parsed.objects)
        places += parsed.places
        objects.bad += [BadEvent(at, reason, VALUE_STAGE) for reason in parsed.reasons]
        objects.skipped += not parsed.objects and not parsed.reasons
    objects.place = places.__getitem__
    return objects


def _parse_document(text: bytes) -> Parsed:
    try:
        value = parse_json(text)
    except ValueError as error:
        return Parsed(reasons=[str(error)])
    if isinstance(value, dict):
        return Parsed(objects=[value], places=[""])
    if not isinstance(value, list):
        return Parsed(reasons=["a JSON value, but no object"])
    parsed = Parsed()
    for number, item in enumerate(value, start=1):
        place = f"item {number}: "
        if isinstance(item, dict):
            parsed.objects.append(item)
            parsed.places.append(place)
        else:
            parsed.reasons.append(f"{place}a JSON value, but no object")
    return parsed


def _parse_lines(text: bytes) -> Parsed:
    lines = [(number, line) for number, line in enumerate(text.split(b"\n"), start=1) if line.strip()]
    parsed = Parsed()
    for number, line in lines:
        place = f"line {number}: " if len(lines) > 1 else ""
        try:
            parsed.objects.append(parse_object(line))
            parsed.places.append(place)
        except ValueError as error:
            parsed.reasons.append(f"{place}{error}")
    return parsed


def _has_object_line(text: bytes) -> bool:
    return b"\n" in text.strip() and any(bool(_parse_lines(line).objects) for line in text.split(b"\n"))
