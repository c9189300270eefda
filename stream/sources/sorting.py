"""Events in order of time, stable, however many there are: sorted runs on disk, merged by rank."""

import mmap
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from stream.events import EventBatch, IntArray, Interner
from stream.sources.kept import KeptLines, KeptRecords, temporary_disk

# Codes fit 32 bits: an interner of two billion names does not fit into memory. `id` is a place in the id file.
ROW = np.dtype(
    [
        ("graph", "<i4"),
        ("type", "<i4"),
        ("src", "<i4"),
        ("dst", "<i4"),
        ("ts_us", "<i8"),
        ("weight", "<f8"),
        ("id", "<i8"),
    ]
)
# `line` is a place among the kept lines.
ROW_WITH_LINE = np.dtype([*ROW.descr, ("line", "<i8")])
Rows = npt.NDArray[Any]

_NO_ID = -1
_LENGTH_BYTES = 2


class TimeSorter:
    """Takes events in any order and gives them back by time; equal times keep the order in which they came.

    More than `max_rows` are kept as sorted runs in temporary files, so that memory stays at about two such runs.
    Use it as a context manager: it removes the files.

    Args:
        interner: of all batches.
        max_rows: rows held in memory at once.
        folder: where temporary files go; None for the system's.
        keep_lines: also keep the line of each event, in a file.
    """

    def __init__(
        self, interner: Interner, *, max_rows: int, folder: Path | None = None, keep_lines: bool = False
    ) -> None:
        self._interner = interner
        self._lines = KeptRecords(folder) if keep_lines else None
        self._dtype = ROW_WITH_LINE if keep_lines else ROW
        self._max_rows = max_rows
        self._folder = folder
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._held: list[Rows] = []
        self._held_rows = 0
        self._runs: list[Rows] = []
        self._ids: IdFile | None = None
        self.rows = 0

    def add(self, batch: EventBatch) -> None:
        """Take the events of a batch.

        Raises:
            InputError: there is no room for temporary files.
        """
        rows = np.empty(len(batch), dtype=self._dtype)
        for name in ("graph", "type", "src", "dst", "ts_us", "weight"):
            rows[name] = getattr(batch, name)
        rows["id"] = _NO_ID
        with temporary_disk(self._folder):
            if batch.ids is not None:
                self._ids = self._ids or IdFile(self._path() / "ids")
                rows["id"] = self._ids.add(batch.ids)
            if self._lines is not None:
                assert batch.lines is not None
                rows["line"] = self._lines.add([batch.lines.record(row) for row in range(len(batch))])
            self.rows += len(rows)
            at = 0
            while at < len(rows):
                part = rows[at : at + self._max_rows - self._held_rows]
                self._held.append(part)
                self._held_rows += len(part)
                at += len(part)
                if self._held_rows >= self._max_rows:
                    self._spill()

    def finish(self) -> None:
        """Sort what is still held; no event comes after this."""
        if self._held:
            self._runs.append(self._sorted())

    def slice(self, begin: int, end: int) -> EventBatch:
        """Return the events of rank `begin` (inclusive) to `end` (exclusive) in order of time."""
        first, last = self._cuts(begin), self._cuts(end)
        parts = [run[low:high] for run, low, high in zip(self._runs, first, last, strict=True) if low < high]
        rows = np.concatenate(parts) if parts else np.empty(0, dtype=self._dtype)
        if len(parts) > 1:
            rows = rows[np.argsort(rows["ts_us"], kind="stable")]
        return EventBatch(
            interner=self._interner,
            graph=rows["graph"].astype(np.int64),
            type=rows["type"].astype(np.int64),
            src=rows["src"].astype(np.int64),
            dst=rows["dst"].astype(np.int64),
            ts_us=rows["ts_us"].astype(np.int64),
            weight=rows["weight"].astype(np.float64),
            ids=None if self._ids is None else self._ids.get(rows["id"].astype(np.int64)),
            lines=None if self._lines is None else KeptLines(self._lines, rows["line"].astype(np.int64)),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runs.clear()
        self._held.clear()
        if self._ids is not None:
            self._ids.close()
        if self._lines is not None:
            self._lines.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    def _cuts(self, rank: int) -> list[int]:
        """Return how many rows of each run are among the first `rank` rows of the whole order.

        Bisection for the time of that rank; among equal times the runs come one after another.
        """
        if rank >= self.rows:
            return [len(run) for run in self._runs]
        if len(self._runs) == 1:
            return [rank]
        times = [run["ts_us"] for run in self._runs]
        low = min(int(ts_us[0]) for ts_us in times)
        high = max(int(ts_us[-1]) for ts_us in times)
        while low < high:
            middle = (low + high) // 2
            if sum(_count(ts_us, middle, "right") for ts_us in times) > rank:
                high = middle
            else:
                low = middle + 1
        cuts = [_count(ts_us, low, "left") for ts_us in times]
        missing = rank - sum(cuts)
        for at, ts_us in enumerate(times):
            taken = min(missing, _count(ts_us, low, "right") - cuts[at])
            cuts[at] += taken
            missing -= taken
        return cuts

    def _sorted(self) -> Rows:
        rows = np.concatenate(self._held) if len(self._held) > 1 else self._held[0]
        self._held.clear()
        self._held_rows = 0
        order: IntArray = np.argsort(rows["ts_us"], kind="stable")
        return rows[order]

    def _spill(self) -> None:
        path = self._path() / f"run{len(self._runs)}.npy"
        np.save(path, self._sorted())
        self._runs.append(np.load(path, mmap_mode="r"))

    def _path(self) -> Path:
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="graphtide-sort-", dir=self._folder)
        return Path(self._temporary.name)


class IdFile:
    """Event ids in a file, each found by its place; ids do not repeat, so to hold them in memory is of no use."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b")
        self._bytes = 0
        self._view: mmap.mmap | None = None

    def add(self, ids: list[str | None]) -> IntArray:
        """Write ids [n]; return their places [n], -1 for none."""
        places = np.full(len(ids), _NO_ID, dtype=np.int64)
        data = bytearray()
        for row, text in enumerate(ids):
            if text is not None:
                encoded = text.encode()
                places[row] = self._bytes + len(data)
                data += len(encoded).to_bytes(_LENGTH_BYTES, "little") + encoded
        self._file.write(data)
        self._bytes += len(data)
        return places

    def get(self, places: IntArray) -> list[str | None]:
        """Return the ids at `places` [n]; nothing can be added from now on."""
        if self._view is None and self._bytes:
            self._file.flush()
            self._view = mmap.mmap(self._file.fileno(), self._bytes, access=mmap.ACCESS_READ)
        ids: list[str | None] = []
        for place in places.tolist():
            if place == _NO_ID or self._view is None:
                ids.append(None)
                continue
            begin = place + _LENGTH_BYTES
            length = int.from_bytes(self._view[place:begin], "little")
            ids.append(self._view[begin : begin + length].decode())
        return ids

    def close(self) -> None:
        """Let go of the file."""
        if self._view is not None:
            self._view.close()
        self._file.close()


def _count(ts_us: npt.NDArray[Any], time_us: int, side: Literal["left", "right"]) -> int:
    return int(np.searchsorted(ts_us, time_us, side=side))
