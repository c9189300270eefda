"""One writing process a store: a lock on a file beside it, which is there while somebody writes."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from infra.errors import StoreError
from stream.store.sqlite_file import unusable


class WriterLock:
    """The right to write a store, from creation to `release`; the system frees it when the process dies.

    Raises:
        StoreError: another process has it, or the lock file cannot be made.
    """

    def __init__(self, store: Path) -> None:
        self._file: int | None = None
        self._path = store.with_name(store.name + ".lock")
        try:
            store.parent.mkdir(parents=True, exist_ok=True)
            file = self._file = self._take(store)
            os.ftruncate(file, 0)
            os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            raise unusable(store, error) from error

    def release(self) -> None:
        """Let another process write the store; a second call does nothing."""
        if self._file is not None:
            self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = None

    def _take(self, store: Path) -> int:
        while True:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                owner = os.pread(file, 32, 0).decode(errors="replace").strip()
                os.close(file)
                raise StoreError(
                    f"another process is writing the store {store}" + (f" (pid {owner})" if owner else ""),
                    place=str(self._path),
                    fix="wait for it or stop it: one process writes a store; reading is free",
                ) from error
            # Its last holder may have removed the file between our opening and locking it; one that somebody made since
            # then may go away at any moment, too.
            with suppress(FileNotFoundError):
                if self._path.stat().st_ino == os.fstat(file).st_ino:
                    return file
            os.close(file)
