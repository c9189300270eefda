"""The general forecaster: one model for graphs that were never seen, trained on public logs and simulated networks.

Of each log only a training part is read: what lies behind it stays for tests, whatever is trained and tried.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from forecasting.corpus import EventLog
from infra.errors import InputError
from infra.steps import DAY_US, HOUR_US, format_duration
from models.contract import History
from models.sampling import TrainingSeries, validated_steps
from models.seasons import season_steps
from stream.decoders.builder import DecodeOptions
from stream.simulation.config import SimulationConfig
from stream.sources.datasets import DATASETS, find_local
from stream.sources.files import FileSource
from stream.sources.simulate import SimulatedSource

MINUTE_US = HOUR_US // 60
STEPS_US = tuple(minutes * MINUTE_US for minutes in (15, 30, 60, 120, 180, 360, 720, 1440))
# Most users step by the hour.
_HOUR_WEIGHT, _OTHER_WEIGHT = 2.0, 0.7
# Parts of a log: the events that a share of its nodes send, at some step sizes.
_PARTS = ((0.5, (60,)), (0.25, (30, 60, 180, 360)), (0.1, (60,)))
_PART_WEIGHT = 0.5
# Cuts out of a history teach what a young graph looks like: short, and not from its beginning.
_CUTS, _CUT_WEIGHT, _LONGEST_CUT_SEASONS = 3, 0.35, 30
# Shorter than this there is not one season to learn from.
_SHORTEST_SEASONS = 1.3
FEWEST_EVENTS, _SPARSEST_MEAN, _SPARSEST_ACTIVE = 300, 0.05, 0.02
_VALIDATION_SHARE, _VALIDATED_SEASONS = 0.1, 4
_SIMULATED_WEIGHT = 2.0
# Hours at the end of a log that are for tests alone; of every other log the last fifth.
TEST_HOURS = {"sx-mathoverflow": 36_500}
TEST_SHARE = 0.2
# A log whose last part is empty ends before it.
USABLE_DAYS = {"email-Eu-core-temporal": 525}


@dataclass(frozen=True, slots=True)
class NamedSeries:
    """A training series and where it comes from.

    Attributes:
        log: the log that it was made of, or `simulated`.
        kind: how: `whole`, `part` or `cut`, and the step size.
    """

    log: str
    kind: str
    series: TrainingSeries


@dataclass(frozen=True, slots=True)
class DevelopmentLog:
    """A public log and where its training part ends.

    Attributes:
        events: all usable events.
        end_us: end of the last usable whole hour.
        train_until_us: everything from here on is for tests.
    """

    name: str
    events: EventLog
    end_us: int
    train_until_us: int

    def training(self) -> EventLog:
        """Return the events that training may see."""
        return self.events.until(self.train_until_us)


def development_logs(folders: Sequence[Path], *, exclude: Sequence[str] = ()) -> Iterator[DevelopmentLog]:
    """Yield the public logs that are found in `folders`.

    Raises:
        InputError: a log is missing or is another one.
    """
    for info in DATASETS.values():
        if info.name in exclude:
            continue
        path = find_local(info, folders)
        if path is None:
            raise InputError(
                f"the public log {info.name} is not at hand",
                place=", ".join(str(folder) for folder in folders),
                fix=f"graphtide datasets fetch {info.name}, or set GRAPHTIDE_DATA_DIR to a folder that has it",
            )
        events = EventLog.read(FileSource(path, DecodeOptions(**info.read_options)))
        start_us = int(events.ts_E[0]) // HOUR_US * HOUR_US
        last_us = int(events.ts_E[-1])
        if info.name in USABLE_DAYS:
            last_us = min(last_us, start_us + USABLE_DAYS[info.name] * DAY_US - 1)
        hours = (last_us - start_us) // HOUR_US + 1
        tested = TEST_HOURS.get(info.name, hours - int(hours * (1 - TEST_SHARE)))
        end_us = start_us + hours * HOUR_US
        yield DevelopmentLog(info.name, events.until(end_us), end_us, end_us - tested * HOUR_US)


def log_series(log: DevelopmentLog, *, seed: int) -> list[NamedSeries]:
    """Return the training series of one log, whose weights sum to 1."""
    generator = np.random.default_rng(seed)
    events, end_us = log.training(), log.train_until_us
    hourly = _history(events, HOUR_US, end_us)
    found = [] if hourly is None else [NamedSeries(log.name, _kind("whole", HOUR_US), _series(hourly, 1.0))]
    if found and found[0].series.validation_share > 0:
        # What the hours are validated on is not learned from in another shape.
        end_us -= validated_steps(found[0].series) * HOUR_US
        events = events.until(end_us)
    for step_us in STEPS_US:
        history = _history(events, step_us, end_us) if step_us != HOUR_US else None
        if history is not None:
            found.append(NamedSeries(log.name, _kind("whole", step_us), _series(history, 1.0)))
    for number, (share, steps) in enumerate(_PARTS):
        part = events.sent_by_share(share, seed + number)
        if len(part) < FEWEST_EVENTS:
            continue
        for minutes in steps:
            history = _history(part, minutes * MINUTE_US, end_us)
            if history is not None and history.values[:, 0].mean() > _SPARSEST_MEAN:
                kind = _kind(f"part {share:g}", history.step_us)
                found.append(NamedSeries(log.name, kind, _series(history, _PART_WEIGHT, validated=False)))
    for named in list(found):
        found += _cuts(named, generator)
    return _with_total(found, 1.0)


def simulated_series(count: int, *, seed: int) -> Iterator[NamedSeries]:
    """Yield series of `count` simulated networks that differ in size, rhythm, growth and burstiness."""
    generator = np.random.default_rng((seed, 1))
    weight = _SIMULATED_WEIGHT / max(count, 1)
    for number in range(count):
        events = EventLog.read(SimulatedSource(random_network(generator, seed * 10_007 + number)))
        if len(events) < FEWEST_EVENTS:
            continue
        end_us = (int(events.ts_E[-1]) // HOUR_US + 1) * HOUR_US
        found = []
        for step_us in (HOUR_US, int(generator.choice(STEPS_US))):
            history = _history(events, step_us, end_us)
            if history is not None:
                series = _series(history, 1.0, validated=number % 4 == 0)
                one = NamedSeries("simulated", _kind("whole", step_us), series)
                found += [one, *_cuts(one, generator)[:1]]
        yield from _with_total(found, weight)


def random_network(generator: np.random.Generator, seed: int) -> SimulationConfig:
    """Return the parameters of a network drawn at random."""
    rate = float(np.exp(generator.uniform(math.log(0.5), math.log(60.0))))
    years = float(np.exp(generator.uniform(math.log(0.15), math.log(4.0))))
    return SimulationConfig(
        seed=seed,
        # No network has much more than 300,000 events, so that drawing one takes seconds.
        years=min(years, 300_000 / (rate * 8766)),
        events_per_hour=rate,
        growth_per_year=float(generator.uniform(-0.4, 0.6)),
        branching=float(generator.uniform(0.05, 0.7)),
        virality=float(generator.uniform(1.3, 3.0)),
        weekend_activity=float(generator.uniform(0.2, 1.1)),
        yearly_swing=float(generator.uniform(0.0, 0.4)),
        holiday_activity=float(generator.uniform(0.3, 1.0)),
        attention_sd=float(generator.uniform(0.05, 0.5)),
        initial_users=int(generator.integers(50, 3000)),
        join_share=float(generator.uniform(0.01, 0.3)),
        communities=int(generator.integers(1, 60)),
        community_share=float(generator.uniform(0.0, 0.5)),
        activity_tail=float(generator.uniform(1.1, 2.5)),
    )


def _history(events: EventLog, step_us: int, end_us: int) -> History | None:
    if len(events) == 0:
        return None
    history = events.history(step_us, end_us)
    return history if len(history) >= _SHORTEST_SEASONS * season_steps(step_us) else None


def _series(history: History, weight: float, *, validated: bool = True) -> TrainingSeries:
    hourly = history.step_us == HOUR_US
    enough = len(history) >= _VALIDATED_SEASONS * season_steps(history.step_us)
    share = _VALIDATION_SHARE if validated and hourly and enough else 0.0
    return TrainingSeries(history, weight * (_HOUR_WEIGHT if hourly else _OTHER_WEIGHT), share)


def _cuts(named: NamedSeries, generator: np.random.Generator) -> list[NamedSeries]:
    """Return random stretches of a series; none reaches into what is kept for validation."""
    history = named.series.history
    usable = len(history) - validated_steps(named.series)
    season = season_steps(history.step_us)
    longest = min(usable, _LONGEST_CUT_SEASONS * season)
    shortest = min(longest, round(_SHORTEST_SEASONS * season))
    found = []
    for _ in range(_CUTS):
        length = int(math.exp(generator.uniform(math.log(shortest), math.log(longest))))
        begin = int(generator.integers(0, usable - length + 1))
        cut = history.part(begin, begin + length)
        if (cut.values[:, 0] > 0).mean() > _SPARSEST_ACTIVE:
            weight = named.series.weight * _CUT_WEIGHT
            found.append(NamedSeries(named.log, f"cut of {named.kind}", TrainingSeries(cut, weight)))
    return found


def _with_total(found: list[NamedSeries], total: float) -> list[NamedSeries]:
    weights = sum(one.series.weight for one in found)
    return [
        NamedSeries(
            one.log,
            one.kind,
            TrainingSeries(one.series.history, one.series.weight * total / weights, one.series.validation_share),
        )
        for one in found
    ]


def _kind(how: str, step_us: int) -> str:
    return f"{how} {format_duration(step_us)}"
