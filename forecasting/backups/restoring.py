"""Restoring a backup: every file is checked first, then all are put in place."""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from forecasting.backups.leftovers import made_beside, remove_left_files
from forecasting.backups.manifest import (
    MODELS_NAME,
    SERVICE_NAME,
    SPOOL_NAME,
    STORE_NAME,
    Manifest,
    read_manifest,
)
from infra.errors import StoreError, UsageError
from infra.settings import Settings
from infra.sqlite_copy import check_database, remove_companions
from infra.whole_file import whole_file
from stream.store.backup import OnCopied, check_room, load_backup
from stream.store.lock import WriterLock
from stream.store.postgres_server import SCHEMES
from stream.store.sql.tables import STORE_SCHEMA
from stream.store.sqlite_file import path_of_url


@dataclass(frozen=True, slots=True)
class _Plan:
    """What goes where.

    Attributes:
        databases: SQLite files of the backup and their places, the store last: with it the rest is found in place.
        models: files of checkpoints and their places, each card behind its weights.
        store: place of the store, None where it is no file.
    """

    databases: list[tuple[Path, Path]]
    models: list[tuple[Path, Path]]
    store: Path | None


def restore_backup(settings: Settings, folder: Path, *, force: bool, on_copied: OnCopied) -> Manifest:
    """Put a backup in the places that the settings name; other models that are there stay.

    Nothing may use these places meanwhile. A restore that was interrupted is run again.

    Args:
        settings: which store, files and folders.
        folder: the backup.
        force: whether files that are there are replaced.
        on_copied: is told how far the store is, where it is no file.

    Raises:
        UsageError: a place is taken and `force` is not given.
        StoreError: the backup is damaged or of a newer version, a process writes the store, or a place fails.
    """
    manifest = read_manifest(folder)
    if manifest.store_schema > STORE_SCHEMA:
        raise StoreError(
            f"the store of the backup has schema {manifest.store_schema}; this version of graphtide keeps schema"
            f" {STORE_SCHEMA}",
            place=str(folder),
            fix=f"restore it with graphtide {manifest.graphtide} or newer",
        )
    plan = _plan(settings, folder, manifest)
    taken = [place for _, place in (*plan.databases, *plan.models) if place.exists()]
    if taken and not force:
        raise UsageError(
            f"{taken[0]} is there already" + (f", and {len(taken) - 1} more" if len(taken) > 1 else ""),
            fix="restore to another place (--store and the settings), or add --force to replace what is there",
        )
    for source, _ in plan.databases:
        check_database(source)
    with ExitStack() as held:
        if plan.store is not None:
            held.callback(WriterLock(plan.store).release)
        else:
            check_room(settings.store.url)
        with _staged(plan.databases) as staged:
            for source, place in plan.models:
                with whole_file(place) as file:
                    shutil.copyfile(source, file)
            for part, place in staged:
                remove_companions(place)
                part.replace(place)
        if plan.store is None:
            # Last: it is whole or not there, and a restore that failed before is run again into a store still empty.
            load_backup(folder / STORE_NAME, settings.store.url, on_copied)
    return manifest


def _plan(settings: Settings, folder: Path, manifest: Manifest) -> _Plan:
    store = None if settings.store.url.startswith(SCHEMES) else path_of_url(settings.store.url)
    places = [(SPOOL_NAME, settings.spool.path)]
    service = settings.api.service_db
    if isinstance(service, Path):
        places.append((SERVICE_NAME, service))
    elif manifest.has(SERVICE_NAME):
        raise UsageError(
            f"{SERVICE_NAME} of the backup, with keys, jobs and reports, cannot be restored to PostgreSQL",
            place="[api] service_db",
            fix="name a file in its place for the restore; what pg_dump has backed up, pg_restore restores",
        )
    if store is not None:
        places.append((STORE_NAME, store))
    databases = [(folder / name, place) for name, place in places if manifest.has(name)]
    names = [Path(file.path).relative_to(MODELS_NAME) for file in manifest.files if _is_model(file.path)]
    names.sort(key=lambda name: name.suffix == ".json")
    return _Plan(databases, [(folder / MODELS_NAME / name, settings.models.directory / name) for name in names], store)


def _is_model(path: str) -> bool:
    return path.startswith(f"{MODELS_NAME}/")


@contextmanager
def _staged(databases: list[tuple[Path, Path]]) -> Iterator[list[tuple[Path, Path]]]:
    """Copy files beside their places; yields each copy with its place, and removes copies that were not used.

    Those of a restore that was killed go first, for their room.
    """
    staged: list[tuple[Path, Path]] = []
    try:
        with ExitStack() as made:
            for _, place in databases:
                place.parent.mkdir(parents=True, exist_ok=True)
                remove_left_files(place)
            for source, place in databases:
                part = made.enter_context(made_beside(place, lambda part: part.touch(mode=0o600, exist_ok=False)))
                made.callback(part.unlink, missing_ok=True)
                staged.append((part, place))
                shutil.copyfile(source, part)
                with part.open("rb+") as file:
                    os.fsync(file.fileno())
            yield staged
    except OSError as error:
        raise StoreError(
            f"cannot restore: {error.strerror or error}",
            place=str(error.filename or ""),
            fix="check that the place is writable and has free space, then restore again with --force",
        ) from error
