"""A lock between processes that is a file while somebody has it. Standard library only."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold the lock `path`, after whoever has it; the system frees it when its process dies.

    On a file system without locks nothing is locked.

    Raises:
        OSError: the file cannot be made.
    """
    file = _taken(path)
    try:
        yield
    finally:
        # While the lock is held: who waits for it finds that the file is gone, and takes a new one.
        path.unlink(missing_ok=True)
        os.close(file)


def _taken(path: Path) -> int:
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            # Its last holder may have removed the file between our opening and locking it.
            with suppress(FileNotFoundError):
                if path.stat().st_ino == os.fstat(file).st_ino:
                    return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)
