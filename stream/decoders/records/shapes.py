"""JSON objects to columns through a msgspec struct that is made for the keys that occur."""

import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from operator import attrgetter
from typing import Any

import msgspec

from stream.decoders.base import REQUIRED_ROLES, fields_of_roles

# Objects with more different keys than this have data for keys; they are decoded into dicts.
_MAX_KEYS = 128
# A struct can have no such field.
_NO_FIELD = re.compile(r'[\x00-\x1f"\\]')
# msgspec's own errors and UnicodeDecodeError are ValueErrors; a Decimal refuses an exponent of too many digits.
JSON_ERRORS = (ValueError, RecursionError, InvalidOperation)


class ObjectShape:
    """Decodes objects whose keys it knows: into structs, in two thirds of the time that dicts take.

    A key that it does not know makes it refuse the object; `learn` it and decode again. So what an object becomes never
    depends on which objects came before it.

    Args:
        columns: role to key where the caller says so; other roles are found by `decoders.base.ALIASES`.
    """

    def __init__(self, columns: Mapping[str, str]) -> None:
        self._columns = columns
        self._keys: dict[str, str] = {}
        self._dicts = False
        self._remake()

    def learn(self, keys: Iterable[str]) -> bool:
        """Add keys; tell whether one of them was new."""
        new = sorted(set(keys) - self._keys.keys())
        if self._dicts or not new:
            return False
        if len(self._keys) + len(new) > _MAX_KEYS or any(map(_NO_FIELD.search, new)):
            self._dicts = True
        else:
            self._keys |= {key: f"f{at}" for at, key in enumerate(new, start=len(self._keys))}
        self._remake()
        return True

    def one(self, text: bytes) -> Any:
        """Return one object; raises one of `JSON_ERRORS` if it is none, or has a key that is not known."""
        value = self._one.decode(text)
        if self._dicts:
            _check_objects([value])
        return value

    def each(self, texts: Sequence[bytes]) -> list[Any]:
        """Return one object a text; raises as `one` does."""
        values = list(map(self._one.decode, texts))
        if self._dicts:
            _check_objects(values)
        return values

    def array(self, text: bytes) -> list[Any]:
        """Return the objects of an array; raises as `one` does."""
        values: list[Any] = self._array.decode(text)
        if self._dicts:
            _check_objects(values)
        return values

    def of(self, fields: dict[str, Any]) -> Any:
        """Return a decoded object as `one` gives it; its keys must have been learned."""
        return fields if self._dicts else self._struct(**{self._keys[key]: value for key, value in fields.items()})

    def columns(self, objects: Sequence[Any]) -> dict[str, Any]:
        """Return role to [n] values of objects; of several keys for a role the first that is not null counts."""
        if self._dicts:
            return dict_columns(objects, self._columns)
        return _columns(objects, self._getters)

    def _remake(self) -> None:
        # Every value is decoded as in a dict, also of keys without a role: else a broken one would pass where the
        # struct skips it and fail where a dict is made.
        self._struct = msgspec.defstruct(
            "Fields",
            [(field, Any, None) for field in self._keys.values()],
            rename={field: key for key, field in self._keys.items()},
            forbid_unknown_fields=True,
            gc=False,
        )
        kind: Any = Any if self._dicts else self._struct
        self._one = msgspec.json.Decoder(kind, float_hook=Decimal)
        self._array = msgspec.json.Decoder(list[kind], float_hook=Decimal)
        names = fields_of_roles(self._keys, self._columns)
        self._getters: dict[str, list[Any]] = {
            role: [attrgetter(self._keys[key]) for key in keys] for role, keys in names.items()
        }


def dict_columns(objects: Sequence[dict[str, Any]], columns: Mapping[str, str]) -> dict[str, Any]:
    """Return role to [n] values of dicts; of several keys for a role the first that is not null counts."""
    names = fields_of_roles({key for fields in objects for key in fields}, columns)
    return _columns(objects, {role: [_getter(key) for key in keys] for role, keys in names.items()})


def _columns(objects: Sequence[Any], getters: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for role, gets in getters.items():
        values = list(map(gets[0], objects))
        for get in gets[1:]:
            if None in values:
                values = [get(one) if value is None else value for value, one in zip(values, objects, strict=True)]
        columns[role] = values
    for role in REQUIRED_ROLES:
        columns.setdefault(role, [None] * len(objects))
    return columns


def _getter(key: str) -> Any:
    return lambda fields: fields.get(key)


def _check_objects(values: Sequence[Any]) -> None:
    if not set(map(type, values)) <= {dict}:
        raise ValueError("a JSON value, but no object")
