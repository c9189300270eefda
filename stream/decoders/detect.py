"""Which format a log has, told from its first bytes; the caller can overrule it."""

from infra.errors import InputError, UsageError
from stream.decoders.base import check_columns
from stream.decoders.builder import DecodeOptions
from stream.decoders.dialect import Dialect
from stream.decoders.ndjson import parse_object
from stream.decoders.tables import table_dialect
from stream.decoders.times import UNIT_US

FORMATS = ("auto", "ndjson", "json", "csv", "tsv", "edgelist")
TIME_UNITS = ("auto", *UNIT_US)

_WORDS = {"ndjson": "NDJSON, one object a line", "json": "JSON documents"}


def check_options(options: DecodeOptions) -> None:
    """Check what can be checked without the log.

    Raises:
        UsageError: a format, a time unit, a column or the graph name is wrong.
    """
    if options.format not in FORMATS:
        fix = f"use one of {', '.join(FORMATS)}; formats of records and of [formats] are for ingest kafka"
        raise UsageError(f"unknown format {options.format!r} of a file", fix=fix)
    if options.time_unit not in TIME_UNITS:
        raise UsageError(f"unknown time unit {options.time_unit!r}", fix=f"use one of {', '.join(TIME_UNITS)}")
    check_columns(options.columns)
    try:
        options.rules.graph(options.graph)
    except ValueError as error:
        raise UsageError(str(error), fix="choose another name for --graph") from None


def detect(head: bytes, *, label: str, options: DecodeOptions, whole: bool) -> Dialect | None:
    """Return the dialect of a log.

    Args:
        head: its first bytes.
        label: the file, as errors name it.
        options: `format` and `columns` overrule the guess.
        whole: `head` is the whole log.

    Returns:
        The dialect; None if the head does not tell it and is not the whole log.

    Raises:
        InputError: this is no text log, a column is missing, or the format cannot be told.
        UsageError: the columns are wrong.
    """
    columns = check_columns(options.columns)
    _check_text(head, label)
    text = head.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    opening = text.lstrip()[:1]
    if not opening:
        if not whole:
            return None
        raise InputError(f"{label} {'holds no record' if head else 'is empty'}", fix="give a file with events")
    if options.format in ("json", "ndjson"):
        return Dialect(format=options.format, columns=columns, summary=_WORDS[options.format])
    if options.format == "auto" and opening in ("{", "["):
        kind = "json" if opening == "[" else _kind_of_objects(text, whole=whole)
        return None if kind is None else Dialect(format=kind, columns=columns, summary=_WORDS[kind])
    lines = text.split("\n")
    if not whole:
        lines.pop()  # perhaps cut
    lines = [line.removesuffix("\r") for line in lines]
    return table_dialect(lines, label=label, wanted=options.format, columns=columns, whole=whole)


def _check_text(head: bytes, label: str) -> None:
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(f"{label} is UTF-16 text", fix="convert it to UTF-8: iconv -f UTF-16 -t UTF-8")
    controls = len(head.translate(None, delete=bytes(range(32, 256)) + b"\t\n\r\v\f"))
    if b"\0" in head or controls > len(head) // 20:
        raise InputError(
            f"{label} is no text log: it holds binary data",
            fix="give JSON, NDJSON, CSV, TSV or an edge list, plain or compressed as gz, zst or zip",
        )


def _kind_of_objects(text: str, *, whole: bool) -> str | None:
    """Tell NDJSON from pretty-printed objects; in NDJSON with a broken first line some later line is an object."""
    first, newline, later = text.lstrip().partition("\n")
    if not newline and not whole:
        return None
    objects = (line for line in (first, *later.split("\n")) if line.startswith("{"))
    return "ndjson" if any(map(_is_object, objects)) else "json"


def _is_object(line: str) -> bool:
    try:
        parse_object(line)
    except ValueError:
        return False
    return True
