"""JSON objects that are all written alike: the same keys in the same order, plain texts and whole numbers as values.

Producers write such objects. They are read without parsing each: where the quotes stand tells where the values are,
and comparing what stands between them with the first object proves that there is nothing else. Whatever is written in
another way is left to a parser; what is read here, a parser would read in the same way.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import msgspec
import numpy as np

from stream.decoders.base import fields_of_roles
from stream.decoders.text import MARGIN_BYTES, MAX_WORDS, WORD_BYTES, TextBuffer, TextColumn
from stream.events import IntArray

_FIELD = re.compile(
    rb'(?P<before>[{,] *"(?P<key>[^"\\\x00-\x1f]*)" *: *)'
    rb'(?:"[^"\\\x00-\x1f]*"|(?P<number>0|[1-9][0-9]{0,17}))(?= *[,}])'
)
_END = re.compile(rb" *} *")
_SPACE = re.compile(rb" *")
_MAX_FIELDS = 32
# Roles whose numbers count as such; elsewhere they are names.
_NUMERIC = ("ts", "weight")
_MARGIN = b" " * (MARGIN_BYTES - 1)


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

    def values(self, buffer: TextBuffer, quotes: IntArray, end: int) -> dict[str, TextColumn] | None:
        """Return the values of n objects by key; None if one is written in another way.

        Args:
            buffer: the objects, one a line, with a line end before the first at `MARGIN_BYTES - 1`; no other control
                characters, and no backslashes.
            quotes: where the quotes of the buffer are.
            end: where the line end behind the last object is.
        """
        n_quotes = sum(literal.count(b'"') for literal in self.literals)
        if not len(quotes) or len(quotes) % n_quotes:
            return None
        by_object = np.ascontiguousarray(quotes.reshape(-1, n_quotes).T)
        literals = [b"\n" + self.literals[0], *self.literals[1:-1], self.literals[-1] + b"\n"]
        begins: list[IntArray] = []
        number = 0
        for literal in literals[:-1]:
            begins.append(by_object[number] - literal.index(b'"'))
            number += literal.count(b'"')
        # The last literal may be without a quote; it ends where the next object's line begins.
        begins.append(np.append(begins[0][1:], end) + 1 - len(literals[-1]))
        if begins[0][0] != MARGIN_BYTES - 1:
            return None
        if not all(buffer.holds(literal, begin) for literal, begin in zip(literals, begins, strict=True)):
            return None
        columns = {}
        for at, (key, is_number) in enumerate(zip(self.keys, self.numbers, strict=True)):
            column = TextColumn(buffer, begins[at] + len(literals[at]), begins[at + 1])
            if is_number and column.whole_numbers() is None:
                return None
            columns[key] = column
        return columns


class TemplateReader:
    """Reads objects that are all written alike, however that is.

    Args:
        columns: role to key where the caller says so; other roles are found by `decoders.base.ALIASES`.
    """

    def __init__(self, columns: Mapping[str, str]) -> None:
        self._columns = columns
        self._template: ObjectTemplate | None = None
        self._roles: dict[str, str] = {}

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
        if not texts:
            return None
        if texts[0][-1:] == b"\n":
            texts = [text.removesuffix(b"\n") for text in texts]
        first = texts[0].partition(b"\n")[0]
        if self._template is None and not self._learn(first):
            return None
        data = b"\n".join([_MARGIN, *texts, _MARGIN])
        if b"\\" in data or not _is_utf8(data):
            return None
        chars = np.frombuffer(data, dtype=np.uint8)
        quotes = np.flatnonzero(chars == ord('"'))
        buffer = TextBuffer(data)
        end = len(data) - len(_MARGIN) - 1
        values = self._values(buffer, quotes, end)
        if values is None and self._learn(first):
            values = self._values(buffer, quotes, end)
        if values is None:
            return None
        n_objects = len(values[self.keys[0]])
        # Line ends stand where objects end, and there is no other control character.
        if np.count_nonzero(chars < ord(" ")) != n_objects + 1:
            return None
        owner = np.arange(len(texts))
        if n_objects != len(texts):
            owner = np.repeat(owner, [text.count(b"\n") + 1 for text in texts])
        columns = self._by_role(values)
        return None if columns is None else (columns, owner)

    def _learn(self, text: bytes) -> bool:
        """Take the way a text is written as the template; tell whether it is another one than before."""
        before, self._template = self._template, ObjectTemplate.of(text)
        if self._template is None or self._template == before:
            return False
        names = fields_of_roles(self._template.keys, self._columns)
        # No value is null: of several keys for a role the first counts.
        self._roles = {role: keys[0] for role, keys in names.items()}
        return True

    def _values(self, buffer: TextBuffer, quotes: IntArray, end: int) -> dict[str, TextColumn] | None:
        return None if self._template is None else self._template.values(buffer, quotes, end)

    def _by_role(self, values: dict[str, TextColumn]) -> dict[str, TextColumn | IntArray] | None:
        assert self._template is not None
        is_number = dict(zip(self._template.keys, self._template.numbers, strict=True))
        columns: dict[str, TextColumn | IntArray] = {}
        for role, key in self._roles.items():
            column = values[key]
            if column.length.max() > MAX_WORDS * WORD_BYTES:
                return None
            numbers = column.whole_numbers() if is_number[key] and role in _NUMERIC else None
            columns[role] = column if numbers is None else numbers
        return columns


def _is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
