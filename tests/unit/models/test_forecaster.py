"""One answer however a history is cut, every invariant at every step, nothing that looks ahead."""

from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import ModelError
from infra.schema import METRIC_INDEX, METRIC_NAMES
from infra.steps import DAY_US, HOUR_US, WEEK_US
from models.columns import MEDIAN, N_MODELLED
from models.constraints import violations
from models.contract import ForecastChunk, History
from models.forecaster import ForecasterConfig, ForecasterNet, ForecasterState, MambaForecaster, towards_whole
from models.paths import RankDynamics, RankStructure
from tests.unit.models.model_series import SHARES, weekly_history

N = len(METRIC_NAMES)


@cache
def forecaster() -> MambaForecaster:
    """Return an untrained forecaster whose weights are large enough that its state matters."""
    net = ForecasterNet(ForecasterConfig(d_model=16, n_layers=2, d_state=8, headdim=16, reach_steps=50), seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        net.head.weight.normal_(std=0.4, generator=generator)
    return MambaForecaster(
        net, RankStructure((RankDynamics(0.99, 0.3, 0.2),) * N_MODELLED, (0.7,) * N_MODELLED), ranks_season=7
    )


def encode(history: History, cuts: list[int]) -> ForecasterState:
    state = forecaster().start(history.step_us, history.start_us)
    edges = [0, *sorted(cuts), len(history)]
    for begin, end in pairwise(edges):
        state = forecaster().update(state, history.values[begin:end])
    return state


def roll_out(state: ForecasterState, horizon: int, chunk: int = 1024, seed: int = 0) -> ForecastChunk:
    chunks = list(forecaster().rollout(state, horizon, chunk_steps=chunk, seed=seed))
    assert [c.first_step for c in chunks] == list(range(0, horizon, chunk))
    return ForecastChunk(0, np.concatenate([c.mean for c in chunks]), np.concatenate([c.quantiles for c in chunks]))


def assert_same(one: ForecastChunk, other: ForecastChunk) -> None:
    np.testing.assert_allclose(one.mean, other.mean, rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(one.quantiles, other.quantiles, rtol=2e-4, atol=2e-4)


@cache
def in_one_piece(steps: int) -> ForecasterState:
    return encode(weekly_history(steps), [])


@settings(max_examples=10)
@given(cuts=st.lists(st.integers(0, 200), max_size=5))
def test_a_history_in_any_pieces_gives_one_forecast(cuts: list[int]) -> None:
    assert_same(roll_out(encode(weekly_history(200), cuts), 30), roll_out(in_one_piece(200), 30))


def test_step_by_step_is_the_same_too() -> None:
    history = weekly_history(90)
    assert_same(roll_out(encode(history, list(range(91))), 30), roll_out(encode(history, []), 30))


@settings(max_examples=15)
@given(chunk=st.integers(1, 120))
def test_the_length_of_chunks_changes_nothing(chunk: int) -> None:
    assert_same(roll_out(in_one_piece(100), 100, chunk), roll_out(in_one_piece(100), 100))


@pytest.mark.parametrize("step_us", [HOUR_US, DAY_US, WEEK_US])
def test_every_invariant_holds(step_us: int) -> None:
    state = encode(replace(weekly_history(400), step_us=step_us), [])
    forecast = roll_out(state, 1500, 400)
    assert violations(forecast.mean, forecast.quantiles) == []


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((300, N)),
        np.ones((300, N)),
        np.where(np.arange(300)[:, None] == 150, 1e9, 0.0) * np.ones(N),
        np.where((np.arange(300) < 250)[:, None], 1e9, 0.0) * np.ones(N),
    ],
    ids=["all zeros", "constant", "a single spike", "huge, then nothing"],
)
def test_odd_series_give_sane_forecasts(values: np.ndarray) -> None:
    values = values.copy()
    for name in SHARES:
        values[:, METRIC_INDEX[name]] = np.minimum(values[:, METRIC_INDEX[name]], 1.0)
    for total, new in (("total_nodes", "new_nodes"), ("total_edges", "new_edges")):
        values[:, METRIC_INDEX[total]] = np.cumsum(values[:, METRIC_INDEX[new]])
    forecast = roll_out(encode(History(DAY_US, 0, values), []), 400)
    assert violations(forecast.mean, forecast.quantiles) == []


def test_an_empty_history_is_answered() -> None:
    forecast = roll_out(forecaster().start(HOUR_US, 0), 20)
    assert violations(forecast.mean, forecast.quantiles) == []


def test_the_seed_moves_the_totals_alone() -> None:
    state = encode(weekly_history(100), [])
    first, again, other = (roll_out(state, 50, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.quantiles, again.quantiles)
    totals = [METRIC_INDEX["total_nodes"], METRIC_INDEX["total_edges"]]
    # Active and new nodes are lowered to the total, where that is smaller.
    bounded = [METRIC_INDEX["active_nodes"], METRIC_INDEX["new_nodes"]]
    rest = [m for m in range(N) if m not in totals + bounded]
    np.testing.assert_array_equal(first.quantiles[:, rest], other.quantiles[:, rest])
    assert not np.array_equal(first.quantiles[:, totals], other.quantiles[:, totals])


def test_states_are_values() -> None:
    state = encode(weekly_history(100), [])
    before = roll_out(state, 10)
    forecaster().update(state, weekly_history(40, seed=9).values)
    roll_out(state, 100)
    np.testing.assert_array_equal(roll_out(state, 10).quantiles, before.quantiles)


def test_the_history_reaches_the_forecast() -> None:
    plain, changed = weekly_history(100), weekly_history(100)
    changed.values[-1, METRIC_INDEX["events"]] *= 5
    events = METRIC_INDEX["events"]
    one, other = (roll_out(encode(history, []), 1).quantiles[0, events] for history in (plain, changed))
    assert np.abs(one - other).max() > 1e-3


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    history = weekly_history(20)
    history.values[7, METRIC_INDEX["triangles"]] = bad
    with pytest.raises(ModelError, match="triangles of observed step 7"):
        encode(history, [])


def test_values_of_another_shape_are_refused() -> None:
    with pytest.raises(ModelError, match="shape"):
        forecaster().update(forecaster().start(HOUR_US, 0), np.zeros((3, 4)))


def test_quantiles_of_counts_are_drawn_to_whole_numbers_without_a_jump() -> None:
    x = np.linspace(0, 3, 3001)
    y = towards_whole(x)
    assert np.all(np.diff(y) >= 0)
    assert np.diff(y).max() < 0.004
    assert np.abs(y - x).max() < 0.36
    np.testing.assert_allclose(towards_whole(np.array([0.0, 0.2, 0.5, 0.9, 1.3, 1e9])), [0, 0, 0.5, 1, 1, 1e9])


def test_sample_paths_spread_around_the_median_and_do_not_depend_on_chunks() -> None:
    history = weekly_history(200)
    state = encode(history, [])
    whole = np.concatenate([c.values for c in forecaster().sample_paths(state, 30, n_paths=300, chunk_steps=30)])
    cut = np.concatenate([c.values for c in forecaster().sample_paths(state, 30, n_paths=300, chunk_steps=7)])
    # A count may be rounded the other way where the last bit of a quantile differs.
    assert (whole == cut).mean() > 0.99
    index = METRIC_INDEX["events"]
    below = (whole[:, index] <= roll_out(state, 30).quantiles[:, index, MEDIAN, None] + 0.5).mean()
    assert 0.4 < below < 0.65
