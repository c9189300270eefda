"""Evaluating the rules of a graph as its steps close: every step once, those of a pause too, revised ones again.

Forecast rules are judged at every closed step, from the state behind it; surprises at every final step, against the
forecast that was kept before it. Where none was kept, as nobody watched, it is made from the steps before, as they read
today; steps from before a graph was watched are not judged.

Shape suffixes: T steps, M metrics, Q quantile levels.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from forecasting.alerts.judging import (
    UnfitRuleError,
    check_fit,
    forecast_ahead,
    judge_forecasts,
    judge_surprises,
)
from forecasting.alerts.records import Judgement
from forecasting.alerts.rulebook import RuleRow
from forecasting.alerts.rules import PERIODS_US
from forecasting.alerts.surprises import step_level
from forecasting.alerts.watches import Judged, Watch, Watches
from forecasting.live import LiveState, LiveStates
from infra.errors import StoreError
from infra.settings import Settings
from models.contract import FloatArray, History
from stream.store.base import GraphInfo, SnapshotReader

# Steps of one chunk of sample paths: bounds the memory, changes no number.
CHUNK_STEPS = 256


@dataclass(frozen=True, slots=True)
class Subject:
    """What is evaluated: a graph as it stands, and the rules for it.

    Attributes:
        info: how it stood before its state was taken.
        rows: rules of kind `forecast` and `surprise`.
        graphs: by rule, how many graphs it watches.
    """

    info: GraphInfo
    rows: Sequence[RuleRow]
    graphs: Mapping[str, int]


class _Timeline:
    """The latest steps of a graph by number: step 0 is its first, and `n` were observed."""

    def __init__(self, live: LiveState, tail: History) -> None:
        self.n = live.snapshots
        self.step_us = live.step_us
        self._origin_us = live.next_step_us - self.n * live.step_us
        self._tail = tail
        self._first = self.n - len(tail)

    def start_us(self, number: int) -> int:
        return self._origin_us + number * self.step_us

    def number(self, start_us: int | None) -> int | None:
        """Return the number of a step; None where it is none of this graph's, which was made anew then."""
        if start_us is None:
            return None
        number, rest = divmod(start_us - self._origin_us, self.step_us)
        return number if rest == 0 and 0 <= number < self.n else None

    def values(self, begin: int, end: int) -> FloatArray:
        return self._tail.values[max(0, begin - self._first) : max(0, end - self._first)]

    def until(self, end: int) -> History:
        return self._tail.part(0, max(0, end - self._first))


def was_made_anew(info: GraphInfo, judged_us: int | None) -> bool:
    """Tell whether a graph lacks a step that was judged, as it stands after that: it is another of the same name."""
    return judged_us is not None and (info.last_step_us is None or info.last_step_us < judged_us)


