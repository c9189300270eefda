"""A lock between processes that is a file while somebody has it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from infra.errors import cannot_write


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold the lock `path`, after whoever has it; the system frees it when its process dies.

    On a file system without locks nothing is locked.

    Raises:
        OSError: the file cannot be made.
    """
    file = _taken(path)
    assert file is not None
    try:
        yield
    finally:
        _free(path, file)


@contextmanager
def file_lock_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock `path` and yield True, or yield False at once where somebody has it; the folder is made.

    Raises:
        GraphtideError: the file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _taken(path, wait=False)
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield file is not None
    finally:
        if file is not None:
            _free(path, file)


def _free(path: Path, file: int) -> None:
    # While the lock is held: who waits for it finds that the file is gone, and takes a new one.
    path.unlink(missing_ok=True)
    os.close(file)


def _taken(path: Path, *, wait: bool = True) -> int | None:
    """Return the open file of the lock that was taken; None where somebody has it and it is not waited for."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                return None
            except OSError:
                pass  # a file system without locks
            # Its last holder may have removed the file between our opening and locking it.
            with suppress(FileNotFoundError):
                if path.stat().st_ino == os.fstat(file).st_ino:
                    return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)
