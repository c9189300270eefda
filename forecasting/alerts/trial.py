"""Judging a rule once, now, without keeping or sending anything."""

from collections.abc import Sequence

from forecasting.alerts.evaluation import Subject, evaluate
from forecasting.alerts.judging import UnfitRuleError, judge_stale
from forecasting.alerts.records import Judgement
from forecasting.alerts.rulebook import RuleRow
from forecasting.alerts.watches import Watch, Watches
from forecasting.live import LiveStates
from forecasting.service_file import now_us
from infra.settings import Settings
from stream.store.base import GraphInfo, SnapshotReader


def judge_now(
    row: RuleRow,
    info: GraphInfo,
    graphs: int,
    watches: Watches,
    states: LiveStates,
    reader: SnapshotReader,
    settings: Settings,
) -> Sequence[Judgement]:
    """Return what a rule says of a graph now: of its last step, and of its last final one where it is on surprises.

    Args:
        row: the rule.
        info: the graph.
        graphs: how many the rule watches.
        watches: where forecasts may have been kept.
        states, reader: of the store.
        settings: all of them.

    Raises:
        UnfitRuleError: steps of that size do not make up what the rule watches.
        StoreError, ModelError: as for `evaluate`.
    """
    if row.rule.spec.kind == "stale":
        judgement = judge_stale(row.rule, info, now_us())
        return [] if judgement is None else [judgement]
    watch = Watch(info.name, None, _step_before_the_last_final(info), 0)
    found = evaluate(Subject(info, [row], {row.rule.name: graphs}), watch, watches, states, reader, settings)
    if row.rule.name in found.failed:
        raise UnfitRuleError(found.failed[row.rule.name])
    return [one for _, judgements in found.judgements for one in judgements]


def _step_before_the_last_final(info: GraphInfo) -> int | None:
    if info.first_step_us is None or info.last_step_us is None:
        return None
    end_us = info.last_step_us + info.step_us
    final_us = end_us if info.final_us is None else min(end_us, info.final_us)
    final = (final_us - info.first_step_us) // info.step_us
    return info.first_step_us + (final - 2) * info.step_us if final >= 2 else None
