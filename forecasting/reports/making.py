"""Making a report: one forecast, its sample paths, what is found in them, and the files that come of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from forecasting.api.bodies import provenance
from forecasting.history import read_history
from forecasting.live import LiveState
from forecasting.reports import findings
from forecasting.reports.aggregate import PathAggregator, observed_periods
from forecasting.reports.contents import Findings, ReportRequest
from forecasting.reports.documents import as_text, bundle, facts_of, last_forecast
from forecasting.reports.outlook import Outlook, block_length
from forecasting.reports.page import ForecastPage, render
from forecasting.reports.records import BUNDLE, FACTS, HTML
from forecasting.reports.words import summary
from infra.ahead import ahead
from infra.errors import GraphtideError, StoreError
from infra.steps import check_end
from models.contract import History
from stream.store.base import SnapshotReader

# A rollout in the chunks of the jobs, so that its numbers are those of a job to the last bit.
NEAR_STEPS = 168


class ReportCancelledError(GraphtideError):
    """The caller asked to stop; nothing was kept."""


@dataclass(frozen=True, slots=True)
class Report:
    """A finished report; `facts` is what `report.json` holds."""

    facts: dict[str, Any]
    html: bytes
    bundle: bytes


def make_report(
    reader: SnapshotReader,
    live: LiveState,
    request: ReportRequest,
    *,
    made: str,
    chunk_steps: int,
    use_threads: bool = False,
    previous: Mapping[str, Any] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Report:
    """Return the report of a graph from its live state.

    Args:
        reader: the store that the state was read from.
        live: the state at the last closed step.
        request: what is asked for.
        made: the date of the report, ISO 8601; the only part that two runs on the same data and seed do not share.
        chunk_steps: steps of one chunk of the rollout.
        use_threads: whether to compute on several cores; the report is the same.
        previous: facts of the last report of the graph, to compare with.
        on_progress: called with the steps done and to do.
        cancelled: asked before every chunk.

    Raises:
        StoreError: the store cannot be read, or its snapshots moved on from the state.
        UsageError: the forecast would end behind the year 9999.
        ModelError: the model made no forecast.
        ReportCancelledError: `cancelled` said so.
    """
    history = read_history(reader, live.graph).part(0, live.snapshots)
    if len(history) < live.snapshots:
        raise StoreError(f"the snapshots of {live.graph!r} were replaced meanwhile", fix="make the report again")
    check_end(request.horizon, live.next_step_us, live.step_us)
    outlook, aggregator = _roll_out(live, history, request, chunk_steps, use_threads, on_progress, cancelled)
    card = live.card
    ahead = {scale: fan for scale, fan in aggregator.periods().items() if len(fan)}
    observed = {scale: observed_periods(history, scale) for scale in ahead}
    scale = findings.change_scale(observed, ahead, live.step_us)
    reach_steps = card.get("architecture", {}).get("reach_steps")
    last = last_forecast(previous, live.step_us)
    found = Findings(
        graph=live.graph,
        request=request,
        provenance=provenance(live, seed=request.seed),
        step_us=live.step_us,
        history_short=findings.is_short(history),
        observed=observed,
        ahead=ahead,
        changes_scale=scale,
        changes=findings.changes(observed[scale], ahead[scale]) if scale is not None else [],
        skill=None if live.model_digest is None else findings.skill(history, outlook, reach_steps),
        quality=findings.quality(reader.graph(live.graph), reader.snapshots(live.graph)),
        past_from=None if last is None else last.made,
        past=[] if last is None else findings.past_scores(history, last.first_us, last.columns_NMC),
        past_moves=[] if last is None else last.moves(ahead),
    )
    said = summary(found, history, outlook)
    facts = facts_of(found, said, outlook, card, made)
    page = ForecastPage(
        graph=live.graph,
        source=f"What the store knows of {live.graph}",
        history=history,
        outlook=outlook,
        model=live.model.name,
        card=card,
        notes=_notes(live),
        findings=found,
        summary=said,
        made=made,
    )
    return Report(facts, render(page).encode(), bundle(facts, found, outlook))


def report_files(report: Report) -> dict[str, bytes]:
    """Return what is kept of a report, by name."""
    return {HTML: report.html, BUNDLE: report.bundle, FACTS: as_text(report.facts).encode()}


def _notes(live: LiveState) -> list[str]:
    """Return what the reader should know before all else: what is wrong, and what answers in spite of it."""
    if live.degraded_reason is None:
        return []
    # The general model stands in for one that is damaged: that is no simple method.
    what = "A simple method answers" if live.model_digest is None else "The general model answers"
    return [f"{live.degraded_reason}. {what}: {live.model.name}."]


def _roll_out(
    live: LiveState,
    history: History,
    request: ReportRequest,
    chunk_steps: int,
    use_threads: bool,
    on_progress: Callable[[int, int], None] | None,
    cancelled: Callable[[], bool] | None,
) -> tuple[Outlook, PathAggregator]:
    def reached(steps: int) -> None:
        if on_progress is not None:
            on_progress(steps, request.horizon)
        if cancelled is not None and cancelled():
            raise ReportCancelledError("the report was stopped before it was finished")

    outlook = Outlook(
        first_us=live.next_step_us,
        step_us=live.step_us,
        near_steps=min(NEAR_STEPS, request.horizon),
        block_steps=block_length(live.step_us, len(history) + request.horizon),
    )
    aggregator = PathAggregator(history, request.paths)
    drawn = live.model.sample_paths(
        live.state,
        request.horizon,
        n_paths=request.paths,
        chunk_steps=chunk_steps,
        seed=request.seed,
        use_threads=use_threads,
    )
    for paths in ahead(drawn) if use_threads else drawn:
        outlook.add(paths.forecast)
        aggregator.add(paths)
        reached(outlook.steps)
    return outlook, aggregator
