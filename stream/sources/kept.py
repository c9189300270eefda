"""Whole records in a temporary file, each found by its place: all bad lines of a log would not fit into memory."""

import tempfile
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import msgspec

from infra.errors import InputError
from stream.decoders.records.base import Record
from stream.events import IntArray, Reject
from stream.lines import line_reject

_LENGTH_BYTES = 4
_RECORD = msgspec.msgpack.Decoder(Record)
_BAD = msgspec.msgpack.Decoder(tuple[Record, str, str])


@contextmanager
def temporary_disk(folder: Path | None) -> Iterator[None]:
    """Turn what the system refuses of temporary files in a folder (None: its own) into an InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"no room to sort the events on disk: {error.strerror or error}",
            place=str(folder or tempfile.gettempdir()),
            fix="free some space there, or set TMPDIR to a folder that has it",
        ) from None


class KeptRecords:
    """Records of a file, written one after another.

    Args:
        folder: where the temporary file goes; None for the system's.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._bytes = 0

    def add(self, records: Sequence[object]) -> list[int]:
        """Write values that msgpack takes; return their places.

        Raises:
            InputError: there is no room for the temporary file.
        """
        places: list[int] = []
        data = bytearray()
        for record in records:
            encoded = msgspec.msgpack.encode(record)
            places.append(self._bytes + len(data))
            data += len(encoded).to_bytes(_LENGTH_BYTES, "little") + encoded
        with temporary_disk(self._folder):
            if self._file is None:
                # Closed by `close`, which `__exit__` calls.
                self._file = tempfile.TemporaryFile(prefix="graphtide-lines-", dir=self._folder)  # noqa: SIM115
            self._file.seek(self._bytes)
            self._file.write(data)
            self._file.flush()
        self._bytes += len(data)
        return places

    def get(self, place: int) -> bytes:
        """Return what stands at a place, encoded."""
        assert self._file is not None
        self._file.seek(place)
        return self._file.read(int.from_bytes(self._file.read(_LENGTH_BYTES), "little"))

    def close(self) -> None:
        """Remove the file."""
        if self._file is not None:
            # What there is no room for `add` has told; to close it tries once more.
            with suppress(OSError):
                self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class KeptLines:
    """The lines of events; see `stream.lines.Lines`.

    Args:
        records: where they are.
        places: [n] by row.
    """

    def __init__(self, records: KeptRecords, places: IntArray) -> None:
        self._records = records
        self._places = places

    def record(self, row: int) -> Record:
        """Return the whole record of an event."""
        return _RECORD.decode(self._records.get(int(self._places[row])))


class KeptRejects(KeptRecords):
    """All bad lines of a log with their reasons, in the order in which they came."""

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__(folder)
        self._places = array("q")

    def __len__(self) -> int:
        return len(self._places)

    def extend(self, rejects: Sequence[Reject]) -> None:
        """Add rejects that have their whole record."""
        if rejects:
            self._places.extend(self.add([(each.record_of, each.reason, each.stage) for each in rejects]))

    def slice(self, begin: int, end: int) -> list[Reject]:
        """Return those from number `begin` (inclusive) to `end` (exclusive)."""
        return [line_reject(*_BAD.decode(self.get(place))) for place in self._places[begin:end]]
