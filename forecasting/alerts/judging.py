"""Judging rules: what the forecasts, the steps and the clock say of each, and what follows from that.

Shape suffixes: M metrics in the order of `METRIC_NAMES`, Q quantile levels, N metrics and leads that are judged
together.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from forecasting.alerts.crossing import CrossingCount
from forecasting.alerts.machine import Verdict
from forecasting.alerts.records import Judgement
from forecasting.alerts.rules import PERIODS_US, Rule
from forecasting.alerts.surprises import discoveries, tail_probability
from infra.errors import GraphtideError
from infra.schema import MAX_HORIZON_STEPS, METRIC_INDEX, METRICS, QUANTILE_LEVELS, Kind
from infra.steps import SECOND_US, format_duration, format_time, parse_duration_us
from models.contract import FloatArray, History, Model
from stream.store.base import GraphInfo

# A surprise is over when the metric is back within its 95 % interval.
CLEAR_TAIL = 0.05
_UNITS_M = np.array([0.01 if metric.kind is Kind.SHARE else 1.0 for metric in METRICS])
_LOW, _MEDIAN, _HIGH = (QUANTILE_LEVELS.index(level) for level in (0.025, 0.5, 0.975))


class UnfitRuleError(GraphtideError):
    """A rule cannot be judged in a graph: what it watches is not told by steps of that size."""


def check_fit(rule: Rule, step_us: int) -> None:
    """Refuse a rule whose periods steps of this size do not make up, or that looks farther ahead than forecasts go.

    Raises:
        UnfitRuleError: saying why.
    """
    if rule.spec.kind != "forecast":
        return
    if rule.within_steps(step_us) > MAX_HORIZON_STEPS:
        step = format_duration(step_us)
        raise UnfitRuleError(f"within {rule.spec.within} are more than {MAX_HORIZON_STEPS:,} steps of {step}")
    if rule.spec.aggregate == "step":
        return
    period = rule.spec.aggregate
    if PERIODS_US[period] % step_us or PERIODS_US[period] < step_us:
        raise UnfitRuleError(f"steps of {format_duration(step_us)} make up no {period}")
    if rule.within_steps(step_us) * step_us < PERIODS_US[period]:
        raise UnfitRuleError(f"within {rule.spec.within} steps of {format_duration(step_us)} no {period} ends for sure")


def judge_forecasts(
    rules: Sequence[Rule], model: Model[Any], state: Any, history: History, *, n_paths: int, chunk_steps: int, seed: int
) -> dict[str, Judgement]:
    """Return what one set of sample paths says of each rule, by its name.

    Args:
        rules: of kind `forecast`, that fit the graph.
        model, state: what is rolled out, behind the last step of `history`.
        history: the latest observed steps, at least those of the period that is open.
        n_paths: sample paths.
        chunk_steps: steps of a chunk; changes no number.
        seed: of the paths.

    Raises:
        ModelError: the model made no forecast.
    """
    counts = {rule.name: CrossingCount(rule, history, n_paths) for rule in rules}
    horizon = max((count.steps for count in counts.values()), default=0)
    if horizon:
        for chunk in model.sample_paths(state, horizon, n_paths=n_paths, chunk_steps=chunk_steps, seed=seed):
            for count in counts.values():
                count.add(chunk)
    step_us = history.start_us + (len(history) - 1) * history.step_us
    return {rule.name: _of_crossing(rule, counts[rule.name], step_us, history, model.name) for rule in rules}


def _of_crossing(rule: Rule, count: CrossingCount, step_us: int, history: History, model: str) -> Judgement:
    spec, found = rule.spec, count.found()
    verdict = Verdict.HOLD
    if found.probability >= spec.probability:
        verdict = Verdict.FIRE
    elif found.probability < rule.resolve_probability:
        verdict = Verdict.CLEAR
    facts = {
        "kind": "forecast",
        "probability": found.probability,
        "wanted": spec.probability,
        "below": spec.below,
        "above": spec.above,
        "aggregate": spec.aggregate,
        "within_steps": count.steps,
        "expected": None if found.expected_us is None else format_time(found.expected_us),
        "observed": float(history.values[-1, METRIC_INDEX[spec.metric or ""]]),
        "observed_until": format_time(step_us + history.step_us),
        "model": model,
        "paths": found.paths,
    }
    return Judgement(spec.metric or "", step_us, verdict, facts)


def judge_surprises(
    rule: Rule, step_us: int, observed_M: FloatArray, forecasts: Mapping[int, FloatArray], level: float
) -> list[Judgement]:
    """Return what an observed step says of every metric of a rule, all judged together.

    Args:
        rule: of kind `surprise`.
        step_us: start of the step.
        observed_M: its values.
        forecasts: by lead, the quantiles [M, Q] that were forecast of it; leads that are missing are not judged.
        level: from `surprises.step_level`.
    """
    leads = [lead for lead in sorted(rule.spec.leads) if lead in forecasts]
    names = rule.metrics if leads else ()
    at_N = [METRIC_INDEX[name] for name in names for _ in leads]
    quantiles_NQ = np.array([forecasts[lead][METRIC_INDEX[name]] for name in names for lead in leads])
    if not at_N:
        return []
    tails_N = tail_probability(observed_M[at_N], quantiles_NQ, _UNITS_M[at_N])
    found_N, _ = discoveries(tails_N, level)
    judgements = []
    for number, name in enumerate(names):
        own = slice(number * len(leads), (number + 1) * len(leads))
        best = own.start + int(tails_N[own].argmin())
        verdict = Verdict.HOLD
        if found_N[own].any():
            verdict = Verdict.FIRE
        elif (tails_N[own] >= CLEAR_TAIL).all():
            verdict = Verdict.CLEAR
        facts = {
            "kind": "surprise",
            "observed": float(observed_M[METRIC_INDEX[name]]),
            "interval": [float(quantiles_NQ[best, _LOW]), float(quantiles_NQ[best, _HIGH])],
            "median": float(quantiles_NQ[best, _MEDIAN]),
            "lead": leads[best - own.start],
            "tail_probability": float(tails_N[best]),
            "watched_together": len(at_N),
            "step": format_time(step_us),
        }
        judgements.append(Judgement(name, step_us, verdict, facts))
    return judgements


def judge_stale(rule: Rule, info: GraphInfo, now_us: int) -> Judgement | None:
    """Return whether no step of a graph has closed for too long; None while none has closed at all."""
    if info.last_step_us is None or rule.spec.after is None:
        return None
    until_us = info.last_step_us + info.step_us
    age_us = max(0, now_us - until_us)
    verdict = Verdict.FIRE if age_us >= parse_duration_us(rule.spec.after) else Verdict.CLEAR
    facts = {
        "kind": "stale",
        "age_s": age_us // SECOND_US,
        "after": rule.spec.after,
        "observed_until": format_time(until_us),
    }
    return Judgement("", info.last_step_us, verdict, facts)


def forecast_ahead(model: Model[Any], state: Any, leads: Sequence[int], *, seed: int) -> dict[int, FloatArray]:
    """Return the quantiles [M, Q] of the steps at these leads: the next step has lead 1.

    Raises:
        ModelError: the model made no forecast.
    """
    if not leads:
        return {}
    quantiles = np.concatenate([chunk.quantiles for chunk in model.rollout(state, max(leads), seed=seed)])
    return {lead: np.asarray(quantiles[lead - 1]) for lead in leads}
