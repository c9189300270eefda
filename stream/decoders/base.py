"""What all decoders share: the names that a field may go by, records before validation, cutting bytes into lines."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from infra.errors import InputError, UsageError

# In order of priority; compared in lower case without anything but letters and digits, so `Created-At` is `createdat`.
# Ratings, features and values are no weights of an interaction: they become one only where the caller says so.
ALIASES: dict[str, tuple[str, ...]] = {
    "src": ("src", "source", "from", "u", "user", "userid", "sender", "sourceid", "srcid", "fromid", "actor"),
    "dst": (
        *("dst", "target", "to", "i", "item", "itemid", "receiver", "recipient", "destination", "dest"),
        *("targetid", "dstid", "toid", "v"),
    ),
    "ts": ("ts", "time", "timestamp", "date", "datetime", "t", "createdat", "unixtime", "epoch"),
    "weight": ("weight", "w"),
    "type": ("type", "eventtype", "kind"),
    "graph": ("graph",),
    "id": ("id", "eventid"),
}
REQUIRED_ROLES = ("src", "dst", "ts")
# Names whose src and dst are usually counted in two id spaces that may overlap.
BIPARTITE_HINTS = frozenset({"i", "item", "itemid"})

MAX_RECORD_BYTES = 8 << 20


class BadRecord(NamedTuple):
    """A record that could not be read, or (`is_read`) is no valid event, before it is tied to a file."""

    line: int
    text: str
    reason: str
    is_read: bool = False


@dataclass(slots=True)
class RawColumns:
    """n records as columns, not yet validated.

    Attributes:
        lines: [n] line numbers, counted from 1.
        columns: role to [n] values; `src`, `dst` and `ts` are always there. Text formats give str, "" for nothing;
            JSON gives str, int, Decimal, bool, list, dict, or None for nothing.
        text: the record of a row as it stood in the file.
        typed: the values come from JSON.
        bad: records that did not even become a row.
    """

    lines: Sequence[int]
    columns: dict[str, Sequence[Any]]
    text: Callable[[int], str]
    typed: bool = False
    bad: list[BadRecord] = field(default_factory=list)


class Decoder(Protocol):
    """Bytes of one log in, raw records out; where the bytes are cut does not matter."""

    next_line: int

    @property
    def pending_bytes(self) -> int:
        """Bytes that were fed and not yet decoded, because their record is not complete."""
        ...

    @property
    def pending_lines(self) -> int:
        """Line ends among these bytes."""
        ...

    def feed(self, data: bytes) -> list[RawColumns]:
        """Decode all records that are complete now.

        Raises:
            InputError: a record is longer than `MAX_RECORD_BYTES`.
        """
        ...

    def finish(self) -> list[RawColumns]:
        """Decode what is left at the end of the log.

        Raises:
            InputError: the log ends inside a document.
        """
        ...


class LineDecoder:
    """A decoder of lines; a subclass says what a block of whole lines means.

    Args:
        label: the file, as errors name it.
        skip_lines: lines at the start of the file that are no records (a header, comments before it).
        first_line: number of the first line that will be fed; above 1 where reading resumes.
    """

    def __init__(self, label: str, *, skip_lines: int = 0, first_line: int = 1) -> None:
        self.label = label
        self.next_line = first_line
        self._skip_until = skip_lines + 1
        self._pending = bytearray()

    @property
    def pending_bytes(self) -> int:
        """Bytes of the unfinished last record."""
        return len(self._pending)

    @property
    def pending_lines(self) -> int:
        """Line ends in the unfinished last record."""
        return self._pending.count(b"\n")

    def feed(self, data: bytes) -> list[RawColumns]:
        """Decode the lines that are complete now."""
        cut = data.rfind(b"\n") + 1
        first = len(self._pending) + (data.find(b"\n") if cut else len(data))
        if first > MAX_RECORD_BYTES:
            raise InputError(
                f"{self.label}: a record of more than {MAX_RECORD_BYTES >> 20} MiB",
                place=f"{self.label}:{self.next_line}",
                fix="check that this is a text log with one event a line",
            )
        if not cut:
            self._pending += data
            return []
        block = bytes(self._pending) + data[:cut]
        self._pending.clear()
        decoded = self._advance(block, final=False)
        self._pending += data[cut:]
        return decoded

    def finish(self) -> list[RawColumns]:
        """Decode the last line, which may lack its newline."""
        block = bytes(self._pending)
        self._pending.clear()
        return self._advance(block, final=True)

    def decode(self, text: str, first_line: int, *, final: bool) -> tuple[RawColumns, str]:
        """Decode whole lines (the last may lack its newline if `final`); return also the tail that is not complete."""
        raise NotImplementedError

    def _advance(self, block: bytes, *, final: bool) -> list[RawColumns]:
        while self.next_line < self._skip_until and block:
            cut = block.find(b"\n") + 1 or len(block)
            block = block[cut:]
            self.next_line += 1
        if not block:
            return []
        text = block.decode("utf-8", "surrogateescape")
        if self.next_line == 1:
            text = text.removeprefix("\ufeff")
        raw, rest = self.decode(text, self.next_line, final=final)
        self.next_line += block.count(b"\n") - rest.count("\n")
        self._pending += rest.encode("utf-8", "surrogateescape")
        return [raw]


def split_lines(text: str) -> list[str]:
    """Return the lines of a block without their ends; only \\n and \\r\\n end a line."""
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return lines


class LazyLines:
    """The lines of a block, cut when the first of them is asked for: only rejected records are."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._lines: list[str] = []

    def __getitem__(self, index: int) -> str:
        if not self._lines:
            self._lines = split_lines(self._text)
        return self._lines[index]


def squeezed(name: str) -> str:
    """Return a field name as `ALIASES` spells it."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def check_columns(columns: Mapping[str, str] | None) -> dict[str, str]:
    """Return a mapping of roles to field names as a dict.

    Raises:
        UsageError: a role is unknown, or a name is empty.
    """
    columns = dict(columns or {})
    for role, name in columns.items():
        if role not in ALIASES:
            raise UsageError(f"columns: {role!r} is no field of an event", fix=f"use one of {', '.join(ALIASES)}")
        if not name.strip():
            raise UsageError(f"columns: no name given for {role!r}", fix=f"write {role}=NAME")
    return columns


def fields_of_roles(names: Iterable[str], columns: Mapping[str, str]) -> dict[str, list[str]]:
    """Return for each role the names that can hold it, the best first; a role without any is left out.

    Args:
        names: field names as they stand in the log.
        columns: role to name where the caller says so; such a name serves no other role.
    """
    present = sorted(set(names))
    taken = set(columns.values())
    by_alias: dict[str, list[str]] = {}
    for name in present:
        if name not in taken:
            by_alias.setdefault(squeezed(name), []).append(name)
    roles: dict[str, list[str]] = {}
    for role, aliases in ALIASES.items():
        if role in columns:
            found = [columns[role]] if columns[role] in present else []
        else:
            found = [name for alias in aliases for name in by_alias.get(alias, ())]
        if found:
            roles[role] = found
    return roles
