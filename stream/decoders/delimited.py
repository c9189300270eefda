"""Tables, with a header as a rule: comma, tab, semicolon or bar separated, quoted as RFC 4180 has it."""

import csv
from collections.abc import Iterator, Mapping

import numpy as np

from stream.decoders.base import BadRecord, LazyLines, LineDecoder, RawColumns, split_lines


class DelimitedDecoder(LineDecoder):
    """Decodes the records of a table.

    Args:
        label: the file, as errors name it.
        delimiter: one character.
        layout: role to column, counted from 0.
        width: how many columns a record has.
        ragged: records may have more columns than the header (its last one is a list); else they are rejected, since
            a name with an unquoted delimiter would move the columns behind it.
        skip_lines: lines before the first record.
        first_line: number of the first line that will be fed.
    """

    def __init__(
        self,
        label: str,
        *,
        delimiter: str,
        layout: Mapping[str, int],
        width: int,
        ragged: bool = False,
        skip_lines: int = 1,
        first_line: int = 1,
    ) -> None:
        super().__init__(label, skip_lines=skip_lines, first_line=first_line)
        self._delimiter = delimiter
        self._layout = dict(layout)
        self._width = width
        self._ragged = ragged

    def decode(self, text: str, first_line: int, *, final: bool) -> tuple[RawColumns, str]:
        """Decode whole lines; the tail that is not complete is a record with an open quote."""
        width = self._width
        fields = _fields(text, self._delimiter, width)
        if fields:
            raw = RawColumns(
                lines=range(first_line, first_line + len(fields) // width),
                columns={role: fields[index::width] for role, index in self._layout.items()},
                text=LazyLines(text).__getitem__,
            )
            return raw, ""
        rest = ""
        bad: list[BadRecord] = []
        try:
            records = split_lines(text)
            numbers = list(range(first_line, first_line + len(records)))
            rows = list(csv.reader([] if '"' in text else records, delimiter=self._delimiter, skipinitialspace=True))
            by_line = '"' not in text
        except csv.Error:
            by_line = False
        if not by_line:
            numbers, records, rows, bad, rest = self._quoted(text, first_line, final=final)
        if set(map(len, rows)) != {width}:
            kept: list[int] = []
            for index, row in enumerate(rows):
                if len(row) == width or (len(row) > width and self._ragged):
                    kept.append(index)
                elif records[index].strip():
                    reason = f"{len(row)} columns instead of {width}"
                    bad.append(BadRecord(numbers[index], records[index], reason))
            numbers = [numbers[index] for index in kept]
            records = [records[index] for index in kept]
            rows = [rows[index][:width] for index in kept]
        columns = list(zip(*rows, strict=True)) or [()] * width
        raw = RawColumns(
            lines=numbers,
            columns={role: columns[index] for role, index in self._layout.items()},
            text=records.__getitem__,
            bad=bad,
        )
        return raw, rest

    def _quoted(
        self, text: str, first_line: int, *, final: bool
    ) -> tuple[list[int], list[str], list[list[str]], list[BadRecord], str]:
        """Read records one by one, as quotes may hold line ends; a broken one costs its first line only."""
        lines = [line + "\n" for line in text.split("\n")]
        lines[-1] = lines[-1][:-1]
        if not lines[-1]:
            lines.pop()
        numbers: list[int] = []
        records: list[str] = []
        rows: list[list[str]] = []
        bad: list[BadRecord] = []
        at = 0
        while at < len(lines):
            # Line numbers of a reader count from where it began; `start` is where the present record began.
            reader = csv.reader(_from(lines, at), delimiter=self._delimiter, skipinitialspace=True, strict=True)
            start = at
            try:
                for row in reader:
                    end = at + reader.line_num
                    numbers.append(first_line + start)
                    records.append(_without_end("".join(lines[start:end])))
                    rows.append(row)
                    start = end
                break
            except csv.Error as error:
                if "unexpected end of data" in str(error) and not final:
                    return numbers, records, rows, bad, "".join(lines[start:])
                bad.append(BadRecord(first_line + start, _without_end(lines[start]), f"broken quoting: {error}"))
                at = start + 1
        return numbers, records, rows, bad, ""


def _fields(text: str, delimiter: str, width: int) -> list[str]:
    """Return the fields of a block, row after row, if it holds no quote and every line has `width` fields; else []."""
    text = text.replace("\r\n", "\n")
    if '"' in text or "\r" in text:
        return []
    if not text.endswith("\n"):
        text += "\n"
    data = np.frombuffer(text.encode("utf-8", "surrogateescape"), dtype=np.uint8)
    line_ends = np.flatnonzero(data == 10)
    # The csv module refuses longer fields, so that a line of them must reach it.
    if np.diff(line_ends, prepend=-1).max() > csv.field_size_limit():
        return []
    separators = data[(data == ord(delimiter)) | (data == 10)]
    if len(separators) != width * len(line_ends) or (separators[width - 1 :: width] != 10).any():
        return []
    return text[:-1].replace("\n", delimiter).split(delimiter)


def _from(lines: list[str], at: int) -> Iterator[str]:
    return (lines[index] for index in range(at, len(lines)))


def _without_end(record: str) -> str:
    return record.removesuffix("\n").removesuffix("\r")
