"""The general forecaster is calibrated at every length of a step, on simulated networks."""

from pathlib import Path

import numpy as np
import pytest

from forecasting import step_calibration
from forecasting.resolving import general_model, resolve
from forecasting.step_calibration import step_calibrations
from infra.schema import QUANTILE_LEVELS
from infra.steps import DAY_US, HOUR_US
from models.forecaster import ForecasterConfig, ForecasterNet
from stream.simulation.config import SimulationConfig

SMALL = ForecasterConfig(d_model=16, n_layers=1, d_state=8, headdim=16, reach_steps=64)


@pytest.fixture
def small_networks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let networks be small and young, and steps three hours or a day long; return the seeds that were drawn."""
    drawn: list[int] = []

    def small(generator: np.random.Generator, seed: int) -> SimulationConfig:
        drawn.append(seed)
        rate = float(generator.uniform(2.0, 4.0))
        return SimulationConfig(seed=seed, years=0.25, events_per_hour=rate, initial_users=40, communities=4)

    monkeypatch.setattr(step_calibration, "random_network", small)
    monkeypatch.setattr(step_calibration, "STEPS_US", (HOUR_US, 3 * HOUR_US, DAY_US))
    return drawn


def test_each_other_length_of_a_step_has_offsets_of_its_own(small_networks: list[int]) -> None:
    net = ForecasterNet(SMALL).eval()
    found = step_calibrations(net, 2, seed=3)
    assert list(found.by_step_us) == [3 * HOUR_US, DAY_US]
    assert found.at(3 * HOUR_US).buckets[-1] == (11, 64)
    assert not np.array_equal(found.at(3 * HOUR_US).offsets_KMQ[0], found.at(DAY_US).offsets_KMQ[0])
    assert step_calibrations(net, 2, seed=3).to_json() == found.to_json()
    assert small_networks[:2] == small_networks[2:] == [70_030_021, 70_030_022]


def test_without_networks_there_is_none() -> None:
    assert step_calibrations(ForecasterNet(SMALL).eval(), 0, seed=0).to_json() == []


def test_the_model_that_ships_says_how_far_its_days_and_hours_hold(tmp_path: Path) -> None:
    card = general_model().card
    assert [row["step_us"] for row in card["calibrations"]] == [step for step in card["steps_us"] if step != HOUR_US]
    days, hours = (resolve(tmp_path, "town", step_us, 5000).calibration for step_us in (DAY_US, HOUR_US))
    assert days is not None and hours is not None
    assert hours.to_json() == card["calibration"]
    # A hundred days ahead less is known than a hundred hours ahead.
    low, high = (QUANTILE_LEVELS.index(level) for level in (0.1, 0.9))
    widened = [np.diff(one.offsets(np.array([300.0]))[0, 0, [low, high]])[0] for one in (hours, days)]
    assert widened[1] > widened[0] + 0.5
