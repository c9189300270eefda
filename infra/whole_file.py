"""Files that are written whole or not at all. Standard library only."""

import errno
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.errors import cannot_write


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a new empty file beside `path`; on success it takes the place of `path`, on failure it is removed.

    The folder is made if it is not there. A reader sees the old file or the complete new one, never a part. Others may
    read it as far as the umask allows.

    Raises:
        OSError: the file cannot be created, written or put in place.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.touch(exist_ok=False)
    try:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Do as `replacing` does, with an error that tells the user what to do.

    Raises:
        GraphtideError: the file cannot be created, written or put in place.
    """
    try:
        with replacing(path) as temporary:
            yield temporary
    except OSError as error:
        raise cannot_write(path, error) from error


def refuse_unwritable(path: Path) -> None:
    """Refuse a place that no file can be written to, before the work whose outcome shall stand there; leave no trace.

    Raises:
        GraphtideError: it is a folder, or lies in what is no folder or cannot be written.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        # Tried, and not asked for: a file system can be read-only, and root is told that it may all.
        with tempfile.TemporaryFile(dir=next(place for place in path.absolute().parents if os.path.lexists(place))):
            pass
    except OSError as error:
        raise cannot_write(path, error) from error
