import json
import math
from itertools import pairwise

import numpy as np
import pytest

from forecasting.backtest import backtest
from forecasting.backtests.plan import default_horizons, origin_stride
from forecasting.evaluation import MOST_ORIGINS, make_graph_plan
from infra.errors import UsageError
from infra.schema import METRIC_INDEX, METRIC_NAMES, QUANTILE_LEVELS
from infra.settings import Settings
from infra.steps import DAY_US, HOUR_US, MINUTE_US, WEEK_US
from models.baselines import Persistence, ProfileLevel, SeasonalNaive, SeasonalWindowMean, floors
from models.contract import ForecastChunk, History
from models.seasons import season_steps

M, EVENTS = len(METRIC_NAMES), METRIC_INDEX["events"]


def history(steps=120, seed=0):
    values = np.zeros((steps, M))
    weekly = 20 + 10 * np.sin(2 * np.pi * np.arange(steps) / 7)
    values[:, EVENTS] = np.random.default_rng(seed).poisson(weekly)
    values[:, METRIC_INDEX["active_nodes"]] = values[:, EVENTS] // 2
    return History(DAY_US, 0, values)


class Recorder:
    """A model that forwards to a floor and keeps what went in and out."""

    def __init__(self, inner):
        self.inner, self.updates, self.forecasts = inner, [], []
        self.name = "recorder"

    def start(self, step_us, start_us):
        return self.inner.start(step_us, start_us)

    def update(self, state, values):
        self.updates.append(values)
        return self.inner.update(state, values)

    def rollout(self, state, horizon_steps, *, chunk_steps=1024, seed=0):
        chunks = list(self.inner.rollout(state, horizon_steps, chunk_steps=5, seed=seed))
        self.forecasts.append(np.concatenate([chunk.quantiles for chunk in chunks]))
        yield from chunks


class Oracle:
    """Knows the series, and says it with certainty."""

    name = "oracle"

    def __init__(self, values):
        self.values = values

    def start(self, step_us, start_us):
        return 0

    def update(self, state, values):
        return state + len(values)

    def rollout(self, state, horizon_steps, *, chunk_steps=1024, seed=0):
        mean = self.values[state : state + horizon_steps]
        yield ForecastChunk(0, mean, np.repeat(mean[..., None], len(QUANTILE_LEVELS), axis=-1))


def row_of(result, model, bucket, metric="events"):
    (row,) = [r for r in result.rows if (r.model, r.bucket, r.metric) == (model, bucket, metric)]
    return row


def test_windows_follow_one_another_and_every_step_is_observed_once():
    recorder, series = Recorder(Persistence()), history()
    backtest(series, [recorder], horizons=(1, 7), origins=4)
    assert [len(update) for update in recorder.updates] == [92, 7, 7, 7]
    np.testing.assert_array_equal(np.concatenate(recorder.updates), series.values[:113])
    assert [len(forecast) for forecast in recorder.forecasts] == [7, 7, 7, 7]


@pytest.mark.parametrize("floor", floors(), ids=lambda floor: floor.name)
def test_what_comes_after_an_origin_changes_no_forecast_of_it(floor):
    series = history()
    changed = History(DAY_US, 0, series.values.copy())
    changed.values[106:] += 50  # behind the second origin of 99, 106, 113
    before, after = Recorder(floor), Recorder(floor)
    first = backtest(series, [before], horizons=(7,), origins=3)
    second = backtest(changed, [after], horizons=(7,), origins=3)
    for origin in (0, 1):
        np.testing.assert_array_equal(before.forecasts[origin], after.forecasts[origin])
    assert not np.array_equal(before.forecasts[2], after.forecasts[2])
    assert first.unscaled == second.unscaled


def test_a_model_cannot_change_the_history():
    series = history()
    kept = series.values.copy()

    class Vandal(Recorder):
        def update(self, state, values):
            state = super().update(state, values)
            values[:] = -1
            return state

    backtest(series, [Vandal(Persistence())], horizons=(7,), origins=3)
    np.testing.assert_array_equal(series.values, kept)


