"""What a backtest says beside the scores of each metric: calibration, sums, ratios, costs; and that nothing leaks."""

import json
import math

import numpy as np
import pytest

from forecasting.backtest import backtest
from forecasting.backtests.parts import Part, run_parts
from forecasting.backtests.plan import make_plan
from forecasting.backtests.ratios import COUNT_METRICS, best_single, left_out, left_out_note, ratios
from forecasting.backtests.scores import BacktestResult, Row, summarise
from forecasting.resolving import general_model
from forecasting.training import forecaster_of
from infra.schema import METRIC_INDEX, METRIC_NAMES, METRICS, QUANTILE_LEVELS, Kind
from infra.steps import DAY_US
from models.baselines import Persistence, ProfileLevel, SeasonalNaive, floors
from models.contract import History
from models.floor_names import library_floors
from models.forecaster import ForecasterConfig, ForecasterNet, MambaForecaster
from models.ranks import default_structure
from tests.unit.forecasting.forecast_cases import some_history

EVENTS = METRIC_INDEX["events"]
MODELS = [*floors(), *library_floors()]


def untrained() -> MambaForecaster:
    config = ForecasterConfig(d_model=16, n_layers=1, d_state=8, headdim=16)
    return MambaForecaster(ForecasterNet(config), default_structure(24 * 7), ranks_season=24 * 7, name="mamba2")


def general() -> MambaForecaster:
    return forecaster_of(general_model())


@pytest.fixture(scope="module")
def result() -> BacktestResult:
    return backtest(some_history(900), [ProfileLevel(), SeasonalNaive(), Persistence()], horizons=(1, 48), origins=4)


def forecasts(history, model, origins=3, window=24):
    """All quantiles and means that a backtest asked for, by origin."""
    seen = []

    class Listening:
        name = model.name

        def start(self, step_us, start_us):
            return model.start(step_us, start_us)

        def update(self, state, values):
            return model.update(state, values)

        def rollout(self, state, horizon_steps, *, chunk_steps=1024, seed=0):
            for chunk in model.rollout(state, horizon_steps, chunk_steps=chunk_steps, seed=seed):
                seen.append(np.concatenate([chunk.mean[..., None], chunk.quantiles], axis=-1))
                yield chunk

    backtest(history, [Listening()], horizons=(window,), origins=origins)
    assert len(seen) == origins
    return seen


def disturbed(values, origin, how):
    values = values.copy()
    if how == "raised":
        values[origin:] += 50
    elif how == "shifted":
        values[origin:] = np.roll(values[origin:], 5, axis=0)
    else:
        values[origin:] = 0
    return values


@pytest.mark.parametrize("how", ["raised", "shifted", "emptied"])
@pytest.mark.parametrize(
    "make", [*(type(floor) for floor in MODELS), untrained, general], ids=lambda make: make.__name__
)
def test_no_model_sees_what_lies_behind_its_origin(make, how):
    # By the day, where a fit of the libraries takes a second.
    history = some_history(150, step_us=DAY_US)
    origin = len(history) - 2 * 7  # the second of three
    changed = History(history.step_us, history.start_us, disturbed(history.values, origin, how))
    assert not np.array_equal(changed.values[origin:], history.values[origin:])
    model = make()
    before, after = forecasts(history, model, window=7), forecasts(changed, model, window=7)
    np.testing.assert_array_equal(before[0], after[0])
    np.testing.assert_array_equal(before[1], after[1])
    # The test can fail: the third origin lies behind the change.
    assert not np.array_equal(before[2], after[2])


def test_calibration_by_hand(result: BacktestResult):
    history = some_history(900)
    fans = [chunk[..., 1:] for chunk in forecasts(history, SeasonalNaive(), origins=4, window=48)]
    observed = history.values[-4 * 48 :].reshape(4, 48, -1)
    found = {(c.metric, c.model, c.bucket): c for c in result.calibration}
    row = found["events", "seasonal_naive", "1-48"]
    pairs = list(zip(observed, fans, strict=True))
    by_origin = np.array([(seen[:, EVENTS, None] < fan[:, EVENTS]).mean(axis=0) for seen, fan in pairs])
    np.testing.assert_allclose(row.below, by_origin.mean(axis=0))
    counts = [index for index, metric in enumerate(METRICS) if metric.kind is Kind.COUNT]
    together = np.mean([
        (seen[:, counts, None] <= fan[:, counts]).mean(axis=(0, 1)) for seen, fan in pairs
    ], axis=0)  # fmt: skip
    np.testing.assert_allclose(found["counts", "seasonal_naive", "1-48"].at_or_below, together)
    assert all(low <= high for low, high in zip(row.below, row.at_or_below, strict=True))
    assert len(row.below_se) == len(QUANTILE_LEVELS)
    assert max(row.below_se) > 0


