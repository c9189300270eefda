"""Bare edge lists: `src dst ts`, or `src dst weight ts`, separated by white space, tabs, commas or semicolons.

Lines that begin with `#` or `%` are comments. There is no quoting; a name holds no separator.
"""

import re
from collections.abc import Mapping

from stream.decoders.base import BadRecord, LineDecoder, RawColumns, split_lines

_SPACE = re.compile(r"[ \t\r\v\f]+")
# str.split() also cuts at these, which are control characters of a name and no separators.
_ODD_SPACE = ("\x1c", "\x1d", "\x1e", "\x1f")


class EdgeListDecoder(LineDecoder):
    """Decodes an edge list.

    Args:
        label: the file, as errors name it.
        separator: between the columns; "" is any run of white space.
        layout: role to column, counted from 0.
        width: how many columns each line has.
        skip_lines: lines at the start of the file that are no records.
        first_line: number of the first line that will be fed.
    """

    def __init__(
        self,
        label: str,
        *,
        separator: str,
        layout: Mapping[str, int],
        width: int,
        skip_lines: int = 0,
        first_line: int = 1,
    ) -> None:
        super().__init__(label, skip_lines=skip_lines, first_line=first_line)
        self._separator = separator
        self._layout = dict(layout)
        self._width = width

    def decode(self, text: str, first_line: int, *, final: bool) -> tuple[RawColumns, str]:
        """Decode whole lines; an edge list has no records of several lines, so nothing stays over."""
        del final
        lines = split_lines(text)
        rows = split_columns(lines, self._separator)
        numbers: range | list[int] = range(first_line, first_line + len(lines))
        bad: list[BadRecord] = []
        width = self._width
        if "#" in text or "%" in text or set(map(len, rows)) != {width}:
            kept: list[int] = []
            for index, row in enumerate(rows):
                if len(row) == width and not is_comment(lines[index]):
                    kept.append(index)
                elif lines[index].strip() and not is_comment(lines[index]):
                    reason = f"{len(row)} columns instead of {width}"
                    bad.append(BadRecord(first_line + index, lines[index], reason))
            lines = [lines[index] for index in kept]
            rows = [rows[index] for index in kept]
            numbers = [first_line + index for index in kept]
        columns = list(zip(*rows, strict=True)) or [()] * width
        raw = RawColumns(
            lines=numbers,
            columns={role: columns[index] for role, index in self._layout.items()},
            text=lines.__getitem__,
            bad=bad,
        )
        return raw, ""


def split_columns(lines: list[str], separator: str) -> list[list[str]]:
    """Return the columns of each line; "" stands for any run of white space."""
    if separator:
        return [line.split(separator) for line in lines]
    plain = "".join(lines)
    if plain.isascii() and not any(char in plain for char in _ODD_SPACE):
        return list(map(str.split, lines))
    return [[part for part in _SPACE.split(line) if part] for line in lines]


def is_comment(line: str) -> bool:
    """Tell whether a line of an edge list is a comment."""
    return line.lstrip()[:1] in ("#", "%")
