"""`graphtide store backup` and `graphtide store restore`."""

from pathlib import Path
from typing import Annotated

import typer

from forecasting.cli.call import Call, interruptible, say
from forecasting.cli.progress import progress
from forecasting.cli.store import StoreOption

ForceOption = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
ReplaceOption = Annotated[bool, typer.Option("--force", help="Replace a backup that is there.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file to those of `graphtide store`."""
    app.command()(backup)
    app.command()(restore)


def backup(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder.", show_default=False)],
    store: StoreOption = None,
    force: ReplaceOption = False,
) -> None:
    """Back up a running system: the store, the spool, keys, jobs and reports, and the models.

    Ingestion and service go on meanwhile. The store is copied as it is at one moment, with the positions of its
    sources, from SQLite and PostgreSQL alike; the manifest has the SHA-256 of every file. Settings, secrets, an
    InfluxDB and an [api] service_db in PostgreSQL, which pg_dump backs up, are not in it.

    Example: graphtide store backup /backups/monday
    """
    from forecasting.backups.taking import take_backup  # noqa: PLC0415 - numpy is not needed for --help
    from forecasting.service_file import name_of  # noqa: PLC0415

    call: Call = ctx.obj
    settings = call.load({"store.url": ("--store", store)}).values
    with interruptible("There is no backup: it is whole or not there."), progress("Backing up") as report:
        manifest = take_backup(settings, folder, force=force, on_copied=report)
    size = sum(file.bytes for file in manifest.files)
    if not isinstance(settings.api.service_db, Path):
        name = name_of(settings.api.service_db)
        say(f"Keys, jobs and reports are not in it: {name} is a PostgreSQL database. Back it up beside this: pg_dump")
    say(
        f"Wrote {folder}: {manifest.graphs:,} graphs with {manifest.snapshots:,} snapshots,"
        f" {len(manifest.files):,} files, {size:,} bytes."
    )


def restore(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The backup.", show_default=False)],
    store: StoreOption = None,
    force: ForceOption = False,
) -> None:
    """Restore a backup to where the settings say; ingestion then goes on from the positions in it.

    Every file is checked against the manifest first. Stop ingestion and service before; what is there is replaced
    with --force only. A store in PostgreSQL has to be empty.

    Example: graphtide store restore /backups/monday --store sqlite:///restored.db
    """
    from forecasting.backups.restoring import restore_backup  # noqa: PLC0415
    from stream.store.shown import shown_store  # noqa: PLC0415

    call: Call = ctx.obj
    settings = call.load({"store.url": ("--store", store)}).values
    with (
        interruptible("Nothing, or not all, was restored; run it again with --force."),
        progress("Restoring") as report,
    ):
        manifest = restore_backup(settings, folder, force=force, on_copied=report)
    say(
        f"Restored {manifest.graphs:,} graphs with {manifest.snapshots:,} snapshots"
        f" to {shown_store(settings.store.url)}, as they were at {manifest.made}."
    )
