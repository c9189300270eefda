"""JSON objects that are all written alike: the same keys in the same order, plain texts and whole numbers as values.

Producers write such objects. They are read without parsing each: what stands between the values is compared with the
first object. Whatever is written in another way is left to a parser, and so is everything where the package was built
without a compiler; what is read here, a parser would read in the same way.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import msgspec
import numpy as np

from stream.decoders.base import fields_of_roles
from stream.decoders.text import TextColumn
from stream.events import IntArray
from stream.native import native

_FIELD = re.compile(
    rb'(?P<before>[{,] *"(?P<key>[^"\\\x00-\x1f]*)" *: *)'
    rb'(?:"[^"\\\x00-\x1f]*"|(?P<number>0|[1-9][0-9]{0,17}))(?= *[,}])'
)
_END = re.compile(rb" *} *")
_SPACE = re.compile(rb" *")
_MAX_FIELDS = 32
# Roles whose numbers count as such; elsewhere they are names.
_NUMERIC = ("ts", "weight")
_FAILURES_IN_A_ROW = 4
_MAX_SKIPPED = 16


@dataclass(frozen=True, slots=True)
class ObjectTemplate:
    """How an object is written.

    Attributes:
        keys: in their order.
        numbers: whether each value is a whole number; else it is a text.
        literals: what stands before each value, between the values, and behind the last; quotes belong to it.
    """

    keys: tuple[str, ...]
    numbers: tuple[bool, ...]
    literals: tuple[bytes, ...]

    @classmethod
    def of(cls, text: bytes) -> Self | None:
        """Return how an object is written; None if it is not as plain as that, or no object."""
        keys: list[bytes] = []
        numbers: list[bool] = []
        literals: list[bytes] = []
        match = _SPACE.match(text)
        assert match is not None
        at, pending = match.end(), match.group()
        while (field := _FIELD.match(text, at)) is not None and len(keys) < _MAX_FIELDS:
            is_number = field.group("number") is not None
            keys.append(field.group("key"))
            numbers.append(is_number)
            literals.append(pending + field.group("before") + (b"" if is_number else b'"'))
            at, pending = field.end(), b"" if is_number else b'"'
            space = _SPACE.match(text, at)
            assert space is not None
            at, pending = space.end(), pending + space.group()
        if not keys or _END.fullmatch(text, at) is None or len(set(keys)) < len(keys):
            return None
        literals.append(pending + text[at:])
        try:
            # A parser has the last word on what an object is.
            if not isinstance(msgspec.json.decode(text), dict):
                return None
            return cls(tuple(key.decode("utf-8") for key in keys), tuple(numbers), tuple(literals))
        except ValueError:
            return None

    def scan(self, texts: Sequence[bytes]) -> tuple[dict[str, TextColumn], IntArray] | None:
        """Return the values of n objects by key, and the index [n] of the text of each; None if not all are alike.

        Args:
            texts: each one or more objects, one a line, without a line end behind the last.
        """
        assert native is not None
        data = b"".join(texts)
        length = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        found = native.scan_objects(data, np.cumsum(length) - length, length, self.literals, self.numbers)
        if found is None:
            return None
        begins, lengths, owner = found
        return {
            key: TextColumn(data, begin, length) for key, begin, length in zip(self.keys, begins, lengths, strict=True)
        }, owner


class TemplateReader:
    """Reads objects that are all written alike, however that is.

    Args:
        columns: role to key where the caller says so; other roles are found by `decoders.base.ALIASES`.
    """

    def __init__(self, columns: Mapping[str, str]) -> None:
        self._columns = columns
        self._template: ObjectTemplate | None = None
        self._roles: dict[str, str] = {}
        # Where texts are hardly ever alike, trying would be in vain: after failures in a row fewer are tried.
        self._failures = self._to_skip = 0

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the objects that were read last."""
        return () if self._template is None else self._template.keys

    def read(self, texts: Sequence[bytes]) -> tuple[dict[str, TextColumn | IntArray], IntArray] | None:
        """Return role to values of n objects, and the index [n] of the text that holds each; None if not all are alike.

        Roles that no key can hold are left out.

        Args:
            texts: each one or more lines, the last with or without a line end; each line must hold an object.
        """
        if not texts or native is None:
            return None
        if self._to_skip:
            self._to_skip -= 1
            return None
        found = self._read(texts)
        self._failures = 0 if found is not None else self._failures + 1
        self._to_skip = min(self._failures // _FAILURES_IN_A_ROW, _MAX_SKIPPED)
        return found

    def _read(self, texts: Sequence[bytes]) -> tuple[dict[str, TextColumn | IntArray], IntArray] | None:
        if texts[0][-1:] == b"\n":
            texts = [text.removesuffix(b"\n") for text in texts]
        first = texts[0].partition(b"\n")[0]
        if self._template is None and not self._learn(first):
            return None
        found = self._scan(texts)
        if found is None and self._learn(first):
            found = self._scan(texts)
        if found is None:
            return None
        columns = self._by_role(found[0])
        return None if columns is None else (columns, found[1])

    def _learn(self, text: bytes) -> bool:
        """Take the way a text is written as the template; tell whether it is another one than before."""
        before, self._template = self._template, ObjectTemplate.of(text)
        if self._template is None or self._template == before:
            return False
        names = fields_of_roles(self._template.keys, self._columns)
        # No value is null: of several keys for a role the first counts.
        self._roles = {role: keys[0] for role, keys in names.items()}
        return True

    def _scan(self, texts: Sequence[bytes]) -> tuple[dict[str, TextColumn], IntArray] | None:
        return None if self._template is None else self._template.scan(texts)

    def _by_role(self, values: dict[str, TextColumn]) -> dict[str, TextColumn | IntArray] | None:
        """Return the values by role; None if a number is too large."""
        assert self._template is not None
        columns: dict[str, TextColumn | IntArray] = {role: values[key] for role, key in self._roles.items()}
        for key, is_number in zip(self._template.keys, self._template.numbers, strict=True):
            numbers = values[key].whole_numbers() if is_number else None
            if is_number and numbers is None:
                return None
            for role in _NUMERIC:
                if numbers is not None and self._roles.get(role) == key:
                    columns[role] = numbers
        return columns
