"""What is made beside its place until it is whole: a lock tells it from what a killed process has left there."""

import fcntl
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# How the name ends of what is being made.
MADE = ".part"


@contextmanager
def made_beside(place: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    """Yield a new file or folder beside `place`, made by `make`, with a lock for as long as this lasts."""
    lock = None
    while lock is None:
        made = place.with_name(f".{place.name}.{secrets.token_hex(4)}{MADE}")
        make(made)
        # Another process may take it for a leftover before it is locked.
        with suppress(FileNotFoundError):
            lock = _locked(made)
    try:
        yield made
    finally:
        os.close(lock)


def _locked(made: Path) -> int:
    """Return what was made, open and locked, where the file system has locks; else no leftover is removed there."""
    lock = os.open(made, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        made.stat()
    except BaseException:
        os.close(lock)
        raise
    return lock


@contextmanager
def locked_leftover(path: Path) -> Iterator[None]:
    """Hold the lock of something that was being made.

    Raises:
        OSError: a process still makes it, or there are no locks.
    """
    lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)


def tagged(place: Path) -> re.Pattern[str]:
    """Return what the names look like that `made_beside` gives, without their end."""
    return re.compile(rf"\.{re.escape(place.name)}\.[0-9a-f]{{8}}")


def remove_left_files(place: Path) -> None:
    """Remove the files that were being made for `place` by processes that were killed; those that run keep theirs."""
    name = tagged(place)
    for path in place.parent.glob(f".*{MADE}"):
        if name.fullmatch(path.stem) and path.is_file():
            with suppress(OSError), locked_leftover(path):
                path.unlink()
