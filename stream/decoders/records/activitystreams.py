"""ActivityStreams 2.0: replies, announcements, likes and follows between actors.

Source of the format: https://www.w3.org/TR/activitystreams-core and -vocabulary. Actors and objects are named by URIs.
Whose object it is, an embedded object says; of a bare URI it is told where the URI lies below its owner's, as with
Mastodon and its relatives, and else the object stands for itself.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from stream.decoders.records.base import Record
from stream.decoders.records.extract import Row
from stream.decoders.records.objects import Objects, dict_objects
from stream.decoders.records.paths import iso_time
from stream.events import InvalidEventError

_TYPES = {"Create": "reply", "Announce": "announce", "Like": "like", "Follow": "follow"}
_COLLECTIONS = frozenset({"Collection", "OrderedCollection", "CollectionPage", "OrderedCollectionPage"})
# The vocabulary may stand before a type, in full or as a prefix of JSON-LD.
_VOCABULARY = re.compile(r"\A(?:as:|https?://www\.w3\.org/ns/activitystreams#)")
# Whose status it is: the URI of an actor, then what the actor has.
_OWNED = re.compile(r"(https?://[^/]+/(?:users|u|profile|actors?)/[^/?#]+)/.+|(https?://[^/]+/@[^/?#]+)/.+")


class ActivityExtract:
    """Events of an activity; activities that undo, delete, update or answer something are none."""

    looked_for: Mapping[str, str] = {
        "src": "actor",
        "dst": "object, inReplyTo, target",
        "ts": "published, the record's own time",
    }

    def rows(self, fields: dict[str, Any], record: Record) -> list[Row]:
        """Return the event of an activity; see `Extract`."""
        names = _type_names(fields)
        if not names:
            raise InvalidEventError("type is missing: this is no activity")
        name = next((name for name in names if name in _TYPES), None)
        if name is None:
            return []
        objects = _each(fields.get("object"))
        if name == "Create":
            objects = [
                answered for each in objects if isinstance(each, dict) for answered in _each(each.get("inReplyTo"))
            ]
            if not objects:
                return []  # a post of its own, an answer to nobody
        targets = objects or _each(fields.get("target")) or [None]
        published = fields.get("published")
        # `published` is optional, and servers leave it away in likes and follows.
        ts = published if published is not None else None if record.ts_us is None else iso_time(record.ts_us)
        src, id_ = _uri(_only(_each(fields.get("actor")))), _uri(fields.get("id"))
        return [
            Row(
                src=src,
                dst=_uri(target) if name == "Follow" else _owner(target),
                ts=ts,
                type=_TYPES[name],
                id=id_ if id_ is None or len(targets) == 1 else f"{id_}#{number}",
            )
            for number, target in enumerate(targets)
        ]


def activities(records: Sequence[Record]) -> Objects:
    """Return the activities of records: objects, arrays, lines, and the items of collections."""
    found = dict_objects(records, "either")
    if not any(_is_collection(fields) for fields in found.values):
        return found
    objects = Objects(bad=found.bad, skipped=found.skipped)
    places: list[str] = []
    for at, (fields, record) in enumerate(zip(found.values, found.record, strict=True)):
        items = _each(fields.get("orderedItems", fields.get("items"))) if _is_collection(fields) else [fields]
        inner = [
            (item, f"{found.place(at)}item {number}: " if _is_collection(fields) else found.place(at))
            for number, item in enumerate(items, start=1)
            if isinstance(item, dict)  # an item may be a bare URI, which tells nothing
        ]
        objects.values += [item for item, _ in inner]
        objects.record += [record] * len(inner)
        places += [place for _, place in inner]
    objects.place = places.__getitem__
    full = set(objects.record) | {each.record for each in objects.bad}
    objects.skipped += len(set(found.record) - full)
    return objects


def _is_collection(fields: dict[str, Any]) -> bool:
    return not _COLLECTIONS.isdisjoint(_type_names(fields))


def _type_names(fields: dict[str, Any]) -> list[str]:
    """Return the types of an object as the vocabulary names them."""
    return [_VOCABULARY.sub("", name) for name in _each(fields.get("type")) if isinstance(name, str)]


def _each(value: Any) -> list[Any]:
    """Return the values of a property, which JSON-LD writes alone or as a list."""
    return value if isinstance(value, list) else [] if value is None else [value]


def _only(values: list[Any]) -> Any:
    return values[0] if values else None


def _uri(value: Any) -> str | None:
    """Return the URI of an object or a link, None if it has none."""
    if isinstance(value, dict):
        value = value.get("id") or value.get("href")
    return value if isinstance(value, str) and value else None


def _owner(value: Any) -> str | None:
    if isinstance(value, dict):
        for role in ("attributedTo", "actor"):
            owner = _uri(_only(_each(value.get(role))))
            if owner is not None:
                return owner
    uri = _uri(value)
    owned = None if uri is None else _OWNED.fullmatch(uri)
    return uri if owned is None else owned[1] or owned[2]
