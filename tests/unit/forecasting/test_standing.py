"""Where a model stands is read off backtests without flattery."""

import math

import numpy as np
import pytest

from forecasting.backtest import backtest
from forecasting.backtests.scores import BacktestResult
from forecasting.reports.standing import Score, Standing, standing
from infra.schema import METRIC_NAMES
from models.baselines import Drift, Persistence, ProfileLevel, SeasonalNaive
from tests.unit.forecasting.forecast_cases import some_history

METRICS = ("events", "new_nodes")


@pytest.fixture(scope="module")
def result() -> BacktestResult:
    models = [ProfileLevel(), SeasonalNaive(), Persistence(), Drift()]
    return backtest(some_history(900), models, horizons=(1, 24), origins=3)


@pytest.fixture(scope="module")
def where(result: BacktestResult) -> Standing:
    return standing({1: result, 24: result}, "profile_level", METRICS)


def test_scores_stand_beside_the_floor_that_is_best(result: BacktestResult, where: Standing) -> None:
    assert [(row.metric, row.horizon) for row in where.comparisons] == [
        ("events", 1), ("events", 24), ("new_nodes", 1), ("new_nodes", 24),
    ]  # fmt: skip
    for row in where.comparisons:
        bucket = "1" if row.horizon == 1 else "1-24"
        found = {r.model: r for r in result.rows if (r.metric, r.bucket) == (row.metric, bucket)}
        own = found.pop("profile_level")
        assert (row.mase.model, row.wql.model) == (own.mase, own.wql)
        assert (row.coverage_80, row.coverage_95, row.n) == (own.coverage_80, own.coverage_95, own.n)
        assert row.wql.floor == min(r.wql for r in found.values()) == found[row.wql.floor_name].wql
        assert row.mase.floor == min(r.mase for r in found.values()) == found[row.mase.floor_name].mase


def test_ratios_are_those_of_the_backtest(where: Standing) -> None:
    assert where.models == ["profile_level", "seasonal_naive", "persistence", "drift"]
    assert where.ratios["seasonal_naive", 24, "wql"] == pytest.approx(1)
    best = where.best(24, "wql")
    assert best is not None
    assert where.ratios[best, 24, "wql"] == min(where.ratios[name, 24, "wql"] for name in where.models)


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        (1.034, "One step ahead the best floor is better: the model's loss is 3% above it."),
        (1.004, "One step ahead it is level with the best floor."),
        (0.9, "One step ahead its loss is 10% below the best floor's."),
        (math.nan, "One step ahead no count metric could be compared."),
    ],
)
def test_words_follow_the_ratio(ratio: float, said: str) -> None:
    assert Standing("m", (1,), (), {}, {(1, "wql"): ratio}, {}).sentences() == [said]


def test_undefined_scores_compare_with_nothing() -> None:
    assert Score(math.nan, 1.0, "drift").is_better is None
    assert Score(1.0, math.nan, "").is_better is None
    assert Score(0.9996, 1.0, "drift").is_better is False
    assert Score(0.99, 1.0, "drift").is_better is True
    assert Standing("m", (1,), (), {("m", 1, "wql"): math.nan}, {}, {}).best(1, "wql") is None


def test_metric_that_never_moves_is_left_undefined() -> None:
    history = some_history(900)
    history.values[:, METRIC_NAMES.index("self_loops")] = 0
    result = backtest(history, [ProfileLevel(), SeasonalNaive()], horizons=(24,), origins=2)
    (row,) = standing({24: result}, "profile_level", ("self_loops",)).comparisons
    assert np.isnan([row.mase.model, row.mase.floor, row.wql.model]).all()
    assert row.wql.is_better is None
