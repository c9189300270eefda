"""`graphtide serve`: the forecast service over HTTP."""

import logging
import os
from collections.abc import Callable
from typing import Annotated

import typer

from forecasting import interrupts
from forecasting.cli.call import Call, interruptible, say
from forecasting.cli.engines import Engine, EngineOption, RayAddressOption, check_engine
from forecasting.cli.store import StoreOption
from infra.errors import UsageError

MinReplicasOption = Annotated[
    str | None, typer.Option("--min-replicas", metavar="N", help="With --engine ray: replicas that there always are.")
]
MaxReplicasOption = Annotated[
    str | None, typer.Option("--max-replicas", metavar="N", help="With --engine ray: replicas that there are at most.")
]


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
    engine: EngineOption = Engine.LOCAL,
    ray_address: RayAddressOption = None,
    min_replicas: MinReplicasOption = None,
    max_replicas: MaxReplicasOption = None,
    store: StoreOption = None,
) -> None:
    """Answer forecasts over HTTP: short ones at once from the live state, long ones as jobs.

    Follows the store while an ingest process writes it. Ctrl-C or SIGTERM end it after the requests under way.
    Replicas on the nodes of a Ray cluster answer with --engine ray, more of them while more is asked.

    Example: graphtide serve --port 8080

    Example: graphtide serve --engine ray --ray-address head:6379 --min-replicas 2 --max-replicas 16
    """
    check_engine(engine, ray_address)
    _check_flags(engine, workers=workers, replicas=(min_replicas, max_replicas))
    call: Call = ctx.obj
    settings = call.load(
        {
            "api.host": ("--host", host),
            "api.port": ("--port", port),
            "api.workers": ("--workers", workers),
            "ray.address": ("--ray-address", ray_address),
            "ray_serve.min_replicas": ("--min-replicas", min_replicas),
            "ray_serve.max_replicas": ("--max-replicas", max_replicas),
            "api.allow_open": ("--allow-open", True if allow_open else None),
            "store.url": ("--store", store),
        }
    ).values
    from stream.store.shown import shown_store  # noqa: PLC0415 - numpy is not needed for --help

    shown = shown_store(settings.store.url)
    # Processes that it starts never pick up a `models.py` of the user's working directory.
    os.environ["PYTHONSAFEPATH"] = "1"
    with interruptible("Nothing is lost: jobs go on where they stood when it is started again."):
        # Pydantic makes an error of its own of a Ctrl-C while it builds the models of the web framework.
        with interrupts.held():
            run = _server(engine)
        run(
            settings,
            log_level=logging.getLogger().level,
            on_ready=lambda address: say(f"Serving {shown} on {address}; Ctrl-C stops."),
        )


def _check_flags(engine: Engine, *, workers: str | None, replicas: tuple[str | None, str | None]) -> None:
    if engine is Engine.LOCAL and replicas != (None, None):
        raise UsageError(
            "--min-replicas and --max-replicas are for --engine ray", fix="add --engine ray, or give --workers"
        )
    if engine is Engine.RAY and workers is not None:
        raise UsageError(
            "--workers is for --engine local", fix="leave it out, and say --min-replicas and --max-replicas"
        )


def _server(engine: Engine) -> Callable[..., None]:
    """Return what serves, imported as late as this: torch and the web framework come with it."""
    if engine is Engine.RAY:
        from forecasting.scaleout.serving import serve_on_ray  # noqa: PLC0415

        return serve_on_ray
    from forecasting.api.server import serve as serve_here  # noqa: PLC0415

    return serve_here
