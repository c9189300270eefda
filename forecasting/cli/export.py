"""`graphtide export`: a forecaster for another model server."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from forecasting.cli.call import Call, say
from forecasting.cli.store import StoreOption
from infra.errors import ModelError, UsageError


class Target(StrEnum):
    """Whose format is written."""

    TRITON = "triton"


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(export)


def export(
    ctx: typer.Context,
    places: Annotated[
        list[str], typer.Argument(metavar="[GRAPH] FOLDER", help="Whose model, and where to.", show_default=False)
    ],
    to: Annotated[Target, typer.Option("--to", help="The server that shall run it.")],
    general: Annotated[bool, typer.Option("--general", help="The general model, in place of a graph's own.")] = False,
    store: StoreOption = None,
) -> None:
    """Write a model into a model repository of NVIDIA Triton; its answers are those of graphtide.

    Example: graphtide export town --to triton /srv/models

    Example: graphtide export --general --to triton /srv/models
    """
    call: Call = ctx.obj
    settings = call.load({"store.url": ("--store", store)}).values
    if len(places) != (1 if general else 2):
        raise UsageError(
            "export needs a graph and a folder, or --general and a folder",
            fix=f"graphtide export GRAPH --to {to} FOLDER, or graphtide export --general --to {to} FOLDER",
        )
    from forecasting.training import checkpoint_folder  # noqa: PLC0415 - imports torch
    from forecasting.triton.repository import export as write  # noqa: PLC0415
    from forecasting.triton.repository import model_name  # noqa: PLC0415
    from models import checkpoint, general_folder  # noqa: PLC0415
    from stream.store import open_reader  # noqa: PLC0415

    graph = None if general else places[0]
    if graph is not None:
        with open_reader(settings.store.url, settings.influxdb) as reader:
            reader.graph(graph)
    folder = general_folder() if graph is None else checkpoint_folder(settings.models.directory, graph)
    found = checkpoint.load(folder)
    if found is None:
        raise ModelError(
            f"{graph or 'graphtide'!r} has no model of its own",
            place=str(folder),
            fix=f"train one: graphtide train {graph}; or export the general one: graphtide export --general",
        )
    written = write(found, model_name(graph), Path(places[-1]))
    say(f"Wrote {written}: the model {found.digest[:16]} for tritonserver --model-repository {places[-1]}")
