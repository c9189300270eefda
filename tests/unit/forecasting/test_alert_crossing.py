"""The probability of a crossing is that of counting paths one by one."""

import numpy as np
import pytest

from forecasting.alerts.crossing import CrossingCount
from forecasting.alerts.judging import UnfitRuleError, check_fit, judge_forecasts
from forecasting.alerts.machine import Verdict
from forecasting.alerts.rules import Rule, RuleError, checked, covers, describe, narrowed
from infra.schema import METRIC_INDEX, METRICS
from infra.settings import AlertRuleSettings, TargetSettings
from infra.steps import DAY_US, HOUR_US
from models.baselines import ProfileLevel
from models.contract import ForecastChunk, History, PathChunk
from models.paths import RankDynamics, RankPaths, RankStructure

N_PATHS, HORIZON = 300, 60
START_US = 20_000 * DAY_US


def rule(**spec: object) -> Rule:
    given = {"kind": "forecast", "graph": "town", "metric": "events", **spec}
    return checked("quiet", AlertRuleSettings(**given), {})  # type: ignore[arg-type]


def history(n_steps: int, *, start_us: int = START_US) -> History:
    values = np.zeros((n_steps, len(METRICS)))
    values[:, METRIC_INDEX["events"]] = np.arange(1, n_steps + 1)
    return History(HOUR_US, start_us, values)


def drawn(*, rho: float = 0.97, seed: int = 1) -> np.ndarray:
    """Return paths [H, P] of a count whose steps hang together."""
    ranks = RankPaths(RankStructure.one(RankDynamics(rho, 0.0, 0.9)), key=(seed,), n_paths=N_PATHS).draw(HORIZON)
    return np.rint(100 * ranks[:, 0])


def chunks(paths_HP: np.ndarray, size: int) -> list[PathChunk]:
    values = np.zeros((HORIZON, len(METRICS), N_PATHS))
    values[:, METRIC_INDEX["events"]] = paths_HP
    nothing = ForecastChunk(0, np.zeros((0, len(METRICS))), np.zeros((0, len(METRICS), 11)))
    return [PathChunk(first, values[first : first + size], nothing) for first in range(0, HORIZON, size)]


def found(rule: Rule, paths_HP: np.ndarray, seen: History, size: int = 7):
    count = CrossingCount(rule, seen, N_PATHS)
    for chunk in chunks(paths_HP, size):
        count.add(chunk)
    return count.found()


@pytest.mark.parametrize("size", [1, 7, 60])
@pytest.mark.parametrize(("bound", "within"), [({"below": 20}, 24), ({"above": 90}, 24), ({"below": 20}, 1)])
def test_probability_is_the_share_of_paths_that_cross_at_any_step(size, bound, within) -> None:
    paths = drawn()
    said = found(rule(within=within, **bound), paths, history(30), size)
    crosses = [
        any(
            (value < bound["below"]) if "below" in bound else (value > bound["above"]) for value in paths[:within, path]
        )
        for path in range(N_PATHS)
    ]
    assert said.probability == np.mean(crosses)
    assert said.periods == within


def test_steps_that_hang_together_cross_less_often_than_their_quantiles_would_say() -> None:
    together, apart = (found(rule(within=24, below=10), drawn(rho=rho), history(30)).probability for rho in (0.99, 0.0))
    # Each step alone is below 10 with a probability of a tenth; 24 independent ones with 0.92.
    assert apart > 0.85
    assert together < 0.6


def test_expected_time_is_the_first_at_which_the_rule_is_met() -> None:
    paths = np.full((HORIZON, N_PATHS), 50.0)
    paths[5:, :180] = 0
    paths[9:, 180:270] = 0
    said = found(rule(within=48, below=1, probability=0.8), paths, history(30))
    assert said.probability == pytest.approx(0.9)
    # By the end of the tenth step.
    assert said.expected_us == START_US + (30 + 10) * HOUR_US
    assert found(rule(within=8, below=1, probability=0.8), paths, history(30)).expected_us is None


def test_sum_is_expected_by_the_end_of_its_day() -> None:
    said = found(rule(within=48, above=1, aggregate="day"), np.full((HORIZON, N_PATHS), 50.0), history(30))
    assert said.expected_us == START_US + 48 * HOUR_US


@pytest.mark.parametrize("size", [1, 7, 60])
def test_sums_are_of_whole_days_and_hold_what_was_observed_of_the_first(size: int) -> None:
    seen, paths = history(30), drawn(seed=4)
    said = found(rule(within=HORIZON, above=1400, aggregate="day"), paths, seen, size)
    # The history ends six hours into its second day: 18 steps complete it, then 24 and 18 of 24.
    begun = seen.values[24:, METRIC_INDEX["events"]].sum()
    sums = np.stack([begun + paths[:18].sum(axis=0), paths[18:42].sum(axis=0)])
    assert said.periods == 2
    assert said.probability == (sums > 1400).any(axis=0).mean()
    assert 0 < said.probability < 1


