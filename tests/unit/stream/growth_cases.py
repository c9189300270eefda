"""Files that grow, and runs of them into a store."""

import gzip
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from stream.decoders.builder import DecodeOptions
from stream.ingest import IngestOptions, ingest
from stream.progress import IngestResult
from stream.sources.files import FileSource
from tests.unit.stream.ingest_cases import dying, query, snapshot_rows

HOUR = 3600


def lines_of(*hours: float) -> str:
    return "".join(f"n{int(hour) % 5} n{int(hour) % 3} {1_600_000_000 + int(hour * HOUR)}\n" for hour in hours)


def event_line(src: str, dst: str, hour: float, graph: str = "") -> str:
    """Return an event as JSON; its type is called as its graph."""
    event: dict[str, object] = {"src": src, "dst": dst, "ts": 1_600_000_000 + int(hour * HOUR)}
    return json.dumps(event | ({"graph": graph, "type": graph} if graph else {}))


def add(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def zipped(*texts: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, text in enumerate(texts):
            archive.writestr(f"part-{number}", text)
    return file.getvalue()


def gzipped(*texts: str) -> bytes:
    return b"".join(gzip.compress(text.encode()) for text in texts)


def zstd(*texts: str) -> bytes:
    return b"".join(zstandard.ZstdCompressor().compress(text.encode()) for text in texts)


def values_of(*hours: float) -> list[dict[str, object]]:
    return [
        {"src": f"n{int(hour) % 5}", "dst": f"n{int(hour) % 3}", "ts": 1_600_000_000 + int(hour * HOUR)}
        for hour in hours
    ]


# How a log is written anew with more events.
KINDS: dict[str, Callable[..., bytes | str]] = {
    "lines": lines_of,
    "gz": lambda *hours: gzipped(lines_of(*hours)),
    "gz-members": lambda *hours: gzipped(*(lines_of(hour) for hour in hours)),
    "zst": lambda *hours: zstd(lines_of(*hours)),
    "zst-frames": lambda *hours: zstd(*(lines_of(hour) for hour in hours)),
    "zip": lambda *hours: zipped(lines_of(*hours)),
    "zip-members": lambda *hours: zipped(*(lines_of(hour) for hour in hours)),
    "json": lambda *hours: json.dumps(values_of(*hours)),
    "json-pretty": lambda *hours: "\ufeff" + json.dumps(values_of(*hours), indent=2) + "\n",
    "json-documents": lambda *hours: "\n".join(json.dumps(value, indent=1) for value in values_of(*hours)),
    "json-arrays": lambda *hours: "\n".join(json.dumps(values_of(hour)) for hour in hours),
    "json-gz": lambda *hours: gzipped(json.dumps(values_of(*hours))),
}
BACKFILL = pytest.mark.parametrize("flags", [{}, {"backfill": True}], ids=["plain", "backfill"])


class Runs:
    """Runs of files into one store."""

    def __init__(
        self, folder: Path, name: str = "store.db", options: DecodeOptions | None = None, block_bytes: int = 1 << 20
    ) -> None:
        self.store = folder / name
        self._options = options
        self._block_bytes = block_bytes

    def run(self, path: Path, *, kill_after: int | None = None, batch_rows: int = 2, **flags: bool) -> IngestResult:
        source = FileSource(
            path,
            self._options,
            batch_rows=batch_rows,
            block_bytes=self._block_bytes,
            may_be_late=flags.get("backfill", False),
        )
        options = IngestOptions(**flags)  # type: ignore[arg-type]
        return ingest(source, f"sqlite:///{self.store}", options, dying(kill_after))

    def snapshots(self) -> list[tuple[object, ...]]:
        """Return all snapshots without their revisions, which tell how they came about."""
        return [(*row[:2], *row[3:]) for row in snapshot_rows(self.store)]

    def events(self) -> int:
        return int(str(query(self.store, "SELECT sum(events) FROM graphs")[0][0]))
