"""`--engine local` and `--engine ray`: where work on many graphs is done."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from forecasting.cli.call import say
from infra.errors import UsageError

if TYPE_CHECKING:
    from forecasting.scaleout.cluster import Cluster
    from infra.settings import Settings


class Engine(StrEnum):
    """Where the work is done."""

    LOCAL = "local"
    RAY = "ray"


EngineOption = Annotated[
    Engine, typer.Option("--engine", help="Where the work is done: processes of this machine, or a Ray cluster.")
]
RayAddressOption = Annotated[
    str | None,
    typer.Option(
        "--ray-address", metavar="HOST:PORT", help="With --engine ray: a cluster that runs; else one is started here."
    ),
]


def check_engine(engine: Engine, ray_address: str | None) -> None:
    """Refuse an address without the engine that it is for, and an engine that is not installed.

    Raises:
        UsageError: the flags do not fit.
    """
    if engine is Engine.RAY:
        from forecasting.scaleout.cluster import require_ray  # noqa: PLC0415 - imports torch

        require_ray()
    elif ray_address is not None:
        raise UsageError("--ray-address is for --engine ray", fix="add --engine ray, or leave the address out")


@contextmanager
def ray_cluster(settings: "Settings") -> Iterator["Cluster"]:
    """Yield the Ray cluster of the settings, and say where it is."""
    from forecasting.scaleout.cluster import connected  # noqa: PLC0415

    with connected(settings.ray) as cluster:
        where = f"at {settings.ray.address}" if settings.ray.address else "on this machine"
        say(f"Working on a Ray cluster {where}: {cluster.cores()} tasks at once")
        yield cluster
