"""Files that are written whole or not at all. Standard library only."""

import os
import secrets
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
