"""Files that are written whole or not at all. Standard library only."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.errors import GraphtideError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it takes the place of `path`, on failure it is removed.

    The folder is made if it is not there. A reader sees the old file or the complete new one, never a part.

    Raises:
        GraphtideError: the file cannot be created, written or put in place.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(descriptor)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
        temporary = None
    except OSError as error:
        raise GraphtideError(
            f"cannot write {path}: {error.strerror or error}",
            fix="check that the folder exists, is writable and has free space, or name another place",
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    """Return the process's file mode mask; reading it means setting it for an instant."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
