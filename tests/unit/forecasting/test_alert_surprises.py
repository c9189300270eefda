"""Surprises: tails err on the side of silence, and false discoveries stay few whatever depends on whatever."""

import numpy as np
import pytest
from scipy import stats

from forecasting.alerts.judging import judge_surprises
from forecasting.alerts.machine import Verdict
from forecasting.alerts.rules import checked
from forecasting.alerts.surprises import discoveries, step_level, tail_probability
from infra.schema import METRIC_INDEX, METRIC_NAMES, METRICS, QUANTILE_LEVELS
from infra.settings import AlertRuleSettings
from infra.steps import DAY_US, HOUR_US, WEEK_US

LEVELS = np.array(QUANTILE_LEVELS)


def tail(value: float, quantiles: np.ndarray, unit: float = 1e-12) -> float:
    return float(tail_probability(np.array([value]), quantiles[None], np.array([unit]))[0])


def test_inside_the_levels_it_is_twice_the_smaller_side() -> None:
    quantiles = stats.norm.ppf(LEVELS)
    for level in LEVELS:
        assert tail(stats.norm.ppf(level), quantiles) == pytest.approx(min(1, 2 * min(level, 1 - level)))
    assert tail(stats.norm.ppf(0.15), quantiles) == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize(
    "truth",
    [stats.norm(), stats.expon(), stats.lognorm(0.5), stats.lognorm(1.0), stats.t(5), stats.laplace(), stats.gamma(2)],
    ids=["normal", "exponential", "lognormal-0.5", "lognormal-1", "t5", "laplace", "gamma"],
)
def test_beyond_the_levels_it_is_not_less_than_what_is_true_of_common_tails(truth) -> None:
    quantiles = truth.ppf(LEVELS)
    for rarity in (1e-2, 1e-3, 1e-4, 1e-5):
        assert tail(truth.ppf(1 - rarity), quantiles) >= 2 * rarity * 0.999
        assert tail(truth.ppf(rarity), quantiles) >= 2 * rarity * 0.999
    further = [tail(truth.ppf(1 - rarity), quantiles) for rarity in (1e-2, 1e-4, 1e-8, 1e-12)]
    assert further == sorted(further, reverse=True)


def test_count_that_is_mostly_zero_is_no_surprise_at_zero_and_a_small_one_at_one() -> None:
    quantiles = np.array([0.0] * 9 + [1.0, 2.0])
    assert tail(0, quantiles, 1) == 1
    assert tail(2, quantiles, 1) >= 0.05
    never = np.zeros(11)
    assert tail(0, never, 1) == 1
    assert 0.01 < tail(1, never, 1) < 0.05
    assert tail(1000, never, 1) < 1e-6


def test_step_up_procedure_is_that_of_benjamini_and_yekutieli() -> None:
    rng = np.random.default_rng(5)
    for _ in range(50):
        given = rng.uniform(size=12) ** 4
        said, bound = discoveries(given, 0.1)
        reference = stats.false_discovery_control(given, method="by") <= 0.1
        np.testing.assert_array_equal(said, reference)
        assert (given[said] <= bound).all()
    assert discoveries([], 0.1)[0].size == 0


def test_level_of_a_step_shares_the_rate_out_over_the_window_and_the_graphs() -> None:
    assert step_level(0.1, "30d", HOUR_US, 2) == pytest.approx(0.1 / 720 / 2)
    assert step_level(0.1, "1h", DAY_US, 0) == pytest.approx(0.1)
    # Five Mondays may lie within thirty days.
    assert step_level(0.1, "30d", WEEK_US, 1) == pytest.approx(0.1 / 5)


WINDOWS, STEPS, GRAPHS = 200, 20, 3
RATE = 0.2


def simulated(rng: np.random.Generator, *, shared: float, memory: float) -> np.ndarray:
    """Return normal scores [graphs, steps, metrics] that hang together across metrics, graphs and time."""
    everywhere = rng.standard_normal((1, STEPS, 1))
    own = rng.standard_normal((GRAPHS, STEPS, len(METRICS)))
    fresh = np.sqrt(shared) * everywhere + np.sqrt(1 - shared) * own
    scores = fresh.copy()
    for step in range(1, STEPS):
        scores[:, step] = memory * scores[:, step - 1] + np.sqrt(1 - memory**2) * fresh[:, step]
    # Some metrics move against the others: two-sided tails of such are not positively dependent.
    scores[:, :, ::3] *= -1
    return scores


