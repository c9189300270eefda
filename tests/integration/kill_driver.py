"""Ingests in processes that can be killed: forked from one that has imported everything, so that each starts at once.

Reads a store's path a line, answers `pid N`, `reading` (before the first batch) and `exit N`.
Run: python kill_driver.py LOG
"""

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from stream.ingest import IngestOptions, ingest
from stream.sources.base import Position, SourceBatch
from stream.sources.files import FileSource

BATCH_ROWS = 25


class TellingSource(FileSource):
    """A log in small batches that calls `on_reading` before the first of them."""

    def __init__(self, path: Path, on_reading: Callable[[], None]) -> None:
        super().__init__(path, batch_rows=BATCH_ROWS)
        self._on_reading = on_reading

    def batches(self, resume_after: Position | None) -> Iterator[SourceBatch]:
        for number, batch in enumerate(super().batches(resume_after)):
            if number == 0:
                self._on_reading()
            yield batch


def ingest_log(log: Path, store: Path, on_reading: Callable[[], None] = lambda: None) -> None:
    """Ingest `log` into `store`, its graphs and their types."""
    ingest(TellingSource(log, on_reading), f"sqlite:///{store}", IngestOptions(split_by_type=True))


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def serve(log: Path) -> None:
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                ingest_log(log, Path(line.strip()), lambda: say("reading"))
            except BaseException:  # noqa: BLE001 - told by the exit status, as the process ends here
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        say(f"pid {pid}")
        _, status = os.waitpid(pid, 0)
        say(f"exit {os.waitstatus_to_exitcode(status)}")


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
