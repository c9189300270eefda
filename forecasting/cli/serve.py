"""`graphtide serve`: the forecast service over HTTP."""

import logging
import os
from typing import Annotated

import typer

from forecasting.cli.call import Call, interruptible, say
from forecasting.cli.store import StoreOption


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(serve)


def serve(
    ctx: typer.Context,
    host: Annotated[str | None, typer.Option("--host", metavar="ADDRESS", help="Address to listen on.")] = None,
    port: Annotated[str | None, typer.Option("--port", metavar="N", help="Port; 0 takes a free one.")] = None,
    workers: Annotated[str | None, typer.Option("--workers", metavar="N", help="Serving processes.")] = None,
    allow_open: Annotated[
        bool, typer.Option("--allow-open", help="Listen beyond this machine although there is no API key.")
    ] = False,
    store: StoreOption = None,
) -> None:
    """Answer forecasts over HTTP: short ones at once from the live state, long ones as jobs.

    Follows the store while an ingest process writes it. Ctrl-C or SIGTERM end it after the requests under way.

    Example: graphtide serve --port 8080
    """
    call: Call = ctx.obj
    settings = call.load(
        {
            "api.host": ("--host", host),
            "api.port": ("--port", port),
            "api.workers": ("--workers", workers),
            "api.allow_open": ("--allow-open", True if allow_open else None),
            "store.url": ("--store", store),
        }
    ).values
    # Processes that it starts never pick up a `models.py` of the user's working directory.
    os.environ["PYTHONSAFEPATH"] = "1"
    from forecasting.api import server  # noqa: PLC0415 - imports torch and the web framework

    with interruptible("Nothing is lost: jobs go on where they stood when it is started again."):
        server.serve(
            settings,
            log_level=logging.getLogger().level,
            on_ready=lambda address: say(f"Serving {settings.store.url} on {address}; Ctrl-C stops."),
        )
