"""What a demo can run on: a simulated network, or a public log."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from infra.errors import UsageError
from infra.settings import Settings
from infra.steps import HOUR_US, parse_duration_us
from models.seasons import season_steps
from models.training import MIN_SEASONS
from stream.decoders.builder import DecodeOptions
from stream.simulation.config import HOURS_PER_YEAR, SimulationConfig
from stream.sources.base import Source
from stream.sources.datasets import dataset, find
from stream.sources.files import FileSource
from stream.sources.simulate import SimulatedSource

# Steps ahead that a demo scores.
HORIZONS = (1, 24, 168)

# (done, total or None, the unit and how it goes)
Report = Callable[[float, float | None, str], None]
Stage = Callable[[str], AbstractContextManager[Report]]


@dataclass(frozen=True, slots=True)
class DemoData:
    """What a demo runs on.

    Attributes:
        source: the events.
        graph: the graph that they fill.
        step_us: step size.
        about: what they are, in a few words.
    """

    source: Source
    graph: str
    step_us: int
    about: str


def needed_steps(step_us: int) -> int:
    """Return how many steps a demo needs at least, to train on and to score."""
    return MIN_SEASONS * season_steps(step_us) + max(HORIZONS)


def simulated_data(years: float, seed: int) -> DemoData:
    """Return a simulated network by the hour; its graph is named after what is not the default.

    Raises:
        UsageError: it would be too short to train and to score on, or longer than can be simulated.
    """
    hours = needed_steps(HOUR_US)
    # The log begins with its first event, a few hours in.
    shortest = math.ceil(100 * (hours + 24) / HOURS_PER_YEAR) / 100
    if years < shortest:
        raise UsageError(f"--years {years:g} is too short to train and to score on", fix=f"give at least {shortest:g}")
    default = SimulationConfig()
    config = SimulationConfig(seed=seed, years=years)
    parts = ["simulated"]
    parts += [f"seed{seed}"] if seed != default.seed else []
    parts += [f"{years:g}y"] if years != default.years else []
    graph = "-".join(parts)
    return DemoData(
        SimulatedSource(config, graph=graph),
        graph,
        HOUR_US,
        f"A simulated social network of {years:g} years, seed {seed}",
    )


def public_data(name: str, settings: Settings, stage: Stage) -> DemoData:
    """Return a public log, fetched if it is not at hand.

    Raises:
        UsageError: there is no such data set.
        InputError: it cannot be fetched, or its file is another one.
    """
    info = dataset(name)
    data = settings.data
    with stage(f"Looking for {info.name}") as report:
        path = find(
            name,
            folders=[data.directory],
            cache=data.cache,
            mirror=data.mirror or None,
            timeout_s=data.timeout_s,
            progress=lambda done, total: report(done, total, "bytes fetched"),
        )
    graph = info.name.lower()
    source = FileSource(path, DecodeOptions(graph=graph, **info.read_options))
    about = f"{info.title[0].upper()}{info.title[1:]} ({info.name}, published by {info.publisher})"
    return DemoData(source, graph, parse_duration_us(info.step), about)