def test_daily_sums_by_hand(result: BacktestResult):
    history = some_history(900)
    means = np.stack([chunk[..., 0] for chunk in forecasts(history, SeasonalNaive(), origins=4, window=48)])
    observed = history.values[-4 * 48 :].reshape(4, 2, 24, -1)[..., EVENTS].sum(axis=2)
    daily = means.reshape(4, 2, 24, -1)[..., EVENTS].sum(axis=2)
    (row,) = [s for s in result.sums if (s.metric, s.model, s.period) == ("events", "seasonal_naive", "day")]
    assert row.wape_mean == pytest.approx(np.abs(daily - observed).sum() / observed.sum())
    assert row.n == 8
    (week,) = [s for s in result.sums if (s.metric, s.model, s.period) == ("events", "seasonal_naive", "week")]
    assert week.n == 0
    assert math.isnan(week.wape_mean)


def test_costs_are_measured(result: BacktestResult):
    assert result.timings.keys() == {row.model for row in result.rows}
    for timing in result.timings.values():
        assert 0 < timing.s_per_rollout <= timing.rollout_s
        assert 0 < timing.s_per_update <= timing.update_s
        assert timing.peak_mb >= 0 or math.isnan(timing.peak_mb)


def test_a_result_survives_json(result: BacktestResult):
    text = json.dumps(result.to_json("g"), allow_nan=False)
    again = BacktestResult.from_json(json.loads(text))
    assert json.dumps(again.to_json("g"), allow_nan=False) == text


def rows(scores):
    """Rows from scores by model, given for the first count metrics; the rest are undefined."""
    counts = [metric.name for metric in METRICS if metric.kind is Kind.COUNT]
    return [
        Row(metric, model, "1", score, score, *(math.nan,) * 5, 1)
        for model, values in scores.items()
        for metric, score in zip(counts, [*values, *(math.nan,) * (len(counts) - len(values))], strict=True)
    ]


def test_the_best_single_floor_is_one_floor_for_all_metrics():
    # Geometric means: a 2, b 3, c sqrt(9 / 2).
    graph = rows({"seasonal_naive": [2.0, 2.0], "b": [1.0, 9.0], "c": [9.0, 0.5], "ours": [1.0, 1.0]})
    found = {
        (r.against, r.floor): r
        for r in ratios([graph], ["ours", "seasonal_naive", "b", "c"], ["seasonal_naive", "b", "c"])
        if (r.model, r.score) == ("ours", "wql")
    }
    assert found["seasonal_naive", "seasonal_naive"].ratio == pytest.approx(1 / 2)
    assert found["best_single_floor", "seasonal_naive"].ratio == pytest.approx(1 / 2)
    assert found["best_floor", ""].ratio == pytest.approx(1 / math.sqrt(0.5))
    assert found["best_floor", ""].n_metrics == 2


def test_graphs_weigh_the_same_however_many_metrics_they_have():
    one = rows({"seasonal_naive": [1.0, 1.0, 1.0], "ours": [0.5, 0.5, 0.5]})
    two = rows({"seasonal_naive": [1.0], "ours": [2.0]})
    (ratio,) = [
        r
        for r in ratios([one, two], ["ours", "seasonal_naive"], ["seasonal_naive"])
        if (r.model, r.score, r.against) == ("ours", "mase", "seasonal_naive")
    ]
    assert (ratio.ratio, ratio.n_metrics, ratio.n_graphs) == (pytest.approx(1), 4, 2)


def test_a_model_that_some_graphs_lack_is_compared_on_the_others():
    one = rows({"seasonal_naive": [1.0], "ours": [0.5], "general": [2.0]})
    two = rows({"seasonal_naive": [1.0], "general": [8.0]})
    for graphs in ([one, two], [two, one]):
        found = {
            r.model: (r.ratio, r.n_graphs)
            for r in ratios(graphs, ["ours", "general", "seasonal_naive"], ["seasonal_naive"])
            if (r.score, r.against) == ("wql", "best_floor")
        }
        assert found == {
            "ours": (pytest.approx(0.5), 1),
            "general": (pytest.approx(4.0), 2),
            "seasonal_naive": (pytest.approx(1.0), 2),
        }


