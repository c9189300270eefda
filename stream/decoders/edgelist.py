"""Bare edge lists: `src dst ts`, or `src dst weight ts`, separated by white space, tabs, commas or semicolons.

Lines that begin with `#` or `%` are comments. There is no quoting; a name holds no separator.
"""

import re
from collections.abc import Mapping

import numpy as np

from stream.decoders.base import BadRecord, LazyLines, LineDecoder, RawColumns, split_lines

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
        width = self._width
        tokens = [] if self._separator else _tokens(text, width)
        if tokens:
            raw = RawColumns(
                lines=range(first_line, first_line + len(tokens) // width),
                columns={role: tokens[index::width] for role, index in self._layout.items()},
                text=LazyLines(text).__getitem__,
            )
            return raw, ""
        lines = split_lines(text)
        rows = split_columns(lines, self._separator)
        bad: list[BadRecord] = []
        kept: list[int] = []
        for index, row in enumerate(rows):
            if is_comment(lines[index]) or not lines[index].strip():
                continue
            if len(row) == width:
                kept.append(index)
            else:
                bad.append(BadRecord(first_line + index, lines[index], f"{len(row)} columns instead of {width}"))
        lines = [lines[index] for index in kept]
        columns = list(zip(*(rows[index] for index in kept), strict=True)) or [()] * width
        raw = RawColumns(
            lines=[first_line + index for index in kept],
            columns={role: columns[index] for role, index in self._layout.items()},
            text=lines.__getitem__,
            bad=bad,
        )
        return raw, ""


def _tokens(text: str, width: int) -> list[str]:
    """Return the tokens of a block, row after row, if every line has `width` of them and none is a comment; else []."""
    if not text.isascii() or "#" in text or "%" in text or any(char in text for char in _ODD_SPACE):
        return []
    data = np.frombuffer(text.encode("ascii"), dtype=np.uint8)
    blank = data <= 32
    begins = np.flatnonzero(blank[:-1] > blank[1:]) + 1
    if len(data) and not blank[0]:
        begins = np.concatenate([[0], begins])
    ends_of_line = np.flatnonzero(data == 10)
    rows = len(begins) // width
    if len(begins) != rows * width or rows - len(ends_of_line) not in (0, 1):
        return []
    if (begins[width::width] < ends_of_line[: rows - 1]).any() or (
        begins[width - 1 :: width][: len(ends_of_line)] > ends_of_line
    ).any():
        return []
    tokens = text.split()
    # Another control character counts as blank above, and does not separate here.
    return tokens if len(tokens) == len(begins) else []


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
