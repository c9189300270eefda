"""One writing process a store: a lock on a file beside it."""

import fcntl
import os
from pathlib import Path

from infra.errors import StoreError
from stream.store.sqlite_file import unusable


def take_lock(path: Path) -> int:
    """Return the descriptor of the locked side file; the system frees the lock when the process dies."""
    lock_path = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise unusable(path, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError as error:
        owner = os.pread(lock, 32, 0).decode(errors="replace").strip()
        os.close(lock)
        raise StoreError(
            f"another process is writing the store {path}" + (f" (pid {owner})" if owner else ""),
            place=str(lock_path),
            fix="wait for it or stop it: one process writes a store; reading is free",
        ) from error
    except OSError as error:
        os.close(lock)
        raise unusable(path, error) from error
    return lock


def release(lock: int) -> None:
    """Let another process write the store."""
    os.close(lock)
