"""Sample paths spread as the quantiles say, hang together, and keep every invariant."""

import math
from collections.abc import Iterator
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from forecasting.training import forecaster_of
from infra.schema import METRIC_INDEX, METRICS, QUANTILE_LEVELS, Kind
from infra.steps import HOUR_US
from models import checkpoint, general_folder
from models.baselines import floors
from models.constraints import constrain, violations
from models.contract import ForecastChunk, PathChunk
from models.floor import Floor
from models.paths import RankDynamics, RankStructure, floored_mean
from models.ranks import SLOW_SEASONS
from models.sample_paths import sample_paths
from tests.unit.models.model_series import weekly_history

M, Q = len(METRICS), len(QUANTILE_LEVELS)
K = sum(metric.kind is not Kind.TOTAL for metric in METRICS)
STRUCTURE = RankStructure((RankDynamics(0.99, 0.5, 0.3),) * K, (0.8,) * K)
NORMAL = np.array([NormalDist().inv_cdf(level) for level in QUANTILE_LEVELS])
COUNTS = [index for index, metric in enumerate(METRICS) if metric.kind is Kind.COUNT]


def forecast(steps: int, seed: int = 0) -> ForecastChunk:
    quantiles = np.sort(np.random.default_rng(seed).gamma(2.0, 30, (steps, M, Q)), axis=-1)
    quantiles[:, [METRIC_INDEX["events"], METRIC_INDEX["active_nodes"]]] *= 10
    return ForecastChunk(0, *constrain(quantiles.mean(axis=-1), quantiles))


def pieces(whole: ForecastChunk, lengths: list[int]) -> Iterator[ForecastChunk]:
    begin = 0
    for length in lengths:
        part = slice(begin, begin + length)
        yield ForecastChunk(begin, whole.mean[part], whole.quantiles[part])
        begin += length


def paths(chunk: ForecastChunk, n_paths: int, structure: RankStructure = STRUCTURE) -> np.ndarray:
    (drawn,) = sample_paths([chunk], (5000.0, 2000.0), structure, key=(0,), n_paths=n_paths)
    return drawn.values


def correlation(sums_MP: np.ndarray) -> float:
    return float(np.corrcoef(sums_MP[METRIC_INDEX["events"]], sums_MP[METRIC_INDEX["triangles"]])[0, 1])


def assert_paths_keep_every_invariant(chunk: PathChunk) -> None:
    assert (chunk.values[:, COUNTS] == np.rint(chunk.values[:, COUNTS])).all()
    for p in range(chunk.values.shape[-1]):
        path_HM = chunk.values[..., p]
        assert violations(path_HM, np.repeat(path_HM[..., None], Q, axis=-1)) == []


@settings(max_examples=25, deadline=None)
@given(arrays(np.float64, (4, M, Q), elements=st.floats(0, 500)), st.integers(1, 5))
def test_every_path_keeps_every_invariant(raw: np.ndarray, n_paths: int) -> None:
    mean, quantiles = constrain(raw.mean(axis=-1), raw)
    for chunk in sample_paths([ForecastChunk(0, mean, quantiles)], (9.0, 3.0), STRUCTURE, key=(1,), n_paths=n_paths):
        assert_paths_keep_every_invariant(chunk)


def test_no_path_has_more_loops_than_events_or_more_edges_than_there_ever_were() -> None:
    quantiles = np.tile(np.linspace(0, 20, Q), (50, M, 1))
    quantiles[:, METRIC_INDEX["new_edges"]] = 0.0
    mean, quantiles = constrain(quantiles.mean(axis=-1), quantiles)
    independent = RankStructure((RankDynamics(0, 0, 0),) * K, (0.0,) * K)
    drawn_HMP = paths(ForecastChunk(0, mean, quantiles), 20, independent)
    (few,) = sample_paths([ForecastChunk(0, mean, quantiles)], (9.0, 3.0), independent, key=(0,), n_paths=20)
    assert np.all(drawn_HMP[:, METRIC_INDEX["self_loops"]] <= drawn_HMP[:, METRIC_INDEX["events"]])
    assert few.values[:, METRIC_INDEX["unique_edges"]].max() == 3


def test_paths_spread_as_the_quantiles_say() -> None:
    whole = forecast(3)
    drawn_HMP = paths(whole, 4000)
    for name in ("events", "active_nodes"):
        index = METRIC_INDEX[name]
        for step in range(3):
            below = (drawn_HMP[step, index, :, None] <= whole.quantiles[step, index] + 0.5).mean(axis=0)
            np.testing.assert_allclose(below, QUANTILE_LEVELS, atol=0.04)


def test_chunks_change_nothing() -> None:
    whole = forecast(60)
    (at_once,) = sample_paths([whole], (5000.0, 2000.0), STRUCTURE, key=("g",), n_paths=7)
    cut = list(sample_paths(pieces(whole, [1, 0, 20, 39]), (5000.0, 2000.0), STRUCTURE, key=("g",), n_paths=7))
    assert [chunk.first_step for chunk in cut] == [0, 1, 1, 21]
    np.testing.assert_array_equal(np.concatenate([chunk.values for chunk in cut]), at_once.values)


