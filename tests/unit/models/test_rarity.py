"""What hardly ever happened is expected hardly ever; what happens at times, or wakes up, is left alone."""

import numpy as np
import pytest

from forecasting.training import forecaster_of
from infra.schema import METRIC_INDEX, METRICS, RUNNING_TOTALS, Kind
from infra.steps import HOUR_US, MONDAY_US
from models import checkpoint, general_folder
from models.columns import IS_COUNT, N_MODELLED
from models.contract import BLOCK_STEPS, FloatArray
from models.forecaster import MambaForecaster
from models.rarity import Rarity

SEASON = 168
SCALE = np.full(N_MODELLED, 0.05)
# What the network says of a metric that never moves.
RESIDUALS = np.tile(np.array([-1, -0.8, -0.5, -0.2, -0.1, 0, 0.2, 0.5, 1.0, 2.0, 5.0]), (10, N_MODELLED, 1))


def seen(steps: int, every: int, count: float = 1.0) -> Rarity:
    values = np.zeros((steps, N_MODELLED))
    if every:
        values[every::every] = np.log1p(count)
    return Rarity().observe(0, values, SEASON)


@pytest.fixture(scope="module")
def general() -> MambaForecaster:
    found = checkpoint.load(general_folder())
    assert found is not None
    return forecaster_of(found)


def forecast_of(general: MambaForecaster, values: FloatArray, steps: int) -> tuple[FloatArray, FloatArray]:
    """Return the mean [H, M] and the last quantiles [M, Q] of a forecast."""
    state = general.update(general.start(HOUR_US, MONDAY_US), values)
    chunks = list(general.rollout(state, steps, chunk_steps=2048))
    return np.concatenate([chunk.mean for chunk in chunks]), chunks[-1].quantiles[-1]


def values_of(events: FloatArray, new_nodes: FloatArray) -> FloatArray:
    """Return snapshots of so many events and new nodes; other counts are the events, new edges the new nodes."""
    values = np.zeros((len(events), len(METRICS)))
    values[:, [i for i, metric in enumerate(METRICS) if metric.kind is Kind.COUNT]] = events[:, None]
    values[:, METRIC_INDEX["new_nodes"]] = values[:, METRIC_INDEX["new_edges"]] = new_nodes
    for total, new in RUNNING_TOTALS:
        values[:, METRIC_INDEX[total]] = np.cumsum(values[:, METRIC_INDEX[new]])
    return values


def test_a_metric_that_never_moved_is_held_and_shares_are_not() -> None:
    held = seen(1000, 0).held(RESIDUALS, SCALE)
    assert np.all(held[:, IS_COUNT, -1] < 0.05 * RESIDUALS[:, IS_COUNT, -1])
    np.testing.assert_array_equal(held[:, ~IS_COUNT], RESIDUALS[:, ~IS_COUNT])
    np.testing.assert_array_equal(held[..., :6], RESIDUALS[..., :6])


def test_what_happens_once_in_three_days_is_left_alone() -> None:
    np.testing.assert_array_equal(seen(3000, 70).held(RESIDUALS, SCALE), RESIDUALS)


def test_a_wake_up_is_left_alone() -> None:
    awake = RESIDUALS * 40
    np.testing.assert_array_equal(seen(1000, 0).held(awake, SCALE), awake)


def test_the_first_step_of_a_graph_tells_no_rate() -> None:
    values = np.zeros((500, N_MODELLED))
    values[0] = 5.0
    assert np.all(Rarity().observe(0, values, SEASON).total_M == 0)


def test_counts_do_not_depend_on_how_steps_are_cut() -> None:
    values = np.random.default_rng(0).poisson(0.01, (3 * BLOCK_STEPS + 7, N_MODELLED)).astype(np.float64)
    whole, blocks, pieces = Rarity().observe(0, values, SEASON), Rarity(), Rarity()
    for begin in range(0, len(values), BLOCK_STEPS):
        blocks = blocks.observe(begin, values[begin : begin + BLOCK_STEPS], SEASON)
    for begin in range(0, len(values), 100):
        pieces = pieces.observe(begin, values[begin : begin + 100], SEASON)
    np.testing.assert_array_equal(whole.total_M, blocks.total_M)
    assert whole.weight == blocks.weight
    np.testing.assert_allclose(whole.total_M, pieces.total_M, rtol=1e-9)
    np.testing.assert_allclose(whole.busy_M, pieces.busy_M, rtol=1e-9)


def test_constant_and_saturated_graphs_hardly_gain_nodes(general: MambaForecaster) -> None:
    constant = np.zeros(1000)
    constant[0] = 6
    saturated = np.zeros(2500)
    saturated[:40] = 2
    for new_nodes, most in ((constant, 20), (saturated, 40)):
        events = np.maximum(np.full(len(new_nodes), 5.0), new_nodes)
        mean, quantiles = forecast_of(general, values_of(events, new_nodes), 4000)
        total = METRIC_INDEX["total_nodes"]
        assert quantiles[total, 0] < new_nodes.sum() + 6
        assert mean[-1, total] - new_nodes.sum() < most
        assert mean[:, METRIC_INDEX["new_nodes"]].mean() < new_nodes.mean()


def test_a_dead_graph_stays_nearly_dead(general: MambaForecaster) -> None:
    events = np.zeros(1501)
    events[[0, -1]] = 1
    mean, _ = forecast_of(general, values_of(events, events), 2000)
    assert mean[:, METRIC_INDEX["events"]].mean() < 5 * events.mean()
