"""`graphtide work`: the processes of long-range forecasts alone, beside a service that has none."""

import logging
import os
import threading
from typing import Annotated

import typer

from forecasting.cli.call import Call, interruptible, say
from forecasting.cli.store import StoreOption
from infra.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(work)


def work(
    ctx: typer.Context,
    workers: Annotated[
        str | None, typer.Option("--workers", metavar="N", help="Processes; else as [jobs] workers says.")
    ] = None,
    store: StoreOption = None,
) -> None:
    """Compute the long-range forecasts that services queue in [api] service_db, until Ctrl-C or SIGTERM.

    `graphtide serve` does this too, unless its [jobs] workers is 0. Where that is a file, on its host alone; where it
    is a PostgreSQL database, on any. Several may run at once. Reports and their schedules are kept by
    `graphtide report schedule run`.

    Example: graphtide work --workers 2
    """
    call: Call = ctx.obj
    settings = call.load({"jobs.workers": ("--workers", workers), "store.url": ("--store", store)}).values
    if settings.jobs.workers == 0:
        raise UsageError("no process would work", place="[jobs] workers (--workers)", fix="give at least 1")
    os.environ["PYTHONSAFEPATH"] = "1"
    from forecasting.job_processes import forecast_processes  # noqa: PLC0415 - imports torch
    from forecasting.service_file import ServiceFile  # noqa: PLC0415

    with ServiceFile(settings.api.service_db) as file:
        name = file.name  # a file that cannot be used is told here, once, and not by each process again and again
    with (
        interruptible("Nothing is lost: jobs go on where they stood when it is started again."),
        forecast_processes(settings, log_level=logging.getLogger().level),
    ):
        say(f"Working off {name}; Ctrl-C stops.")
        threading.Event().wait()
