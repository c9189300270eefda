"""The manifest of a backup: which files belong to it, and that they are still what was written."""

import hashlib
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path, PurePosixPath

import msgspec

from infra.errors import StoreError
from infra.whole_file import whole_file

BACKUP_FORMAT = 1
MANIFEST_NAME = "manifest.json"
STORE_NAME, SPOOL_NAME, SERVICE_NAME, MODELS_NAME = "store.db", "spool.db", "service.db", "models"
_ANOTHER = "take another backup: this one cannot be trusted"


class BackupFile(msgspec.Struct, frozen=True):
    """One file: its path inside the folder, its length in bytes and its SHA-256 as hexadecimal digits."""

    path: str
    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """What a backup holds.

    Attributes:
        format: version of the layout of the folder.
        graphtide: version that wrote it.
        made: when, in UTC.
        store_schema: of `store.db`.
        graphs: in the store.
        snapshots: of all graphs.
        files: all others of the folder, by path.
    """

    format: int
    graphtide: str
    made: str
    store_schema: int
    graphs: int
    snapshots: int
    files: list[BackupFile]

    def has(self, name: str) -> bool:
        """Tell whether the backup holds the file or folder `name`."""
        return any(file.path == name or file.path.startswith(f"{name}/") for file in self.files)


def write_manifest(folder: Path, *, store_schema: int, graphs: int, snapshots: int) -> Manifest:
    """Write the manifest of everything that lies in `folder`; the last file of a backup.

    Raises:
        GraphtideError: it cannot be written.
        StoreError: a file cannot be read again.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = [_described(path, path.relative_to(folder).as_posix()) for path in paths]
    made = datetime.now(UTC).isoformat(timespec="seconds")
    manifest = Manifest(BACKUP_FORMAT, version("graphtide"), made, store_schema, graphs, snapshots, files)
    with whole_file(folder / MANIFEST_NAME) as path:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a backup and check every file against it.

    Raises:
        StoreError: it is no backup, one of a newer version, incomplete, or changed since it was made.
    """
    path = folder / MANIFEST_NAME
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(
            f"{folder} is no backup: {MANIFEST_NAME} cannot be read: {error.strerror or error}",
            fix="name a folder that graphtide store backup has made",
        ) from error
    try:
        found = msgspec.json.decode(content)
        number = found["format"]
        if isinstance(number, int) and number > BACKUP_FORMAT:
            raise StoreError(
                f"the backup {folder} has format {number}; this version of graphtide reads up to {BACKUP_FORMAT}",
                fix="upgrade graphtide",
            )
        manifest = msgspec.convert(found, Manifest)
    except (msgspec.DecodeError, msgspec.ValidationError, TypeError, KeyError) as error:
        raise StoreError(f"the manifest of the backup is damaged: {error}", place=str(path), fix=_ANOTHER) from error
    for file in manifest.files:
        pure = PurePosixPath(file.path)
        if pure.is_absolute() or ".." in pure.parts:
            raise StoreError(f"the manifest names a file outside the backup: {file.path!r}", place=str(path))
        if _described(folder / pure, file.path) != file:
            raise StoreError("a file of the backup is not what was written", place=str(folder / pure), fix=_ANOTHER)
    if not manifest.has(STORE_NAME):
        raise StoreError("the backup holds no store", place=str(path), fix=_ANOTHER)
    return manifest


def foreign_to_backup(folder: Path) -> Path | None:
    """Return something in a folder that belongs to no backup there, of this or another version, whole or damaged."""
    try:
        found = msgspec.json.decode((folder / MANIFEST_NAME).read_bytes())
        known = (
            {MANIFEST_NAME, *(file["path"] for file in found["files"])}
            if {"format", "graphtide"} <= found.keys()
            else None
        )
    except (OSError, msgspec.DecodeError, KeyError, TypeError, AttributeError):
        known = None
    if known is None:
        return next(folder.iterdir(), None)
    inside = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return next((path for path in inside if path.relative_to(folder).as_posix() not in known), None)


def _described(path: Path, name: str) -> BackupFile:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return BackupFile(name, file.tell(), digest)
    except OSError as error:
        raise StoreError(
            f"a file of the backup cannot be read: {error.strerror or error}", place=str(path), fix=_ANOTHER
        ) from error