def test_scores_by_hand():
    series = history()
    series.values[-14:, EVENTS] = np.tile([1.0, 2, 3, 4, 5, 6, 7], 2)
    series.values[-14, EVENTS] = 100
    result = backtest(series, [SeasonalNaive()], horizons=(1, 7), origins=1)
    training = series.values[:113, EVENTS]
    scale = np.abs(training[7:] - training[:-7]).mean()
    recorder = Recorder(SeasonalNaive())
    backtest(series, [recorder], horizons=(7,), origins=1)
    error = np.abs(series.values[113:, EVENTS] - recorder.forecasts[0][:, EVENTS, 5])
    assert row_of(result, "seasonal_naive", "1").mase == pytest.approx(error[0] / scale)
    assert row_of(result, "seasonal_naive", "1-7").mase == pytest.approx(error.mean() / scale)
    assert row_of(result, "seasonal_naive", "2-10").mase == pytest.approx(error[1:].mean() / scale)
    assert [row_of(result, "seasonal_naive", bucket).n for bucket in ("1", "2-10", "1-7")] == [1, 6, 7]


def test_an_oracle_is_perfect_and_better_than_every_floor():
    series = history()
    result = backtest(series, [SeasonalNaive(), ProfileLevel(), Oracle(series.values)], horizons=(1, 7), origins=4)
    row = row_of(result, "oracle", "1-7")
    assert (row.mase, row.wql, row.coverage_80, row.winkler_80, row.n) == (0, 0, 1, 0, 28)


def test_ratios_are_geometric_means_over_the_counts_that_can_be_compared():
    result = backtest(history(), [SeasonalNaive(), SeasonalWindowMean(), Persistence()], horizons=(7,), origins=4)
    ratios = {(r.model, r.against): r for r in result.ratios if (r.bucket, r.score) == ("1-7", "mase")}
    compared = ["events", "active_nodes"]
    mase = {
        model: np.array([row_of(result, model, "1-7", metric).mase for metric in compared])
        for model in ("seasonal_naive", "seasonal_window_mean", "persistence")
    }
    best = np.min(list(mase.values()), axis=0)
    for model, scores in mase.items():
        against_naive, against_best = ratios[model, "seasonal_naive"], ratios[model, "best_floor"]
        assert against_naive.ratio == pytest.approx(math.sqrt(np.prod(scores / mase["seasonal_naive"])))
        assert against_best.ratio == pytest.approx(math.sqrt(np.prod(scores / best)))
        assert against_naive.n_metrics == against_best.n_metrics == 2
    assert "triangles" in result.unscaled
    assert math.isnan(row_of(result, "persistence", "1-7", "triangles").mase)


def test_json_has_no_nan_and_the_agreed_fields():
    result = backtest(history(), floors(), horizons=(1, 24), origins=2)
    document = json.loads(json.dumps(result.to_json("g"), allow_nan=False))
    assert document["graph"] == "g"
    assert document["protocol"]["origins"] == 2
    assert {"metric", "model", "bucket", "mase", "wql", "coverage_80", "coverage_95", "n"} <= set(document["rows"][0])
    assert [row["bucket"] for row in document["rows"] if row["metric"] == "events"][:4] == [
        "1",
        "2-10",
        "11-100",
        "1-24",
    ]
    assert set(document["timings"]) == {floor.name for floor in floors()}


def test_progress_counts_the_windows_of_all_models():
    seen = []
    backtest(
        history(), [SeasonalNaive(), Persistence()], horizons=(7,), origins=3, on_progress=lambda *p: seen.append(p)
    )
    assert seen == [(i, 6) for i in range(1, 7)]


def test_test_start_sets_the_first_origin():
    recorder = Recorder(Persistence())
    backtest(history(), [recorder], horizons=(7,), origins=2, test_start=50)
    assert [len(update) for update in recorder.updates] == [50, 7]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"horizons": ()}, "horizons"),
        ({"horizons": (0, 7)}, "horizons"),
        ({"horizons": (36_501,)}, "36,500"),
        ({"origins": 0}, "at least one origin"),
        ({"origins": 18}, "18 windows of 7 steps do not fit into 120 steps"),
        ({"test_start": 118}, "from step 118"),
        ({"test_start": 0}, "from step 0"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, words):
    with pytest.raises(UsageError, match=words):
        backtest(history(), [Persistence()], **{"horizons": (7,), "origins": 2, **arguments})


