"""Calibration of the general forecaster at steps of other lengths than the hour, by which its training is validated.

A hundred days bring other surprises than a hundred hours, and what public logs keep aside for validation is too short
to show them. So networks are simulated that no training has seen.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from forecasting.corpus import EventLog
from forecasting.general import FEWEST_EVENTS, STEPS_US, random_network
from infra.steps import HOUR_US
from models.calibration import Calibrations
from models.conformal import fit_calibration
from models.contract import History
from models.forecaster import ForecasterNet
from models.samples import Batch, SampleSource
from models.sampling import judged_batch, near_horizon, spread_origins
from stream.sources.simulate import SimulatedSource

# Of networks whose numbers training never draws.
_FIRST_SEED = 70_000_000
# Forecasts begin behind these shares of a history, and behind so many seasons.
_SEEN_SHARES, _FEWEST_SEASONS = (0.2, 0.5), 4
# Forecasts of one length from one stretch of a network: so many, and of so many steps together, but one at least.
_MOST_FORECASTS, _MOST_STEPS = 24, 1024
# Of one length of a step: fine steps are many, and tell no more than so many do.
_ENOUGH_STEPS = 128_000


def step_calibrations(net: ForecasterNet, networks: int, *, seed: int) -> Calibrations:
    """Return the calibrations of a net at the other steps that it is trained on, over simulated networks.

    Args:
        net: what forecasts, in evaluation mode.
        networks: how many to simulate.
        seed: of their parameters.
    """
    simulated = list(_networks(networks, seed))
    found = {}
    for step_us in STEPS_US:
        if step_us == HOUR_US:
            continue
        calibration = fit_calibration(net, _all_forecasts(simulated, step_us, net.config.reach_steps))
        if calibration.buckets:
            found[step_us] = calibration
    return Calibrations(found)


def _networks(count: int, seed: int) -> Iterator[EventLog]:
    generator = np.random.default_rng((seed, 2))
    for number in range(count):
        events = EventLog.read(SimulatedSource(random_network(generator, _FIRST_SEED + seed * 10_007 + number)))
        if len(events) >= FEWEST_EVENTS:
            yield events


def _all_forecasts(simulated: Sequence[EventLog], step_us: int, reach_steps: int) -> Iterator[Batch]:
    steps = 0
    for events in simulated:
        if steps >= _ENOUGH_STEPS:
            return
        # The last step is not over.
        history = events.history(step_us, int(events.ts_E[-1]) // step_us * step_us)
        for batch in _forecasts(history, reach_steps):
            steps += batch.target_NHM.shape[0] * batch.target_NHM.shape[1]
            yield batch


def _forecasts(history: History, reach_steps: int) -> Iterator[Batch]:
    """Yield forecasts of a season and a little more, of four seasons and as far as can be, spread over a history."""
    source = SampleSource(history, reach_steps=reach_steps)
    season = source.season
    for share in _SEEN_SHARES:
        begin = max(_FEWEST_SEASONS * season, round(len(history) * share))
        room = len(history) - begin
        if room < 1:
            continue
        far = min(reach_steps, room)
        for horizon in sorted({min(near_horizon(season, begin), far), min(4 * season, far), far}):
            wanted = max(1, min(_MOST_FORECASTS, _MOST_STEPS // horizon))
            yield judged_batch(source, begin, spread_origins(begin, room - horizon, wanted), horizon)
