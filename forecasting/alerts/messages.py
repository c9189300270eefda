"""What is said of an alert: one sentence for people, facts for programs, and both as a parcel for the targets."""

import json
from typing import Any

from forecasting.alerts.records import AlertRow, Transition
from forecasting.alerts.rules import bound_words
from forecasting.reports.phrases import about, in_full
from forecasting.reports.targets.parcel import Parcel, ParcelFile
from infra.steps import SECOND_US, format_time


def sentence(graph: str, metric: str, state: str, facts: dict[str, Any]) -> str:
    """Return what was found, in words."""
    if "ended" in facts:
        return f"{_subject(graph, metric)} is watched no more: {facts['ended']}."
    return {"forecast": _forecast, "surprise": _surprise, "stale": _stale}[facts["kind"]](graph, metric, state, facts)


def _subject(graph: str, metric: str) -> str:
    return f"{metric} of {graph}" if metric else graph


def _forecast(graph: str, metric: str, state: str, facts: dict[str, Any]) -> str:
    bound = bound_words(facts["below"], facts["above"])
    what = _subject(graph, metric)
    what = what if facts["aggregate"] == "step" else f"The sum of {what} over a {facts['aggregate']}"
    found = f"{what} is {bound} at some time within {facts['within_steps']} steps with a probability of"
    said = f"{found} {facts['probability']:.0%}"
    if state != "firing":
        return f"{said}; the alert begins at {facts['wanted']:.0%}."
    when = f", first expected by {facts['expected']}" if facts["expected"] else ""
    return f"{said}{when}. It is {in_full(facts['observed'])} in the last step."


def _surprise(graph: str, metric: str, state: str, facts: dict[str, Any]) -> str:
    low, high = facts["interval"]
    within = "outside" if not low <= facts["observed"] <= high else "within"
    ahead = "step" if facts["lead"] == 1 else "steps"
    said = (
        f"{_subject(graph, metric)} was {in_full(facts['observed'])} in the step of {facts['step']}, {within} the 95 %"
        f" interval from {in_full(low)} to {in_full(high)} that was forecast {facts['lead']} {ahead} before"
    )
    if state != "firing":
        return f"{said}."
    return f"{said}; so far out or further had a probability of {facts['tail_probability']:.1e}."


def _stale(graph: str, _metric: str, state: str, facts: dict[str, Any]) -> str:
    age = about(facts["age_s"] * SECOND_US)
    if state != "firing":
        return f"Steps of {graph} close again: the last one ended at {facts['observed_until']}."
    return f"No step of {graph} has closed for {age}: the last one ended at {facts['observed_until']}."


def alert_parcel(key: str, alert: AlertRow, transition: Transition, dashboard_url: str) -> Parcel:
    """Return a change of an alert as a parcel.

    Args:
        key: the idempotency key.
        alert: as it stands now.
        transition: what is told of it.
        dashboard_url: address of the dashboard; empty where readers know it.
    """
    base = dashboard_url.rstrip("/")
    page = f"{base}/graphs/{alert.graph}"
    said = sentence(alert.graph, alert.metric, transition.state, transition.facts)
    title = f"{'Alert' if transition.state == 'firing' else 'Over'}: {alert.rule} in {alert.graph}"
    notice = {
        "type": "graphtide.alert",
        "id": transition.id,
        "alert": alert.id,
        "number": transition.number,
        "state": transition.state,
        "time": format_time(transition.time_us // SECOND_US * SECOND_US),
        "rule": alert.rule,
        "graph": alert.graph,
        "metric": alert.metric or None,
        "summary": said,
        "facts": transition.facts,
        "links": {
            "self": f"{base}/v1/alerts/{alert.id}",
            "silence": f"{base}/v1/alerts/{alert.id}/silence",
            "page": page,
        },
    }
    text = "\n\n".join(
        [
            said,
            f"The rule is {alert.rule!r}. See {page}",
            f'To hear nothing more of it for a while: POST {base}/v1/alerts/{alert.id}/silence {{"for": "8h"}}',
        ]
    )
    moment = format_time(transition.time_us // SECOND_US * SECOND_US)
    stem = f"{alert.graph}-alert-{alert.rule}-{alert.metric or 'graph'}-{moment}-{transition.id[:8]}".replace(":", "")
    return Parcel(
        key=key,
        stem=stem,
        subject=title,
        text=text,
        files=(
            ParcelFile(".json", json.dumps(notice, indent=1, sort_keys=True).encode() + b"\n", "application/json"),
            ParcelFile(".txt", f"{title}\n\n{text}\n".encode(), "text/plain; charset=utf-8"),
        ),
        notice=notice,
    )