def test_a_floor_that_is_undefined_where_another_is_not_wins_nothing_by_it():
    scores = {"a": np.array([4.0, 0.001, np.nan]), "b": np.array([3.0, np.nan, 0.0])}
    assert best_single([scores], ["a", "b"]) == "b"
    assert best_single([{"a": np.array([np.nan]), "b": np.array([1.0])}], ["a", "b"]) is None


def test_parts_that_were_kept_give_the_same_scores():
    history, model = some_history(900), SeasonalNaive()
    plan = make_plan(history, horizons=(1, 48), origins=3)
    parts: dict[int, Part] = {}
    run_parts(history, model, plan, range(3), lambda number, part: parts.update({number: Part.of(part.arrays())}))
    whole = backtest(history, [model], horizons=(1, 48), origins=3)
    kept = summarise(history, plan, {model.name: [parts[n] for n in range(3)]}, [model.name])
    assert kept.rows == whole.rows
    assert repr(kept.calibration) == repr(whole.calibration)
    assert repr(kept.sums) == repr(whole.sums)
    np.testing.assert_array_equal(kept.fans[model.name], whole.fans[model.name])
    assert kept.fans[model.name].shape == (48, len(METRIC_NAMES), 6)


def test_some_origins_alone_are_forecast_as_in_a_whole_run():
    history, model = some_history(900), ProfileLevel()
    plan = make_plan(history, horizons=(24,), origins=4)
    whole: dict[int, Part] = {}
    some: dict[int, Part] = {}
    run_parts(history, model, plan, range(4), lambda number, part: whole.update({number: part}))
    run_parts(history, model, plan, [3, 1], lambda number, part: some.update({number: part}))
    assert sorted(some) == [1, 3]
    for number, part in some.items():
        for ours, theirs in zip(part.tallies, whole[number].tallies, strict=True):
            np.testing.assert_array_equal(ours.shares_below(), theirs.shares_below())


def test_metrics_that_a_score_of_zero_keeps_out_of_a_mean_are_named():
    graph = rows({"a": [1.0, 0.0, 2.0], "b": [0.5, 1.0, 2.0], "ours": [1.0, 1.0, 0.0]})
    models, floors = ["ours", "a", "b"], ["a", "b"]
    first, second, third = COUNT_METRICS[:3]
    found = {(one.model, one.against): one.metrics for one in left_out(graph, models, floors) if one.score == "wql"}
    assert found["ours", "best_floor"] == (second, third)
    assert found["b", "best_floor"] == (second,)
    taken = {(r.model, r.against): r.n_metrics for r in ratios([graph], models, floors) if r.score == "wql"}
    # What is undefined is no score of 0.
    assert {key: 3 - len(found.get(key, ())) for key in taken} == taken
    note = left_out_note(one for one in left_out(graph, models, floors) if one.model == "ours")
    assert note.startswith(f"2 of {len(COUNT_METRICS)} count metrics")
    assert note.endswith(f": {second} (steps 1), {third} (steps 1)")
    assert left_out_note([]) == ""
    assert first not in note


def calm_at_last():
    """A history whose last steps a simple method forecasts without an error: as many are active in each."""
    history = some_history(900)
    values = history.values.copy()
    values[-500:, METRIC_INDEX["active_nodes"]] = 40
    return History(history.step_us, history.start_us, values)


def test_a_result_says_what_its_means_leave_out_and_keeps_it_in_json():
    models = [SeasonalNaive(), Persistence()]
    found = backtest(calm_at_last(), models, horizons=(24,), origins=2)
    told = {(one.model, one.score) for one in found.left_out if "active_nodes" in one.metrics}
    assert ("persistence", "mase") in told
    values = json.loads(json.dumps(found.to_json("g"), allow_nan=False))
    assert {"model", "bucket", "score", "against", "metrics"} == set(values["left_out"][0])
    assert BacktestResult.from_json(values).left_out == found.left_out
    # Results of before did not say.
    del values["left_out"]
    assert BacktestResult.from_json(values).left_out == []
