"""What a decoder must know about a log before its first record."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from stream.decoders.base import Decoder
from stream.decoders.delimited import DelimitedDecoder
from stream.decoders.edgelist import EdgeListDecoder
from stream.decoders.ndjson import JsonDecoder, NdjsonDecoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """The format of one log with its particulars.

    Attributes:
        format: `ndjson`, `json`, `delimited` or `edgelist`.
        columns: role to key as the caller gave it (JSON).
        delimiter: between columns; "" is white space.
        layout: role to column, counted from 0.
        width: how many columns a record has.
        ragged: records may have more.
        skip_lines: lines before the first record.
        bipartite_hint: the header speaks of users and items.
        summary: the dialect in words.
    """

    format: str
    columns: Mapping[str, str] = field(default_factory=dict)
    delimiter: str = ""
    layout: Mapping[str, int] = field(default_factory=dict)
    width: int = 0
    ragged: bool = False
    skip_lines: int = 0
    bipartite_hint: bool = False
    summary: str = ""

    def decoder(self, label: str, *, first_line: int = 1, in_array: bool | None = None) -> Decoder:
        """Return a new decoder that starts at line `first_line` of the log; `in_array` is for JSON documents alone."""
        if self.format == "json":
            return JsonDecoder(label, columns=self.columns, first_line=first_line, in_array=in_array)
        if self.format == "ndjson":
            return NdjsonDecoder(label, columns=self.columns, first_line=first_line)
        if self.format == "delimited":
            return DelimitedDecoder(
                label,
                delimiter=self.delimiter,
                layout=self.layout,
                width=self.width,
                ragged=self.ragged,
                skip_lines=self.skip_lines,
                first_line=first_line,
            )
        return EdgeListDecoder(
            label,
            separator=self.delimiter,
            layout=self.layout,
            width=self.width,
            skip_lines=self.skip_lines,
            first_line=first_line,
        )

    def to_json(self) -> str:
        """Return the dialect as text, for a resume point."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str) -> "Dialect":
        """Return the dialect that `to_json` wrote.

        Raises:
            ValueError: the text is no dialect.
        """
        return msgspec.json.decode(text, type=cls)
