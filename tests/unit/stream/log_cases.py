"""Events as hypothesis draws them, and the formats and packings that they are written in."""

import bz2
import csv
import gzip
import io
import json
import string
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import zstandard
from hypothesis import strategies as st

from stream.events import Event
from stream.sources.base import SourceBatch

MAX_TS_US = 7_258_118_400_000_000

_letters = st.characters(exclude_categories=("C", "Z"))
# Inside a name spaces, quotes, separators and letters beyond the basic plane may stand.
names = st.builds(
    lambda first, middle, last: (first + middle + last)[:40].strip(),
    st.sampled_from(string.ascii_letters + string.digits + "-_é𝔘"),
    st.text(st.one_of(_letters, st.sampled_from(" \"',;|\\\u2028\xa0")), max_size=8),
    st.text(_letters, max_size=2),
).filter(lambda name: name not in {"src", "dst", "ts"})
words = st.builds(
    lambda first, rest: first + rest,
    st.sampled_from(string.ascii_letters + string.digits),
    st.text(_letters, max_size=6),
)
times_us = st.one_of(st.integers(0, MAX_TS_US), st.integers(0, 2_000_000_000).map(lambda s: s * 1_000_000))
weights = st.one_of(st.just(1.0), st.floats(allow_nan=False, allow_infinity=False))
graphs = st.sampled_from(["default", "a", "g0.x-y_z", "9" * 64])


@st.composite
def plain_events(draw: st.DrawFn) -> Event:
    """Draw an event that an edge list can hold."""
    return Event(src=draw(words), dst=draw(words), ts_us=draw(times_us), weight=draw(weights))


@st.composite
def full_events(draw: st.DrawFn) -> Event:
    """Draw an event with every field."""
    return Event(
        src=draw(names),
        dst=draw(names),
        ts_us=draw(times_us),
        graph=draw(graphs),
        type=draw(st.one_of(st.just(""), names)),
        weight=draw(weights),
        id=draw(st.one_of(st.none(), names)),
    )


def seconds(ts_us: int) -> str:
    """Return a time as seconds in decimal digits, exact."""
    whole, micros = divmod(ts_us, 1_000_000)
    return f"{whole}.{micros:06d}" if micros else str(whole)


def as_edges(events: Iterable[Event], separator: str = " ") -> bytes:
    lines = (separator.join((e.src, e.dst, repr(e.weight), seconds(e.ts_us))) for e in events)
    return "".join(f"{line}\n" for line in lines).encode()


def as_table(events: Iterable[Event], delimiter: str = ",", line_end: str = "\n") -> bytes:
    text = io.StringIO()
    table = csv.writer(text, delimiter=delimiter, lineterminator=line_end)
    table.writerow(("id", "time", "Source", "to", "weight", "type", "graph", "notes"))
    for e in events:
        table.writerow((e.id or "", seconds(e.ts_us), e.src, e.dst, repr(e.weight), e.type, e.graph, 'say "x,y"'))
    return text.getvalue().encode()


def _fields(e: Event) -> dict[str, object]:
    return {"src": e.src, "target": e.dst, "timestamp": seconds(e.ts_us), "weight": e.weight, "type": e.type,
            "graph": e.graph, "id": e.id, "meta": {"text": 'a "{[' + e.src, "list": [1, 2.5, None]}}  # fmt: skip


def as_ndjson(events: Iterable[Event]) -> bytes:
    return "".join(json.dumps(_fields(e)) + "\n" for e in events).encode()


def as_json_array(events: Iterable[Event]) -> bytes:
    return json.dumps([_fields(e) for e in events], ensure_ascii=False).encode()


def as_pretty_json(events: Iterable[Event]) -> bytes:
    return "\n".join(json.dumps(_fields(e), indent=2) for e in events).encode()


FULL_FORMATS: dict[str, Callable[[Iterable[Event]], bytes]] = {
    "csv": as_table,
    "csv-crlf": lambda events: as_table(events, line_end="\r\n"),
    "tsv": lambda events: as_table(events, "\t"),
    "semicolons": lambda events: as_table(events, ";"),
    "ndjson": as_ndjson,
    "json-array": as_json_array,
    "json-pretty": as_pretty_json,
}


def _zip(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner.log", data)
    return file.getvalue()


PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gz": gzip.compress,
    "gz-two-members": lambda data: gzip.compress(data[: len(data) // 2]) + gzip.compress(data[len(data) // 2 :]),
    "zst": zstandard.ZstdCompressor().compress,
    "zst-two-frames": lambda data: b"".join(
        zstandard.ZstdCompressor().compress(part) for part in (data[: len(data) // 2], data[len(data) // 2 :])
    ),
    "zip": _zip,
}
bzip2 = bz2.compress


def by_time(events: Iterable[Event]) -> list[Event]:
    """Return events as a bounded source hands them over: by time, equal times as they came."""
    return sorted(events, key=lambda event: event.ts_us)


def events_of(batches: Iterable[SourceBatch]) -> list[Event]:
    return [event for batch in batches for event in batch.events]


def write(folder: Path, name: str, data: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path