def test_day_whose_beginning_was_not_observed_is_not_told() -> None:
    seen = history(3, start_us=START_US + 10 * HOUR_US)
    assert found(rule(within=HORIZON, above=1, aggregate="day"), drawn(), seen).periods == 2


def test_judgement_of_a_model_has_hysteresis() -> None:
    rng = np.random.default_rng(0)
    values = np.zeros((24 * 28, len(METRICS)))
    hours = np.arange(len(values))
    values[:, METRIC_INDEX["events"]] = rng.poisson(20 + 15 * np.sin(hours * 2 * np.pi / 24))
    seen = History(HOUR_US, START_US, values)
    model = ProfileLevel()
    state = model.update(model.start(HOUR_US, START_US), values)
    bounds = {
        "sure": rule(below=20, within="1d", probability=0.8),
        "never": rule(above=500, within="1d", probability=0.8),
        "between": rule(below=20, within="1d", probability=0.999999, resolve_probability=0.1),
    }
    rules = [Rule(name, one.spec, one.patterns) for name, one in bounds.items()]
    said = judge_forecasts(rules, model, state, seen, n_paths=100, chunk_steps=10, seed=0)
    verdicts = {name: judgement.verdict for name, judgement in said.items()}
    assert verdicts["sure"] is Verdict.FIRE
    assert verdicts["never"] is Verdict.CLEAR
    assert said["sure"].facts["expected"] is not None
    assert said["sure"].step_us == START_US + (len(values) - 1) * HOUR_US
    again = judge_forecasts(rules, model, state, seen, n_paths=100, chunk_steps=24, seed=0)
    assert again["between"].facts["probability"] == said["between"].facts["probability"]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"metric": None, "below": 1}, "metric"),
        ({}, "below"),
        ({"below": 1, "above": 2}, "above"),
        ({"below": 1, "resolve_probability": 0.9}, "resolve_probability"),
        ({"below": 1, "metric": "reciprocity", "aggregate": "day"}, "aggregate"),
        ({"below": 1, "within": "12h", "aggregate": "day"}, "within"),
        ({"below": 1, "after": "3h"}, "after"),
        ({"below": 1, "graph": "Town"}, "graph"),
        ({"below": 1, "deliver": ["nowhere"]}, "deliver"),
        ({"below": 1, "deliver": ["theirs"]}, "deliver"),
        ({"kind": "stale", "metric": None}, "after"),
        ({"kind": "stale", "metric": None, "after": "3h", "for_steps": 3}, "for_steps"),
    ],
)
def test_rule_that_cannot_work_names_its_member(spec, field: str) -> None:
    given = AlertRuleSettings(**{"kind": "forecast", "graph": "town", "metric": "events", **spec})
    with pytest.raises(RuleError) as caught:
        checked("quiet", given, {"theirs": TargetSettings(kind="folder", graphs=["harbour"])})
    assert caught.value.field == field
    assert "[alerts.rules.quiet]" in str(caught.value)
    assert "cannot be None" not in str(caught.value)


def test_rule_that_steps_do_not_fit_says_so() -> None:
    daily = rule(below=1, within=3, aggregate="day")
    with pytest.raises(UnfitRuleError, match="no day ends"):
        check_fit(daily, HOUR_US)
    with pytest.raises(UnfitRuleError, match="make up no day"):
        check_fit(daily, 7 * HOUR_US)
    check_fit(rule(below=1, within="2d", aggregate="day"), HOUR_US)
    with pytest.raises(UnfitRuleError, match="more than 36,500 steps of 1h"):
        check_fit(rule(below=1, within="218w"), HOUR_US)
    check_fit(rule(below=1, within="217w"), HOUR_US)


def test_rule_over_all_graphs_is_over_what_its_key_may_see() -> None:
    everything = rule(below=1, graph="*")
    seen = narrowed(everything, ["town", "shop.*"])
    assert seen is not None
    assert [seen.watches(graph) for graph in ("town", "shop.a", "harbour", "town2")] == [True, True, False, False]
    assert narrowed(rule(below=1, graph="shop.*"), ["shop.a"]) is None
    assert narrowed(rule(below=1, graph="harbour"), ["town"]) is None
    assert covers("shop.*", "shop.eu.*")
    assert not covers("shop.eu.*", "shop.*")
    assert Rule.from_json("quiet", seen.to_json()) == seen


def test_rule_is_said_in_words() -> None:
    assert (
        describe(rule(below=50, within="1d"))
        == "events of town is below 50 within 1d with a probability of 80% or more"
    )
    silent = AlertRuleSettings(kind="stale", graph="*", after="3h")
    assert describe(checked("silent", silent, {})) == "no step of some graph has closed for 3h"