def evaluate(
    subject: Subject, watch: Watch, watches: Watches, states: LiveStates, reader: SnapshotReader, settings: Settings
) -> Judged:
    """Return what is to be kept of judging a graph.

    Raises:
        StoreError: the store cannot be read, or the graph has no closed step.
        ModelError: the model made no forecast.
    """
    info, alerts = subject.info, settings.alerts
    live = states.state_of(info.name)
    fit, failed = _fitting(subject.rows, live.step_us)
    forecasts = [row for row in fit if row.rule.spec.kind == "forecast"]
    surprises = [row for row in fit if row.rule.spec.kind == "surprise"]
    leads = sorted({lead for row in surprises for lead in row.rule.spec.leads})
    n_final = _final_steps(info, live)
    back = alerts.catch_up_steps + max(leads, default=0) + PERIODS_US["week"] // live.step_us + 1
    line = _Timeline(live, _tail(reader, live, back + live.snapshots - n_final))

    judged = line.number(watch.judged_us)
    first = line.n if judged is None else max(min(judged + 2, line.n), line.n - alerts.catch_up_steps + 1)
    # The state may be a commit behind what another process judged; the store is not.
    is_anew = judged is None and was_made_anew(reader.graph(info.name), watch.judged_us)
    last_final = None if is_anew else line.number(watch.final_us)
    begin_final = n_final if last_final is None else max(last_final + 1, n_final - alerts.catch_up_steps)
    final = range(begin_final, n_final) if surprises else range(0)
    kept = watches.forecasts(info.name, [line.start_us(number) for number in final])
    made: dict[tuple[int, int], FloatArray] = {}
    lacking = {number - lead + 1 for number in final for lead in leads if (line.start_us(number), lead) not in kept}
    found: dict[str, list[Judgement]] = {row.rule.name: [] for row in fit}
    for observed, model, state in _states(live, states, line, sorted({*range(first, line.n + 1), *lacking})):
        near = forecast_ahead(model, state, leads, seed=settings.forecast.seed)
        made |= {(line.start_us(observed + lead - 1), lead): quantiles for lead, quantiles in near.items()}
        if forecasts and observed >= first:
            history = line.until(observed)
            said = judge_forecasts(
                [row.rule for row in forecasts],
                *(model, state, history),
                n_paths=alerts.paths,
                chunk_steps=CHUNK_STEPS,
                seed=settings.forecast.seed,
            )
            for name, judgement in said.items():
                found[name].append(judgement)
    for number in final:
        start_us = line.start_us(number)
        by_lead = {lead: (made | kept).get((start_us, lead)) for lead in leads}
        usable = {lead: quantiles for lead, quantiles in by_lead.items() if quantiles is not None}
        for row in surprises:
            rate = row.rule.spec.false_discovery_rate or alerts.false_discovery_rate
            level = step_level(rate, alerts.window, line.step_us, subject.graphs[row.rule.name])
            found[row.rule.name] += judge_surprises(
                row.rule, start_us, line.values(number, number + 1)[0], usable, level
            )
    ahead = {(line.start_us(line.n + lead - 1), lead) for lead in leads}
    return Judged(
        judged_us=line.start_us(line.n - 1),
        final_us=line.start_us(n_final - 1) if n_final else None if is_anew else watch.final_us,
        judgements=[(row, found[row.rule.name]) for row in fit],
        failed=failed,
        forecasts={at: quantiles for at, quantiles in made.items() if at not in ahead},
        current={at: made[at] for at in ahead if at in made},
        is_anew=is_anew,
    )


def _fitting(rows: Sequence[RuleRow], step_us: int) -> tuple[list[RuleRow], dict[str, str]]:
    fit, failed = [], {}
    for row in rows:
        try:
            check_fit(row.rule, step_us)
            fit.append(row)
        except UnfitRuleError as error:
            failed[row.rule.name] = error.message
    return fit, failed


def _tail(reader: SnapshotReader, live: LiveState, steps: int) -> History:
    """Return the last observed steps of a state."""
    begin_us = live.next_step_us - min(steps, live.snapshots) * live.step_us
    table = reader.snapshots(live.graph, start_us=begin_us, end_us=live.next_step_us)
    if len(table) != min(steps, live.snapshots):
        raise StoreError(f"the snapshots of {live.graph!r} were replaced meanwhile")
    return History(live.step_us, begin_us, table.values)


def _final_steps(info: GraphInfo, live: LiveState) -> int:
    """Return how many steps nothing can revise any more; all, where the store does not know."""
    if info.final_us is None:
        return live.snapshots
    provisional_us = max(0, live.next_step_us - info.final_us)
    return max(0, live.snapshots - -(-provisional_us // live.step_us))


def _states(
    live: LiveState, states: LiveStates, line: _Timeline, wanted: Sequence[int]
) -> Iterator[tuple[int, Any, Any]]:
    """Yield numbers of observed steps with the model and its state behind them; the last is the live one."""
    earlier = [observed for observed in wanted if 1 <= observed < line.n]
    if earlier:
        base = states.state_at(live.graph, earlier[0])
        at, state = earlier[0], base.state
        for observed in earlier:
            state = base.model.update(state, line.values(at, observed))
            at = observed
            yield observed, base.model, state
    if line.n in wanted:
        yield line.n, live.model, live.state
