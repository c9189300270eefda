"""`graphtide store migrate`."""

from typing import Annotated

import typer

from forecasting.cli.call import Call, interruptible, say
from forecasting.cli.store import StoreOption


def register(app: typer.Typer) -> None:
    """Add the command of this file to those of `graphtide store`."""
    app.command()(migrate)


def migrate(
    ctx: typer.Context,
    store: StoreOption = None,
    has_backup: Annotated[
        bool, typer.Option("--have-backup", help="For PostgreSQL: there is a backup, made by its own tools.")
    ] = False,
) -> None:
    """Bring a store that an older version wrote to the schema of this one, in one transaction.

    A SQLite store is copied first, to a file beside it whose name ends with its schema. Stop ingestion and service
    before. Interrupted, it leaves the store as it was.

    Example: graphtide store migrate --store sqlite:///store.db
    """
    from infra.errors import UsageError  # noqa: PLC0415 - numpy is not needed for --help
    from stream.store.migrate import migrate_store  # noqa: PLC0415
    from stream.store.postgres_server import SCHEMES  # noqa: PLC0415

    call: Call = ctx.obj
    url = call.load({"store.url": ("--store", store)}).values.store.url
    if url.startswith(SCHEMES) and not has_backup:
        raise UsageError(
            "a PostgreSQL store is not backed up by this command",
            fix="back the database up, for example by pg_dump, then add --have-backup",
        )
    with interruptible("Nothing was changed."):
        done = migrate_store(url)
    if done.before == done.after:
        say(f"The store has schema {done.after} already: nothing to do.")
        return
    kept = f" As it was it is kept as {done.backup}." if done.backup else ""
    say(f"Brought the store from schema {done.before} to schema {done.after}.{kept}")
