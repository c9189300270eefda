"""Files that appear under their name only when they are complete. Standard library only."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from infra.errors import GraphtideError, UsageError


@contextmanager
def output_file(path: Path | None) -> Iterator[BinaryIO]:
    """Yield what to write to: `new_file(path)`, or stdout for None."""
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with new_file(path) as file:
        yield file


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a binary file that becomes `path` when the block ends well, and leaves no trace when it does not.

    A device or a pipe (`/dev/stdout`) is written directly: it cannot be replaced.

    Raises:
        UsageError: the folder is not there or is not writable, or `path` is a folder.
        GraphtideError: writing failed, as on a full disk.
    """
    if path.is_dir():
        raise UsageError(f"cannot write {path}: it is a folder", fix="name a file in it")
    if path.exists() and not path.is_file():
        with path.open("wb") as sink:
            yield sink
        return
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        file = part.open("wb")
    except OSError as error:
        fix = "name a file in a folder that is there and writable"
        raise UsageError(f"cannot write {path}: {error.strerror}", fix=fix) from error
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        fix = "make room, or name another file"
        raise GraphtideError(f"cannot write {path}: {error.strerror or error}", fix=fix) from error
    finally:
        part.unlink(missing_ok=True)
