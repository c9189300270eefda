"""Compiled kernels on disk, keyed by all that went into them; a cache that fails costs time, never a result."""

import hashlib
import logging
import os
import tempfile
from pathlib import Path

VARIABLE = "GRAPHTIDE_KERNEL_CACHE"

_LOG = logging.getLogger(__name__)
_DIGEST_BYTES = hashlib.sha256().digest_size


def default_folder() -> Path | None:
    """Return GRAPHTIDE_KERNEL_CACHE, else graphtide/kernels in the user's cache folder, or None for a user without one.

    A shared folder for temporary files is no substitute: anyone could lay a kernel there for this process to run.
    """
    if named := os.environ.get(VARIABLE):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "graphtide" / "kernels"
    except RuntimeError:
        # No HOME and no entry for this user, as in a container that runs under a bare number.
        return None


class CubinCache:
    """A folder of cubins, each behind the SHA-256 of its bytes.

    Args:
        folder: where they lie; made when the first is written. None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def get(self, key: str) -> bytes | None:
        """Return the cubin of `key`, or None if there is none that can be read and is whole."""
        if self.folder is None:
            return None
        path = self._path(self.folder, key)
        try:
            stored = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            _LOG.warning("the kernel cache cannot be read, so the kernel is compiled: %s", error)
            return None
        digest, cubin = stored[:_DIGEST_BYTES], stored[_DIGEST_BYTES:]
        if not cubin or hashlib.sha256(cubin).digest() != digest:
            _LOG.warning("%s in the kernel cache is broken and is compiled again", path.name)
            return None
        return cubin

    def put(self, key: str, cubin: bytes) -> None:
        """Keep a cubin; readers see it whole or not at all. A folder that cannot be written is noted and survived."""
        folder, scratch = self.folder, None
        if folder is None:
            _LOG.warning("this user has no home folder, so no compiled kernel is kept; %s can name a folder", VARIABLE)
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{key}.", delete=False) as file:
                scratch = Path(file.name)
                file.write(hashlib.sha256(cubin).digest() + cubin)
            scratch.replace(self._path(folder, key))
        except OSError as error:
            _LOG.warning("the compiled kernel is not kept, so the next process compiles it again: %s", error)
            if scratch is not None:
                self._discard(scratch)

    @staticmethod
    def _path(folder: Path, key: str) -> Path:
        return folder / f"{key}.cubin"

    @staticmethod
    def _discard(scratch: Path) -> None:
        try:
            scratch.unlink(missing_ok=True)
        except OSError as error:
            _LOG.warning("a scratch file of the kernel cache is left behind: %s", error)
