"""A declarative mapping of JSON objects to events: which place holds which field, which records count."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from infra.errors import UsageError
from infra.settings import FormatSettings
from stream.decoders.base import REQUIRED_ROLES
from stream.decoders.records.base import Record
from stream.decoders.records.extract import ROLES, Row
from stream.decoders.records.paths import Place, Scope, Step, expand, parse_place


@dataclass(frozen=True, slots=True)
class Condition:
    """A place and the values that it may have; `values` holds pairs, since `True == 1`."""

    place: Place
    values: tuple[tuple[bool, Any], ...]

    def holds(self, scope: Scope, record: Record) -> bool:
        """Tell whether the place has one of the values."""
        value = self.place.get(scope, record)
        return (isinstance(value, bool), value) in self.values


@dataclass(frozen=True, slots=True, kw_only=True)
class EventMapping:
    """A mapping, parsed and checked.

    Attributes:
        name: of the format.
        roles: role to the places that can hold it, the first that does counts. Of several places for `dst` one that
            holds `src` itself is passed over: an interaction is with somebody else, where there is somebody else.
        lists: the lists that are expanded, each inside an element of the one before; one event an innermost element.
        list_text: these lists as the user wrote them.
        where, unless: a record, or an element, counts where all of the first and none of the second hold.
        needs: and where none of these is null.
        time_unit: of numeric times.
        payload: `json` or `confluent`.
    """

    name: str
    roles: Mapping[str, tuple[Place, ...]]
    lists: tuple[tuple[Step, ...], ...] = ()
    list_text: str = ""
    where: tuple[Condition, ...] = ()
    unless: tuple[Condition, ...] = ()
    needs: tuple[Place, ...] = ()
    time_unit: str = "auto"
    payload: str = "json"

    @property
    def looked_for(self) -> Mapping[str, str]:
        """Where each required role is looked for, in words."""
        return {role: ", ".join(place.text for place in self.roles[role]) for role in REQUIRED_ROLES}

    def rows(self, fields: dict[str, Any], record: Record) -> list[Row]:
        """Return the events of an object as raw values; none where it does not count.

        Raises:
            InvalidEventError: what `[]` follows is no list.
        """
        scopes: list[Scope] = [(fields,)]
        for level in range(len(self.lists) + 1):
            scopes = [scope for scope in scopes if self._counts(scope, level, record)]
            if level < len(self.lists) and scopes:
                scopes = expand(scopes, self.lists[level], self.list_text)
        return [self._row(scope, number, record) for number, scope in enumerate(scopes)]

    def _counts(self, scope: Scope, level: int, record: Record) -> bool:
        return (
            all(each.holds(scope, record) for each in self.where if len(each.place.lists) == level)
            and not any(each.holds(scope, record) for each in self.unless if len(each.place.lists) == level)
            and all(place.get(scope, record) is not None for place in self.needs if len(place.lists) == level)
        )

    def _row(self, scope: Scope, number: int, record: Record) -> Row:
        values = {role: _first(places, scope, record) for role, places in self.roles.items()}
        if len(self.roles["dst"]) > 1 and values["dst"] is not None and values["dst"] == values["src"]:
            found = [place.get(scope, record) for place in self.roles["dst"]]
            values["dst"] = next((each for each in found if each not in (None, values["src"])), values["src"])
        id_ = values.get("id")
        if id_ is not None and self.lists and all(len(place.lists) < len(self.lists) for place in self.roles["id"]):
            values["id"] = f"{id_}#{number}"  # or all elements but one would pass for duplicates
        return Row(**{role: values.get(role) for role in ROLES})


def parse_mapping(name: str, settings: FormatSettings) -> EventMapping:
    """Return the mapping of the section `[formats.<name>]`.

    Raises:
        UsageError: a place is written wrongly, or does not fit the others; the message names the key.
    """
    roles = {role: _places(name, role, getattr(settings, role)) for role in ROLES}
    for role in REQUIRED_ROLES:
        if not roles[role]:
            raise UsageError(f"formats.{name}.{role} is empty", fix="give a place, such as payload.user.id")
    where = _conditions(name, "where", settings.where)
    unless = _conditions(name, "unless", settings.unless)
    needs = _places(name, "needs", settings.needs)
    used = [(role, place) for role, places in roles.items() for place in places]
    used += [("where", each.place) for each in where] + [("unless", each.place) for each in unless]
    used += [("needs", place) for place in needs]
    longest = max((place for _, place in used), key=lambda place: len(place.lists))
    for key, place in used:
        if place.lists != longest.lists[: len(place.lists)]:
            raise UsageError(
                f"formats.{name}.{key}: {place.text!r} goes through another list than {longest.text!r}",
                fix="let all `[]` of a format follow the same list; give the other list a format of its own",
            )
    return EventMapping(
        name=name,
        roles={role: places for role, places in roles.items() if places},
        lists=longest.lists,
        list_text=longest.text,
        where=where,
        unless=unless,
        needs=needs,
        time_unit=settings.time_unit,
        payload=settings.payload,
    )


def _places(name: str, key: str, given: str | Sequence[str]) -> tuple[Place, ...]:
    texts = [given] if isinstance(given, str) else list(given)
    try:
        return tuple(parse_place(text) for text in texts if text.strip())
    except ValueError as error:
        raise UsageError(f"formats.{name}.{key}: {error}", fix="see docs/producers.md, A format of your own") from None


def _conditions(name: str, key: str, given: Mapping[str, Any]) -> tuple[Condition, ...]:
    conditions = []
    for text, values in given.items():
        (place,) = _places(name, key, [text]) or (None,)
        if place is None:
            raise UsageError(f"formats.{name}.{key}: a place is empty", fix="write the place before the =")
        allowed = values if isinstance(values, list) else [values]
        conditions.append(Condition(place, tuple((isinstance(each, bool), _plain(each)) for each in allowed)))
    return tuple(conditions)


def _plain(value: Any) -> Any:
    return Decimal(str(value)) if isinstance(value, float) else value


def _first(places: Sequence[Place], scope: Scope, record: Record) -> Any:
    for place in places:
        value = place.get(scope, record)
        if value is not None:
            return value
    return None
