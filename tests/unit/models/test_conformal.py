"""Calibration moves quantiles to where their errors say they belong, and says how far ahead they can be trusted."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from infra.schema import METRIC_INDEX, QUANTILE_LEVELS
from infra.steps import DAY_US, HOUR_US, WEEK_US
from models.calibration import Calibration, Calibrations
from models.columns import N_MODELLED
from models.conformal import fit_calibration
from models.contract import History
from models.forecaster import ForecasterConfig, ForecasterNet, MambaForecaster
from models.losses import batch_quantiles
from models.ranks import default_structure
from models.samples import Batch, Plan, SampleSource
from tests.unit.models.model_series import weekly_history

Q = len(QUANTILE_LEVELS)


def batch_of(history: History, horizon: int = 30) -> Batch:
    source = SampleSource(history, reach_steps=64)
    begins = np.arange(20, len(history) - 60 - horizon, 7)
    return source.batch(Plan(begins, np.array([40]), horizon))


@pytest.fixture(scope="module")
def net() -> ForecasterNet:
    return ForecasterNet(ForecasterConfig(d_model=16, n_layers=1, d_state=8, headdim=16, reach_steps=64)).eval()


@pytest.fixture(scope="module")
def batch() -> Batch:
    return batch_of(weekly_history(3000))


def test_a_biased_net_is_moved_back(net: ForecasterNet, batch: Batch) -> None:
    biased = replace(batch, target_NHM=batch.target_NHM + 0.7)
    offsets = fit_calibration(net, [biased]).offsets_KMQ - fit_calibration(net, [batch]).offsets_KMQ
    last = offsets[-1]
    # Counts and shares that are held back by their range move less.
    assert np.median(last) == pytest.approx(0.7, abs=0.15)


def test_series_that_wakes_up_moves_no_quantile_out_of_all_bounds(net: ForecasterNet, batch: Batch) -> None:
    woken = replace(batch, target_NHM=batch.target_NHM + 40.0)
    assert np.abs(fit_calibration(net, [woken]).offsets_KMQ).max() == 1.5


def test_moved_quantiles_hold_what_they_say(net: ForecasterNet, batch: Batch) -> None:
    found = fit_calibration(net, [batch])
    with torch.inference_mode():
        quantiles = batch_quantiles(net, batch).double().numpy()
    moved = quantiles + found.offsets(np.arange(1.0, 31.0))
    below = (batch.target_NHM.double().numpy()[..., None] < moved)[:, 10:, 0].mean(axis=(0, 1))
    np.testing.assert_allclose(below, QUANTILE_LEVELS, atol=0.06)


def test_json_and_back(net: ForecasterNet, batch: Batch) -> None:
    found = fit_calibration(net, [batch])
    again = Calibration.from_json(found.to_json())
    np.testing.assert_allclose(again.offsets_KMQ, found.offsets_KMQ, atol=1e-4)
    assert again.to_json() == found.to_json()
    with pytest.raises(ValueError, match="do not fit"):
        Calibration.from_json({**found.to_json(), "buckets": [[1, 1]]})


def test_offsets_are_linear_between_buckets_and_hold_beyond() -> None:
    offsets = np.zeros((2, N_MODELLED, Q))
    offsets[1] = 1.0
    calibration = Calibration(((1, 1), (100, 100)), offsets, 100, 1)
    found = calibration.offsets(np.array([1.0, 10.0, 100.0, 5000.0]))[:, 0, 0]
    np.testing.assert_allclose(found, [0, 0.5, 1, 1])
    assert not Calibration.none().offsets(np.array([1.0, 2.0])).any()


def test_noise_has_no_skill_against_its_climate(net: ForecasterNet) -> None:
    # Without a rhythm and without memory, the climate is all there is to know.
    history = weekly_history(1500)
    values = np.random.default_rng(0).poisson(9.0, history.values.shape).astype(np.float64)
    noise = History(history.step_us, history.start_us, np.where(history.values <= 1.0, history.values, values))
    found = fit_calibration(net, [batch_of(noise)])
    assert found.skill_until_step == 0


def moved_by(offset: float) -> Calibration:
    return Calibration(((1, 1),), np.full((1, N_MODELLED, Q), offset), 1, 1)


def test_the_calibration_of_the_nearest_length_of_a_step_counts() -> None:
    hours, days = moved_by(0.25), moved_by(0.75)
    found = Calibrations({HOUR_US: hours, DAY_US: days})
    assert [found.at(step_us) for step_us in (HOUR_US // 4, 4 * HOUR_US, 6 * HOUR_US, WEEK_US)] == [
        hours, hours, days, days,
    ]  # fmt: skip
    assert Calibrations({}).at(DAY_US).to_json() == Calibration.none().to_json()
    assert Calibrations.from_json(found.to_json()).to_json() == found.to_json()


def test_a_forecaster_moves_quantiles_as_the_length_of_its_steps_asks(net: ForecasterNet) -> None:
    series, medians = weekly_history(400), {}
    for name, days in (("still", 0.0), ("moved", 1.0)):
        found = Calibrations({HOUR_US: moved_by(0.0), DAY_US: moved_by(days)})
        model = MambaForecaster(net, default_structure(7), ranks_season=7, calibrations=found)
        assert model.calibration(DAY_US).offsets_KMQ.max() == days
        for step_us in (HOUR_US, DAY_US):
            (chunk,) = model.rollout(model.update(model.start(step_us, 0), series.values), 20)
            medians[name, step_us] = chunk.quantiles[:, METRIC_INDEX["events"], Q // 2]
    np.testing.assert_array_equal(medians["still", HOUR_US], medians["moved", HOUR_US])
    assert (medians["still", DAY_US] <= medians["moved", DAY_US]).all()
    assert medians["still", DAY_US].mean() < medians["moved", DAY_US].mean() - 0.5
