"""The floors on a real log: published figures come out again, and intervals mean what they say."""

import gzip

import numpy as np
import pytest

from forecasting.backtest import backtest
from infra.schema import METRIC_INDEX, METRIC_NAMES
from infra.steps import HOUR_US
from models.baselines import floors
from models.contract import History


@pytest.fixture(scope="module")
def mathoverflow(data_dir):
    """Hourly counts of events and new nodes, counted without the pipeline."""
    with gzip.open(data_dir / "sx-mathoverflow" / "sx-mathoverflow.txt.gz", "rb") as log:
        edges = np.loadtxt(log, dtype=np.int64)
    edges = edges[np.argsort(edges[:, 2], kind="stable")]
    hour = edges[:, 2] // 3600
    first = int(hour[0])
    values = np.zeros((int(hour[-1]) - first + 1, len(METRIC_NAMES)))
    values[:, METRIC_INDEX["events"]] = np.bincount(hour - first)
    seen_first = np.unique(edges[:, :2].ravel(), return_index=True)[1] // 2
    values[:, METRIC_INDEX["new_nodes"]] = np.bincount(hour[seen_first] - first, minlength=len(values))
    values[:, METRIC_INDEX["active_nodes"]] = values[:, METRIC_INDEX["new_nodes"]] + 1000
    values[:, METRIC_INDEX["total_nodes"]] = values[:, METRIC_INDEX["new_nodes"]].cumsum()
    return History(HOUR_US, first * HOUR_US, values)


@pytest.fixture(scope="module")
def scores(mathoverflow):
    result = backtest(mathoverflow, floors(), horizons=(168,), origins=20)
    return {(row.model, row.metric): row for row in result.rows if row.bucket == "1-168"}


def test_the_order_of_the_floors_is_the_known_one(scores):
    naive, window, profile = (
        scores[model, "events"].mase for model in ("seasonal_naive", "seasonal_window_mean", "profile_level")
    )
    assert profile < window < naive
    # Published over other origins: 1.023, 0.773 and 0.730.
    assert window / naive == pytest.approx(0.756, abs=0.04)
    assert profile / naive == pytest.approx(0.714, abs=0.04)


@pytest.mark.parametrize("model", ["seasonal_naive", "seasonal_window_mean", "profile_level"])
@pytest.mark.parametrize("metric", ["events", "new_nodes"])
def test_intervals_mean_what_they_say(scores, model, metric):
    row = scores[model, metric]
    # Intervals end at integers, both ends included, so those of low counts hold more than they say.
    wider = 0.4 if metric == "new_nodes" else 0.06
    assert 0.45 < row.coverage_50 < 0.5 + wider
    assert 0.75 < row.coverage_80 < 0.8 + wider
    assert row.coverage_95 > 0.93