def test_a_high_path_is_high_in_every_metric_and_stays_so() -> None:
    whole = forecast(48)
    drawn_HMP = paths(whole, 500)
    sums_MP = drawn_HMP.sum(axis=0)
    assert correlation(sums_MP) > 0.4
    alone = RankStructure((RankDynamics(0, 0, 0),) * K, (0.0,) * K)
    independent_MP = paths(whole, 500, alone).sum(axis=0)
    assert (
        abs(np.corrcoef(independent_MP[METRIC_INDEX["events"]], independent_MP[METRIC_INDEX["triangles"]])[0, 1]) < 0.2
    )
    assert sums_MP[METRIC_INDEX["events"]].std() > 2 * independent_MP[METRIC_INDEX["events"]].std()


def test_sums_of_steps_that_spread_little_carry_the_uncertainty_of_their_level() -> None:
    """Steps of 100 +- 30 are off by two thirds of that together, however little the errors of single steps last."""
    quantiles = np.tile(100 + 30 * NORMAL, (2000, M, 1))
    chunk = ForecastChunk(0, np.full((2000, M), 100.0), quantiles)
    fleeting = RankStructure((RankDynamics(math.exp(-1 / (SLOW_SEASONS * 168)), 0.3, 0.05),) * K, (0.8,) * K)
    drawn_HMP = paths(chunk, 300, fleeting)
    for name in ("events", "active_nodes", "triangles"):
        values_HP = drawn_HMP[:, METRIC_INDEX[name]]
        assert values_HP[::50].std() == pytest.approx(30, rel=0.1), name
        assert 18 < values_HP.mean(axis=0).std() < 29, name


def test_what_is_rarer_than_every_level_happens_now_and_then() -> None:
    mean, quantiles = np.full((500, M), 0.01), np.zeros((500, M, Q))
    # A loop is an event, so there are some.
    mean[:, METRIC_INDEX["events"]] = quantiles[:, METRIC_INDEX["events"]] = 5.0
    drawn_HMP = paths(ForecastChunk(0, mean, quantiles), 200)
    assert drawn_HMP[:, METRIC_INDEX["self_loops"]].mean() == pytest.approx(0.01, rel=0.2)


@pytest.mark.parametrize("size", [0.1, 0.5, 2.0, 20.0])
def test_paths_of_rare_events_have_their_mean(size: float) -> None:
    """Quantiles that were drawn to whole numbers say nothing of a count below a half; what they were before does."""
    rare = ["self_loops", "new_nodes", "triangles"]
    finer = np.full((400, M, Q), 500.0)
    finer[:, [METRIC_INDEX[name] for name in rare]] = size * np.maximum(np.array(QUANTILE_LEVELS) - 0.2, 0)
    mean = floored_mean(finer, np.array(QUANTILE_LEVELS))
    drawn_HMP = paths(ForecastChunk(0, mean, np.rint(finer), finer), 200)
    for name in rare:
        index = METRIC_INDEX[name]
        assert drawn_HMP[:, index].mean() == pytest.approx(mean[0, index], rel=0.1), name


def test_paths_of_the_forecaster_have_the_mean_that_it_says() -> None:
    history = weekly_history(8 * 168)
    loops = METRIC_INDEX["self_loops"]
    history.values[:, loops] = np.random.default_rng(0).poisson(0.15, len(history.values))
    found = checkpoint.load(general_folder())
    assert found is not None
    model = forecaster_of(found)
    state = model.update(model.start(HOUR_US, 0), history.values)
    chunks = list(model.sample_paths(state, 336, n_paths=200))
    said = sum(chunk.forecast.mean[:, loops].sum() for chunk in chunks)
    drawn = sum(chunk.values[:, loops].sum(axis=0) for chunk in chunks).mean()
    assert 20 < said < 100
    assert drawn == pytest.approx(said, rel=0.1)


@pytest.mark.parametrize("floor", floors(), ids=lambda floor: floor.name)
def test_floors_have_paths(floor: Floor) -> None:
    history = weekly_history(300)
    state = floor.update(floor.start(history.step_us, history.start_us), history.values)
    chunks = list(floor.sample_paths(state, 40, n_paths=20, chunk_steps=15))
    assert [chunk.first_step for chunk in chunks] == [0, 15, 30]
    for chunk in chunks:
        assert_paths_keep_every_invariant(chunk)
    # Totals go on from the last observed.
    total = METRIC_INDEX["total_nodes"]
    assert (chunks[0].values[0, total] >= history.values[-1, total]).all()


def test_no_paths_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one path"):
        list(sample_paths([forecast(1)], (0, 0), STRUCTURE, key=(0,), n_paths=0))
