"""Which columns a table or an edge list has, told from its first lines."""

import csv
import re
from collections.abc import Mapping, Sequence

from infra.errors import InputError, UsageError
from stream.decoders.base import BIPARTITE_HINTS, REQUIRED_ROLES, fields_of_roles, squeezed
from stream.decoders.dialect import Dialect
from stream.decoders.edgelist import is_comment, split_columns
from stream.decoders.times import is_time, parse_number
from stream.events import shown

_DELIMITERS = (",", "\t", ";", "|")
# Of an edge list: with commas white space is no separator, while a tab is white space as a rule.
_GUESS_ORDER = (",", "", "\t", ";", "|")
_SEPARATOR_WORDS = {"": "white space", ",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
_DELIMITERS_OF = {"csv": (",", ";", "|"), "tsv": ("\t",), "edgelist": ("",), "auto": (*_DELIMITERS, "")}
_EDGE_ROLES: dict[int, tuple[str, ...]] = {3: ("src", "dst", "ts"), 4: ("src", "dst", "weight", "ts")}
_CLOCK = re.compile(r"\d{1,2}:\d\d")
# How many records may be bad before the first good one.
_LINES_TRIED = 20
# Of a header that lacks a column, as an error lists it: enough for a table as people keep them.
_LISTED_CHARS = 1000
# Unix seconds since 1973: a weight before a time is hardly as large, a time behind one hardly smaller.
_UNIX_SECONDS = 10**8


def table_dialect(
    lines: Sequence[str], *, label: str, wanted: str, columns: Mapping[str, str], whole: bool
) -> Dialect | None:
    """Return the dialect of a table or an edge list.

    Args:
        lines: the first lines of the log, without their ends, all complete.
        label: the file, as errors name it.
        wanted: `auto`, `csv`, `tsv` or `edgelist`.
        columns: role to column name or number, as the caller gave it.
        whole: there are no more lines.

    Returns:
        The dialect; None if the lines do not tell it and there are more to come.

    Raises:
        InputError: a column is missing, or the format cannot be told.
        UsageError: the columns are wrong.
    """
    records = [at for at, line in enumerate(lines) if line.strip() and not is_comment(line)]
    if not records:
        if whole:
            raise InputError(f"{label} holds no record", fix="give a file with events")
        return None
    first = records[0]
    if columns and all(name.isdigit() for name in columns.values()) and wanted in ("auto", "edgelist"):
        return _numbered(lines[first], first, label, columns)
    names_by_delimiter = {delimiter: _names(lines[first], delimiter) for delimiter in _DELIMITERS_OF[wanted]}
    for delimiter, names in names_by_delimiter.items():
        roles = fields_of_roles(names, columns)
        if set(columns) | set(REQUIRED_ROLES) <= set(roles):
            if len(records) == 1 and not whole:
                return None  # the first record tells whether records may be longer than the header
            following = lines[records[1]] if len(records) > 1 else ""
            return _with_header(first, delimiter, names, roles, following)
    if wanted in ("auto", "edgelist") and not columns:
        # A first line without any number may be a header of unknown names. Then only times that are nothing else,
        # dates or large numbers, make an edge list of what stands below it.
        may_be_header = wanted == "auto" and not _has_number(lines[first])
        for at in records[:_LINES_TRIED]:
            dialect = _edge(lines[at], first, f"{label}:{at + 1}")
            if dialect is not None and not (
                may_be_header and not _large(_names(lines[at], dialect.delimiter)[dialect.layout["ts"]])
            ):
                return dialect
        if len(records) < _LINES_TRIED and not whole:
            return None
    raise _untold(lines[first], f"{label}:{first + 1}", label, names_by_delimiter, columns)


def _with_header(
    first: int, delimiter: str, names: list[str], roles: Mapping[str, list[str]], following: str
) -> Dialect:
    layout = {role: names.index(found[0]) for role, found in roles.items()}
    used = ", ".join(f"{role} = {names[at]}" for role, at in layout.items())
    ignored = [name for at, name in enumerate(names) if at not in layout.values()]
    summary = f"table with a header, separated by {_SEPARATOR_WORDS[delimiter]}: {used}"
    if ignored:
        summary += f"; ignored: {', '.join(ignored[:8])}{', …' if len(ignored) > 8 else ''}"
    return Dialect(
        format="delimited" if delimiter else "edgelist",
        delimiter=delimiter,
        layout=layout,
        width=len(names),
        ragged=bool(delimiter) and len(_names(following, delimiter)) > len(names),
        skip_lines=first + 1,
        bipartite_hint=squeezed(names[layout["dst"]]) in BIPARTITE_HINTS,
        summary=summary,
    )


def _numbered(line: str, first: int, label: str, columns: Mapping[str, str]) -> Dialect:
    layout = {role: int(name) - 1 for role, name in columns.items()}
    missing = [role for role in REQUIRED_ROLES if role not in layout]
    if missing:
        raise UsageError(
            f"columns by number lack {', '.join(missing)}", fix="give all three, counted from 1: src=1,dst=2,ts=3"
        )
    by_delimiter = {delimiter: _names(line, delimiter) for delimiter in _GUESS_ORDER}
    last = max(layout.values())
    fitting = [(delimiter, names) for delimiter, names in by_delimiter.items() if len(names) > last]
    if not fitting or min(layout.values()) < 0:
        raise InputError(
            f"{label} has {max(map(len, by_delimiter.values()))} columns, not columns {', '.join(columns.values())}",
            place=f"{label}:{first + 1}",
            fix="give numbers of columns, counted from 1",
        )
    delimiter, names = next((each for each in fitting if is_time(each[1][layout["ts"]])), fitting[0])
    return _without_header(delimiter, layout, len(names), first)


def _edge(line: str, first: int, place: str) -> Dialect | None:
    for delimiter in _GUESS_ORDER:
        parts = _names(line, delimiter)
        roles = _EDGE_ROLES.get(len(parts))
        if roles is None:
            continue
        if is_time(parts[-1]):
            if len(parts) == 4 and _large(parts[2]) and not _large(parts[3]):
                raise InputError(
                    "an edge list of four columns whose third looks like the time; `src dst weight ts` was expected",
                    place=place,
                    fix="say what the columns are, counted from 1: --columns src=1,dst=2,ts=3,weight=4",
                )
            return _without_header(delimiter, {role: at for at, role in enumerate(roles)}, len(parts), first)
        if len(parts) == 4 and is_time(parts[2]) and not _CLOCK.match(parts[3]):
            return _without_header(delimiter, {"src": 0, "dst": 1, "ts": 2, "type": 3}, 4, first)
    return None


def _without_header(delimiter: str, layout: Mapping[str, int], width: int, first: int) -> Dialect:
    order = " ".join(role for role, _ in sorted(layout.items(), key=lambda item: item[1]))
    return Dialect(
        format="delimited" if delimiter in (",", ";", "|") else "edgelist",
        delimiter=delimiter,
        layout=layout,
        width=width,
        skip_lines=first,
        summary=f"edge list, separated by {_SEPARATOR_WORDS[delimiter]}: {order}",
    )


def _untold(
    line: str, place: str, label: str, names_by_delimiter: Mapping[str, list[str]], columns: Mapping[str, str]
) -> InputError:
    names = max(names_by_delimiter.values(), key=lambda names: (len(fields_of_roles(names, columns)), len(names)))
    found = fields_of_roles(names, columns)
    how = "name them: --columns src=NAME,dst=NAME,ts=NAME; without a header by number, counted from 1: src=1,dst=2,ts=3"
    absent = [name for role, name in columns.items() if role not in found]
    if absent:
        listed = _listed(names) if len(names) > 1 else shown(line)
        return InputError(f"{label} has no column {', '.join(absent)}", place=place, fix=f"its first line is: {listed}")
    missing = [role for role in REQUIRED_ROLES if role not in found]
    if len(names) > 1 and (found or not _has_number(line)):
        return InputError(f"{label}: no column for {', '.join(missing)} among '{_listed(names)}'", place=place, fix=how)
    if len(names) == 2:
        return InputError(
            f"{label}: two columns, so there is no time", place=place, fix="give a log with `src dst ts` on each line"
        )
    return InputError(
        f"{label} is no log in a known format; it begins with {shown(line)}",
        place=place,
        fix=f"give JSON, NDJSON, a table with a header or an edge list (--format says which); if columns differ, {how}",
    )


def _listed(names: list[str]) -> str:
    """Return names of columns as one has to write them in `--columns`, cut where there are very many."""
    text = ", ".join(name if name.isprintable() else shown(name) for name in names)
    return text if len(text) <= _LISTED_CHARS else text[:_LISTED_CHARS] + "…"


def _names(line: str, delimiter: str) -> list[str]:
    if delimiter in ("", "\t"):
        return [name.strip() for name in split_columns([line], delimiter)[0]]
    try:
        return [name.strip() for name in next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])]
    except csv.Error:
        return []


def _has_number(line: str) -> bool:
    return any(parse_number(part) is not None for part in re.split(r"[\s,;|]+", line))


def _large(text: str) -> bool:
    number = parse_number(text)
    return number is None or number >= _UNIX_SECONDS