@pytest.mark.parametrize(("shared", "memory"), [(0.0, 0.0), (0.9, 0.0), (0.5, 0.9)], ids=["apart", "metrics", "both"])
@pytest.mark.parametrize("share_odd", [0.0, 0.03], ids=["nothing odd", "some odd"])
def test_false_discovery_rate_of_a_window_holds_for_calibrated_forecasts(shared, memory, share_odd) -> None:
    rng = np.random.default_rng(7)
    level = step_level(RATE, f"{STEPS}h", HOUR_US, GRAPHS)
    proportions, power = [], []
    for _ in range(WINDOWS):
        scores = simulated(rng, shared=shared, memory=memory)
        is_odd = rng.uniform(size=scores.shape) < share_odd
        scores[is_odd] += 40 * rng.choice([-1, 1], size=int(is_odd.sum()))
        quantiles = np.tile(stats.norm.ppf(LEVELS), (scores.size, 1))
        tails = tail_probability(scores.ravel(), quantiles, np.full(scores.size, 1e-12)).reshape(scores.shape)
        found = np.array([[discoveries(of_step, level)[0] for of_step in of_graph] for of_graph in tails])
        proportions.append((found & ~is_odd).sum() / max(1, found.sum()))
        if is_odd.any():
            power.append(found[is_odd].mean())
    spread = np.std(proportions) / np.sqrt(len(proportions))
    assert np.mean(proportions) <= RATE + 3 * spread
    if share_odd:
        assert np.mean(power) > 0.3


@pytest.mark.parametrize("shared", [0.0, 0.95])
def test_the_rate_is_not_met_by_never_saying_anything(shared: float) -> None:
    """With tail probabilities that are exact, false discoveries come about as often as they may, and not oftener."""
    rng = np.random.default_rng(11)
    windows, level = 1500, step_level(RATE, f"{STEPS}h", HOUR_US, 1)
    false = 0
    for _ in range(windows):
        scores = np.sqrt(shared) * rng.standard_normal((STEPS, 1)) + np.sqrt(1 - shared) * rng.standard_normal(
            (STEPS, 6)
        )
        tails = 2 * stats.norm.sf(np.abs(scores))
        false += any(discoveries(row, level)[0].any() for row in tails)
    assert false / windows <= RATE
    assert false / windows > RATE / 10


def test_judgement_names_the_lead_and_the_interval_and_needs_what_was_forecast() -> None:
    spec = AlertRuleSettings(kind="surprise", graph="town", metrics=["events", "active_nodes"], leads=[1, 24])
    rule = checked("odd", spec, {})
    observed = np.zeros(len(METRIC_NAMES))
    observed[METRIC_INDEX["events"]] = 900
    observed[METRIC_INDEX["active_nodes"]] = 50
    near = np.tile(50 + 5 * stats.norm.ppf(LEVELS), (len(METRIC_NAMES), 1))
    far = np.tile(50 + 20 * stats.norm.ppf(LEVELS), (len(METRIC_NAMES), 1))
    level = step_level(0.1, "30d", HOUR_US, 1)
    events, nodes = judge_surprises(rule, 3 * HOUR_US, observed, {1: near, 24: far}, level)
    assert (events.verdict, nodes.verdict) == (Verdict.FIRE, Verdict.CLEAR)
    assert events.facts["lead"] == 1
    assert events.facts["observed"] == 900
    assert events.facts["interval"][0] == pytest.approx(50 - 5 * 1.96, abs=0.01)
    assert events.facts["watched_together"] == 4
    assert events.facts["step"] == "1970-01-01T03:00:00Z"
    (only, _) = judge_surprises(rule, 0, observed, {24: far}, level)
    assert only.facts["lead"] == 24
    assert judge_surprises(rule, 0, observed, {}, level) == []
    observed[METRIC_INDEX["active_nodes"]] = 50 + 5 * 2.5
    assert judge_surprises(rule, 0, observed, {1: near}, level)[1].verdict is Verdict.HOLD
