"""Taking a backup while the system runs."""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from glob import escape
from pathlib import Path

from forecasting.backups.leftovers import MADE, locked_leftover, made_beside, tagged
from forecasting.backups.manifest import (
    MODELS_NAME,
    SERVICE_NAME,
    SPOOL_NAME,
    STORE_NAME,
    Manifest,
    foreign_to_backup,
    write_manifest,
)
from infra.errors import GraphtideError, ModelError, StoreError, UsageError
from infra.settings import Settings
from infra.sqlite_copy import copy_file, standstill
from models.checkpoint_files import CARD_NAME, read_card_bytes, take_together, weights_name
from stream.store.backup import OnCopied, moment_of

# How the name ends of the backup that another replaces.
_OLD = ".old"


def take_backup(settings: Settings, folder: Path, *, force: bool, on_copied: OnCopied) -> Manifest:
    """Write store, spool, service file and models into a new folder; what is not there is left out.

    So is a `[api] service_db` in PostgreSQL; see `pg_dump`.

    Ingestion and service may run meanwhile. The spool stands still for as long as it is copied and the moment of the
    store is chosen: each event that was taken over HTTP before is in one of the two, and none is in both.

    Args:
        settings: which store, files and folders.
        folder: where to; it is there when the backup is whole, not before.
        force: whether it may take the place of a backup, or of an empty folder, that is there.
        on_copied: is told how far the store is.

    Raises:
        UsageError: the folder is there; with `force`, it holds something else than a backup.
        StoreError: something cannot be read or written.
    """
    # What is renamed needs a name, which `.` and `..` do not have.
    folder = folder.resolve()
    _check_place(folder, force=force)
    with _whole_folder(folder) as made:
        spool = settings.spool.path
        with ExitStack() as moment:
            with ExitStack() as still:
                if spool.exists():
                    still.enter_context(standstill(spool))
                    copy_file(spool, made / SPOOL_NAME)
                store = moment.enter_context(moment_of(settings.store.url))
            copied = store.write(made / STORE_NAME, on_copied)
        service = settings.api.service_db
        # A database of a server has the server's own means, which keep its moment and its users.
        if isinstance(service, Path) and service.exists():
            copy_file(service, made / SERVICE_NAME)
        if settings.models.directory.is_dir():
            _copy_models(settings.models.directory, made / MODELS_NAME)
        return write_manifest(made, store_schema=store.schema, graphs=copied.graphs, snapshots=copied.snapshots)


def _check_place(folder: Path, *, force: bool) -> None:
    """Make sure that the backup takes the place of nothing but another backup.

    Raises:
        UsageError: something is there that has to stay.
    """
    if not folder.exists():
        return
    if not force:
        raise UsageError(
            f"{folder} is there already", place="FOLDER", fix="name a new folder, or add --force to replace a backup"
        )
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder", place="FOLDER", fix="name another")
    foreign = foreign_to_backup(folder)
    if foreign is not None:
        raise UsageError(
            f"{folder} holds something else than a backup, which would be deleted: {foreign.relative_to(folder)}",
            place="FOLDER",
            fix="name a new folder, such as one inside of it: --force replaces backups only",
        )


@contextmanager
def _whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder beside `folder` that takes its place on success and goes away on failure."""
    try:
        with made_beside(folder, lambda made: made.mkdir(mode=0o700, parents=True)) as made:
            old = made.with_suffix(_OLD)
            _remove_leftovers(folder, replaced=False)
            try:
                yield made
                _sync(made)
                if folder.exists():
                    folder.rename(old)
                try:
                    made.rename(folder)
                except BaseException:
                    # The backup of before is all there is.
                    if old.exists():
                        old.rename(folder)
                    raise
                _remove_leftovers(folder, replaced=True)
            finally:
                shutil.rmtree(made, ignore_errors=True)
                shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise StoreError(
            f"cannot write the backup {folder}: {error.strerror or error}",
            place=str(error.filename or folder),
            fix="check that the place is writable and has free space, or name another",
        ) from error


def _remove_leftovers(folder: Path, *, replaced: bool) -> None:
    """Remove what backups to the same place have left that were killed; those that run keep theirs.

    Args:
        folder: the place.
        replaced: also of one that was killed while it replaced a backup: until there is another, that is all there is.
    """
    found = [path for end in (MADE, _OLD) for path in folder.parent.glob(f".{escape(folder.name)}.*{end}")]
    for name in {path.stem for path in found if tagged(folder).fullmatch(path.stem)}:
        made, old = (folder.with_name(name + end) for end in (MADE, _OLD))
        if old.exists() and not replaced:
            continue
        with suppress(OSError), ExitStack() as held:
            if made.is_dir():
                held.enter_context(locked_leftover(made))
            shutil.rmtree(made, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)


def _sync(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _copy_models(models: Path, target: Path) -> None:
    """Copy every checkpoint; folders whose name begins with a dot are caches."""
    for card in sorted(models.rglob(CARD_NAME)):
        name = card.parent.relative_to(models)
        if not any(part.startswith(".") for part in name.parts):
            _copy_model(card.parent, target / name)


def _copy_model(folder: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)

    def copy_weights(card: bytes) -> Path:
        name = weights_name(card)
        return shutil.copyfile(folder / name, target / name)

    try:
        found = take_together(lambda: read_card_bytes(folder), copy_weights)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"cannot read a model: {error}", place=str(folder), fix="train it again or remove its folder"
        ) from error
    if found is None or found[1] is None:
        raise GraphtideError(f"the model in {folder} is not whole", fix="train it again or remove its folder")
    (target / CARD_NAME).write_bytes(found[0])
