"""Places in a record, as a mapping names them: dotted paths, constants, texts made of several, what the broker says."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from stream.decoders.records.base import Record, header
from stream.events import InvalidEventError, shown

Step = str | int
# Objects around an event, the record itself first; then one element of each list that is expanded.
Scope = tuple[Any, ...]
Getter = Callable[[Scope, Record], Any]

_SEGMENT = re.compile(r'(?:"(?P<quoted>[^"]+)"|(?P<name>[^.\[\]{}"\s]+))(?P<index>(?:\[-?\d*\])*)')
_INDEX = re.compile(r"\[(-?\d*)\]")
_PART = re.compile(r"\{([^{}]*)\}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Place:
    """One place, parsed.

    Attributes:
        text: as it was written.
        lists: the lists that it goes through by `[]`, each relative to an element of the one before.
        get: the value in a scope that has an element of each of these lists; None for nothing.
    """

    text: str
    lists: tuple[tuple[Step, ...], ...]
    get: Getter


def parse_place(text: str) -> Place:
    """Return a place.

    Raises:
        ValueError: it is written wrongly; the text of the error says how to write it.
    """
    text = text.strip()
    if text.startswith("="):
        constant = text[1:]
        return Place(text, (), lambda _scope, _record: constant)
    if text.startswith("@"):
        return Place(text, (), _from_broker(text))
    if "{" in text or "}" in text:
        return _template(text)
    lists, steps = _parse_path(text)
    level = len(lists)
    return Place(text, lists, lambda scope, _record: follow(scope[level], steps))


def follow(value: Any, steps: Sequence[Step]) -> Any:
    """Return what stands at the end of a path, None where it leads nowhere."""
    for step in steps:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list):
            at = step if isinstance(step, int) else int(step) if step.isdecimal() and step.isascii() else None
            if at is None or not -len(value) <= at < len(value):
                return None
            value = value[at]
        else:
            return None
    return value


def expand(scopes: Sequence[Scope], steps: Sequence[Step], text: str) -> list[Scope]:
    """Return a scope for each element of the list at `steps`; a null list has none.

    Raises:
        InvalidEventError: there is no list.
    """
    expanded: list[Scope] = []
    for scope in scopes:
        parent = follow(scope[-1], steps[:-1])
        found = follow(scope[-1], steps)
        if found is None and not (isinstance(parent, dict) and steps and steps[-1] in parent):
            raise InvalidEventError(f"{text} leads to nothing")
        if found is not None and not isinstance(found, list):
            raise InvalidEventError(f"{text}: {shown(found)} is no list")
        expanded += [(*scope, element) for element in found or ()]
    return expanded


def iso_time(ts_us: int) -> str:
    """Return microseconds since the epoch as ISO 8601, which is free of units; "" beyond the years 1 to 9999."""
    try:
        return (_EPOCH + timedelta(microseconds=ts_us)).isoformat()
    except OverflowError:
        return ""


def _parse_path(text: str) -> tuple[tuple[tuple[Step, ...], ...], tuple[Step, ...]]:
    lists: list[tuple[Step, ...]] = []
    steps: list[Step] = []
    at = 0
    while True:
        segment = _SEGMENT.match(text, at)
        if segment is None:
            raise ValueError(
                f"{text!r} is no path: write names joined by dots, such as payload.user.id, items[0].id or items[].id, "
                'and "…" around a name with dots or spaces'
            )
        steps.append(segment["quoted"] or segment["name"])
        for index in _INDEX.findall(segment["index"]):
            if index == "-":
                raise ValueError(f"{text!r}: [-] is no index; write [0], [-1] or []")
            if index:
                steps.append(int(index))
            else:
                lists.append(tuple(steps))
                steps = []
        at = segment.end()
        if at == len(text):
            return tuple(lists), tuple(steps)
        if text[at] != ".":
            raise ValueError(f"{text!r} is no path: {text[at:]!r} cannot follow {text[:at]!r}")
        at += 1


def _template(text: str) -> Place:
    parts = [parse_place(part) for part in _PART.findall(text)]
    texts = _PART.split(text)[::2]
    if not parts or "{" in "".join(texts) or "}" in "".join(texts):
        raise ValueError(f"{text!r}: write a place in each pair of braces, such as {{wiki}}:{{title}}")
    lists = max((part.lists for part in parts), key=len)
    if any(part.lists != lists[: len(part.lists)] for part in parts):
        raise ValueError(f"{text!r} goes through several lists")

    def get(scope: Scope, record: Record) -> Any:
        values = [part.get(scope, record) for part in parts]
        if any(value is None or isinstance(value, dict | list | bool) for value in values):
            return None  # no part of a name
        return texts[0] + "".join(f"{value}{after}" for value, after in zip(values, texts[1:], strict=True))

    return Place(text, lists, get)


def _from_broker(text: str) -> Getter:
    name = text[1:]
    if name == "topic":
        return lambda _scope, record: record.topic
    if name == "key":
        return lambda _scope, record: _as_text(record.key)
    if name == "timestamp":
        return lambda _scope, record: None if record.ts_us is None else iso_time(record.ts_us)
    if name.startswith("header.") and len(name) > len("header."):
        wanted = name.removeprefix("header.").lower()
        return lambda _scope, record: _as_text(header(record, wanted))
    raise ValueError(f"{text!r} is nothing that a broker says; write @topic, @key, @timestamp or @header.NAME")


def _as_text(data: bytes | None) -> str | None:
    return None if data is None else data.decode("utf-8", "surrogateescape")