def test_models_need_different_names():
    with pytest.raises(UsageError, match="different names"):
        backtest(history(), [Persistence(), Persistence()], horizons=(7,))
    with pytest.raises(UsageError, match="different names"):
        backtest(history(), [], horizons=(7,))


CASES = [(1, 168), (168, 168), (24, 168), (36500, 168), (7, 7), (4, 52), (30, 52), (1440, 10_080), (5, 1)]


@pytest.mark.parametrize(("window", "season"), CASES)
def test_origins_visit_every_position_of_the_season(window: int, season: int):
    stride = origin_stride(window, season)
    assert window <= stride < window + 1.5 * season + 1
    assert len({number * stride % season for number in range(season)}) == season


STEPS = [
    (MINUTE_US, (1, 1440, 10_080)),
    (15 * MINUTE_US, (1, 96, 672)),
    (HOUR_US, (1, 24, 168)),
    (DAY_US, (1, 7)),
    (WEEK_US, (1, 52)),
]


@pytest.mark.parametrize(("step_us", "horizons"), STEPS)
def test_unasked_horizons_are_the_next_step_day_and_season(step_us: int, horizons: tuple[int, ...]):
    assert default_horizons(step_us) == horizons


@pytest.mark.parametrize("step_us", [15 * MINUTE_US, HOUR_US, DAY_US, WEEK_US])
def test_unasked_origins_are_as_many_as_the_history_has_room_for(step_us: int):
    season = season_steps(step_us)
    settings = Settings()
    for seasons, most in ((5, 1), (7, 2), (500, MOST_ORIGINS)):
        values = np.zeros((seasons * season, len(METRIC_NAMES)))
        plan = make_graph_plan(History(step_us, 0, values), "graph", settings)
        assert len(plan.origins) == most
        assert plan.first_origin >= 4 * season
        assert plan.origins[-1] + plan.window == len(values)
    with pytest.raises(UsageError, match="1 steps of graph"):
        make_graph_plan(History(step_us, 0, values[:1]), "graph", settings)


@pytest.mark.parametrize("step_us", [15 * MINUTE_US, HOUR_US, DAY_US])
def test_a_graph_too_young_to_train_on_leaves_what_the_general_model_needs(step_us: int):
    season = season_steps(step_us)
    young = History(step_us, 0, np.zeros((2 * season, M)))
    plan = make_graph_plan(young, "graph", Settings())
    assert (plan.origins, plan.window) == ((season,), season)
    assert len(make_graph_plan(History(step_us, 0, np.zeros((5 * season - 1, M))), "graph", Settings()).origins) > 1
    with pytest.raises(UsageError, match=f"without a training, and {season:,} are needed") as caught:
        make_graph_plan(young.part(0, 2 * season - 1), "graph", Settings())
    assert "shorter --horizons" in str(caught.value.fix)
    asked = Settings(backtest={"origins": 2})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="without a training") as caught:
        make_graph_plan(young, "graph", asked)
    assert "at most 1 --origins" in str(caught.value.fix)
    # Where fewer origins leave enough to train on, none are given up for more of them.
    with pytest.raises(UsageError, match=f"to train on, and {4 * season:,} are needed"):
        make_graph_plan(History(step_us, 0, np.zeros((5 * season, M))), "graph", asked)


def test_steps_that_the_general_model_does_not_know_need_a_training():
    weeks = History(WEEK_US, 0, np.zeros((4 * 52, M)))
    with pytest.raises(UsageError, match="to train on, and 208 are needed"):
        make_graph_plan(weeks, "graph", Settings())


def test_a_few_origins_are_spread_over_the_week():
    hours = sorted(number * origin_stride(168, 168) % 168 for number in range(6))
    gaps = [later - earlier for earlier, later in pairwise([*hours, hours[0] + 168])]
    assert max(gaps) < 60


def test_windows_stand_a_stride_apart():
    recorder, series = Recorder(Persistence()), history()
    backtest(series, [recorder], horizons=(7,), origins=3, stride=10)
    assert [len(update) for update in recorder.updates] == [len(series) - 27, 10, 10]


def test_windows_never_overlap():
    with pytest.raises(UsageError, match="overlap"):
        backtest(history(), [Persistence()], horizons=(7,), origins=3, stride=6)
