"""A report in plain words: its summary, sentence by sentence, with the numbers and how sure they are."""

from collections.abc import Mapping
from typing import Any

from forecasting.reports.aggregate import COLUMN_INDEX, Rule
from forecasting.reports.calendar import Scale
from forecasting.reports.contents import Findings
from forecasting.reports.findings import SURE, Change
from forecasting.reports.outlook import Outlook
from forecasting.reports.phrases import day, duration_words, label, number
from forecasting.resolving import CalibratedOn
from infra.schema import METRIC_INDEX
from models.contract import History

_ALMOST = 0.95


def summary(found: Findings, history: History, outlook: Outlook) -> list[str]:
    """Return the sentences at the top of a report."""
    said = [_events(found, outlook)]
    said += [sentence for change in found.changes if (sentence := _change(change, found.changes_scale))]
    open_ones = [label(change.column) for change in found.changes if change.direction == "is open"]
    if open_ones:
        said.append(f"Whether {_and(open_ones)} will be higher or lower by then is open: the paths do not agree.")
    same_ones = [meant(change.column, change.rule) for change in found.changes if change.direction == "stays"]
    if same_ones:
        said.append(f"No change by then on {SURE:.0%} of the paths or more: {'; '.join(same_ones)}.")
    said.append(_total(outlook, history))
    if found.skill is not None:
        said.append(_skill(found, outlook))
    if found.past:
        said.append(_past(found))
    if found.provenance["model_digest"] is None:
        said.append("No trained model answers here but a simple method; take the intervals as rough.")
    if found.provenance["calibrated_on"] == CalibratedOn.OTHER_GRAPHS:
        said.append("The general model answers here: how far its intervals hold was found on other graphs.")
    if found.history_short:
        span = duration_words(len(history) * history.step_us)
        said.append(f"The history is short ({span}): no yearly rhythm can be known from it.")
    return said


def calibration(provenance: Mapping[str, Any]) -> str:
    """Return how far ahead the forecasts of the model were found to hold, and on which graphs; nothing for a floor."""
    if provenance["calibrated_on"] is None:
        return ""
    return (
        f"At the training, on {provenance['calibrated_on']}, intervals were found to hold up to step "
        f"{provenance['calibrated_until_step']:,}, and forecasts to be better than the usual course of the season "
        f"up to step {provenance['skill_until_step']:,}."
    )


def sureness(agreement: float) -> str:
    """Return how sure a share of paths makes one."""
    return "almost certainly" if agreement >= _ALMOST else "probably"


def period_name(start_us: int, scale: Scale) -> str:
    """Return a period as one calls it: `2031`, `Mar 2031`, `the week of 3 Mar 2031`, `3 Mar 2031`."""
    text = day(start_us)
    if scale is Scale.YEAR:
        return text.rpartition(" ")[2]
    if scale is Scale.MONTH:
        return text.partition(" ")[2]
    return f"the week of {text}" if scale is Scale.WEEK else text


def meant(column: str, rule: Rule) -> str:
    """Return a column with how it is aggregated: `events, in total`, `active nodes, mean of the steps`."""
    return f"{label(column)}, {({'sum': 'in total', 'mean': 'mean of the steps', 'last': 'at the end'})[rule]}"


def _begun(text: str) -> str:
    """Return a text as the beginning of a sentence; names inside it keep their capitals."""
    return text[:1].upper() + text[1:]


def _events(found: Findings, outlook: Outlook) -> str:
    scale = found.changes_scale
    if scale is None:
        near = outlook.near().mean[:, METRIC_INDEX["events"]]
        steps = "step is" if len(near) == 1 else f"{len(near):,} steps are"
        return f"The next {steps} expected to bring {number(float(near.sum()))} events."
    fan, seen = found.ahead[scale], found.observed[scale]
    index = COLUMN_INDEX["events"]
    low, median, high = (number(float(fan.fan.quantiles[-1, index, c])) for c in (1, 2, 3))
    return (
        f"{_begun(period_name(int(fan.start_us[-1]), scale))} is expected to bring {median} events "
        f"(80 % interval {low} to {high}); {period_name(int(seen.start_us[-1]), scale)}, the last whole {scale} "
        f"that was observed, brought {number(float(seen.values[-1, index]))}."
    )


def _change(change: Change, scale: Scale | None) -> str:
    if scale is None or change.direction in ("is open", "stays"):
        return ""
    since = "" if change.sure_from_us is None else f", from {period_name(change.sure_from_us, scale)} on"
    low, high = number(change.low), number(change.high)
    return (
        f"{_begun(meant(change.column, change.rule))}: {sureness(change.agreement)} "
        f"{'higher' if change.direction == 'rises' else 'lower'} ({change.agreement:.0%} of the paths{since}): "
        f"{number(change.now)} now, {number(change.then)} then ({low} to {high})."
    )


def _total(outlook: Outlook, history: History) -> str:
    index = METRIC_INDEX["total_nodes"]
    last = outlook.last()
    low, median, high = (number(float(last.quantiles[0, index, c])) for c in (1, 2, 3))
    now = f"{history.values[-1, index]:,.0f}"
    return f"By {day(outlook.until_us)} the network will have had {median} nodes ({low} to {high}); it has {now}."


def _skill(found: Findings, outlook: Outlook) -> str:
    assert found.skill is not None
    until = found.skill.until_steps.get("events")
    said = ""
    if "events" not in found.skill.until_steps:
        said = "For events, the last year has no spread that the intervals could be held to"
    elif until is None:
        said = "For events, the intervals stay narrower than the spread of the last year to the end of the forecast"
    elif until == 0:
        said = "For events, the intervals are from the start as wide as the spread of the last year"
    else:
        said = (
            f"For events, the forecast says more than the spread of the last year for {until:,} steps "
            f"(to {day(outlook.first_us + until * outlook.step_us)})"
        )
    reach = found.skill.reach_steps
    if reach is not None and reach < outlook.steps:
        return f"{said}; it was trained to {reach:,} steps ahead, and beyond that no one has measured it."
    return f"{said}."


def _past(found: Findings) -> str:
    (events,) = (score for score in found.past if score.metric == "events")
    steps = f"Of the first {events.n:,} steps after the last report"
    said = f"{steps}, {events.in_80:.0%} of the events lay in its 80 % interval"
    if events.naive_mae is None:
        return f"{said}."
    better = "smaller" if events.mae < events.naive_mae else "not smaller"
    return f"{said}; its error was {better} than that of the value a season before."


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
