"""Tables, with a header as a rule: comma, tab, semicolon or bar separated, quoted as RFC 4180 has it."""

import csv
from collections.abc import Iterator, Mapping
from itertools import islice

import numpy as np

from stream.decoders.base import BadRecord, LazyLines, LineDecoder, RawColumns, split_lines
from stream.decoders.times import is_time

# A quote that holds so many lines that are records by themselves was never closed: no text has that many lines with the
# right number of fields, and a time among them, by chance. Else it would hold back all of a file that grows.
_RECORDS_IN_QUOTE = 10
_UNCLOSED = "broken quoting: the quote is not closed"


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
                    if self._swallowed(lines[start + 1 : end - 1]):
                        break
                    numbers.append(first_line + start)
                    records.append(_without_end("".join(lines[start:end])))
                    rows.append(row)
                    start = end
                if start == len(lines):
                    break
                reason = _UNCLOSED
            except csv.Error as error:
                at_end = "unexpected end of data" in str(error)
                # The line in which the reader fails is no longer wholly inside the quote, unless it is the last.
                swallowed = self._swallowed(lines[start + 1 : at + reader.line_num - (not at_end)])
                if at_end and not (swallowed or final):
                    return numbers, records, rows, bad, "".join(lines[start:])
                reason = _UNCLOSED if at_end or swallowed else f"broken quoting: {error}"
            bad.append(BadRecord(first_line + start, _without_end(lines[start]), reason))
            at = start + 1
        return numbers, records, rows, bad, ""

    def _swallowed(self, quoted: list[str]) -> bool:
        """Tell whether lines inside a quote are records of the log, which some quote before them swallowed.

        It is told from whole lines alone and not from what comes behind them, so that it does not matter where the log
        is cut.
        """
        if len(quoted) < _RECORDS_IN_QUOTE:
            return False
        found = (True for line in quoted if self._is_record(line))
        return sum(islice(found, _RECORDS_IN_QUOTE)) == _RECORDS_IN_QUOTE

    def _is_record(self, line: str) -> bool:
        try:
            row = next(csv.reader([line], delimiter=self._delimiter, skipinitialspace=True, strict=True), [])
        except csv.Error:
            return False
        fits = len(row) == self._width or (len(row) > self._width and self._ragged)
        return fits and is_time(row[self._layout["ts"]].strip())


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
