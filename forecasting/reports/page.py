"""The page of a forecast: one HTML file that needs nothing else, on what comes and how sure that is."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np
from markupsafe import Markup

from forecasting.reports import plots
from forecasting.reports.aggregate import rule_of
from forecasting.reports.calendar import Scale, scales_of
from forecasting.reports.contents import Findings
from forecasting.reports.outlook import Fan, Outlook, block_values
from forecasting.reports.phrases import day, duration_words, label, number, step_words
from forecasting.reports.plots import Panel
from forecasting.reports.rendering import template
from forecasting.reports.standing import Standing
from forecasting.reports.words import calibration, meant, period_name, sureness
from infra.schema import METRIC_INDEX, METRICS, Kind, Metric
from infra.steps import DAY_US, WEEK_US
from models.contract import FloatArray, History

FIRST_METRIC = "events"
# What the summary compares is averaged over so much, to be free of the weekly rhythm and of a single week's chance.
COMPARED_US = 4 * WEEK_US
# Periods of one scale that are drawn of the history, and of the forecast; the next longer scale shows the rest.
MAX_PERIODS = 400
COLOURS = {"seen": plots.SEEN, "model": plots.MODEL, "mean": plots.MEAN, "ink": plots.INK, "muted": plots.MUTED}
_GROUPS = ((Kind.COUNT, "Counts"), (Kind.SHARE, "Shares"), (Kind.TOTAL, "Totals"))


@dataclass(frozen=True, slots=True)
class ForecastPage:
    """What a page is made of.

    Attributes:
        graph: name of the graph.
        source: what the data is, in a few words.
        history: all that was observed.
        outlook: the forecast from the end of the history.
        model: name of the model that answers.
        card: its card; empty for a floor.
        held_out: a forecast of the last steps of the history from the moment before them, if one was made.
        standing: how the model compares with the floors, if that was measured.
        held_out_steps: how many steps at the end of the history the model was not trained on.
        files: what lies beside the page, by file name.
        notes: what the reader should know.
        findings: what a report finds; then periods of the calendar are shown in the place of typical steps.
        summary: what it finds, in sentences.
        made: the date of the report.
    """

    graph: str
    source: str
    history: History
    outlook: Outlook
    model: str
    card: Mapping[str, Any]
    held_out: Fan | None = None
    standing: Standing | None = None
    held_out_steps: int = 0
    files: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    findings: Findings | None = None
    summary: Sequence[str] = ()
    made: str = ""


@dataclass(frozen=True, slots=True)
class Tile:
    """One number of the summary: what it is expected to be when the forecast ends, the change, what it is now."""

    label: str
    then: str
    change: str
    details: tuple[str, ...]


def render(page: ForecastPage) -> str:
    """Return the page as HTML."""
    panels = _panels(page)
    script, elements = plots.embed([plots.panel_figure(panel, FIRST_METRIC) for panel in panels])
    charts = {panel.key: Markup(element) for panel, element in zip(panels, elements, strict=True)}
    return template("forecast.html").render(
        page=page,
        tiles=tiles(page.history, page.outlook),
        charts=charts,
        library=Markup(plots.library()),
        script=Markup(script),
        numbers=_json(plots.all_series(panels)),
        texts=_json(_texts(page, panels)),
        groups=[(title, [metric for metric in METRICS if metric.kind is kind]) for kind, title in _GROUPS],
        first_metric=FIRST_METRIC,
        step=step_words(page.history.step_us),
        span=(day(page.history.start_us), day(page.outlook.first_us)),
        until=day(page.outlook.until_us),
        near_steps=len(page.outlook.near()),
        block=duration_words(page.outlook.block_steps * page.history.step_us),
        held_out=duration_words(page.held_out_steps * page.history.step_us),
        held_out_week=duration_words(len(page.held_out) * page.history.step_us) if page.held_out is not None else "",
        total_events=f"{page.history.values[:, METRIC_INDEX['events']].sum():,.0f}",
        total_nodes=f"{page.history.values[-1, METRIC_INDEX['total_nodes']]:,.0f}",
        facts=_facts(page),
        reach=_reach(page),
        calibration="" if page.findings is None else calibration(page.findings.provenance),
        version=version("graphtide"),
        colours={
            "seen": plots.SEEN,
            "model": plots.MODEL,
            "mean": plots.MEAN,
            "ink": plots.INK,
            "muted": plots.MUTED,
        },
        scales=_scales(page),
        has_even_periods=any(scale.is_even(page.history.step_us) for scale in scales_of(page.history.step_us)),
        span_of_step=duration_words(page.history.step_us),
        cut_scales=[scale for scale in _scales(page) if _is_cut(page, scale)],
        max_periods=MAX_PERIODS,
        label=label,
        number=number,
        day=day,
        meant=meant,
        period_name=period_name,
        sureness=sureness,
        score=lambda value: "-" if math.isnan(value) else f"{value:.3f}",
        share=lambda value: "-" if math.isnan(value) else f"{100 * value:.0f} %",
    )


def tiles(history: History, outlook: Outlook) -> list[Tile]:
    """Return the numbers at the top: means of the last weeks, observed and expected, and totals at both ends.

    An expected sum is the sum of expected values, so means by the day are means by the step times the steps of a day.
    """
    steps = max(1, min(len(history), COMPARED_US // history.step_us))
    recent = history.values[-steps:].mean(axis=0)
    far, rest = outlook.far(), outlook.rest()
    blocks = max(1, round(COMPARED_US / (outlook.block_steps * history.step_us)))
    # Without a whole block, so many steps as are free of the rhythms of the week or the day.
    end = far.mean[-blocks:] if len(far) else rest.mean[-_compared_steps(len(rest), history.step_us) :]
    ahead = end.mean(axis=0)
    by_day = DAY_US % history.step_us == 0
    scale, unit = (DAY_US // history.step_us, "a day") if by_day else (1, step_words(history.step_us))
    each = step_words(history.step_us)
    found = [
        _tile("events", f"Events {unit}", scale * recent, scale * ahead),
        _tile("active_nodes", f"Active nodes {each}", recent, ahead),
        _tile("new_nodes", f"New nodes {unit}", scale * recent, scale * ahead),
    ]
    index = METRIC_INDEX["total_nodes"]
    last = outlook.last()
    median, low, high = (last.quantiles[0, index, column] for column in (2, 1, 3))
    now = float(history.values[-1, index])
    interval = f"80 % interval {number(low)} to {number(high)}"
    details = (interval, f"now {number(now)}")
    return [*found, Tile("Nodes in total", number(median), _change(now, median), details)]


def _compared_steps(steps: int, step_us: int) -> int:
    """Return how many of so many steps make whole weeks, else whole days, at most `COMPARED_US`; else all of them."""
    for period_us in (WEEK_US, DAY_US):
        period_steps = max(1, period_us // step_us)
        if steps >= period_steps:
            return min(steps // period_steps, COMPARED_US // period_us) * period_steps
    return steps


def _tile(metric: str, title: str, recent: FloatArray, ahead: FloatArray) -> Tile:
    now, then = float(recent[METRIC_INDEX[metric]]), float(ahead[METRIC_INDEX[metric]])
    return Tile(title, number(then), _change(now, then), (f"now {number(now)}",))


def _change(now: float, then: float) -> str:
    if now <= 0:
        return ""
    percent = round(100 * (then / now - 1))
    return f"{percent:+,d} %".replace("-", "\N{MINUS SIGN}") if percent else "±0 %"


def _panels(page: ForecastPage) -> list[Panel]:
    history, outlook = page.history, page.outlook
    near, far = outlook.near(), outlook.far()
    panels = [_near_panel("near", history, len(history), near)]
    if page.held_out is not None:
        # What came is drawn over the forecast: as many steps again as were known.
        panels.append(_near_panel("held-out", history, len(history) - len(page.held_out), page.held_out))
    if page.findings is not None:
        panels += [_period_panel(page, scale) for scale in _scales(page)]
    elif len(far):
        starts_us, values = block_values(history, outlook.block_steps)
        reach_steps = _reach_steps(page)
        reach_us = None if reach_steps is None else outlook.first_us + reach_steps * outlook.step_us
        panels.append(Panel("far", starts_us, values, far, has_mean=True, reach_us=reach_us))
    return panels


def _scales(page: ForecastPage) -> list[Scale]:
    """Return the scales that are drawn: those with enough periods of the forecast to make a line."""
    if page.findings is None:
        return []
    return [scale for scale, fan in page.findings.ahead.items() if len(fan) >= 2]


def _is_cut(page: ForecastPage, scale: Scale) -> bool:
    return page.findings is not None and len(page.findings.ahead[scale]) > MAX_PERIODS


def _period_panel(page: ForecastPage, scale: Scale) -> Panel:
    assert page.findings is not None
    seen, ahead = page.findings.observed[scale], page.findings.ahead[scale]
    fan = Fan(ahead.start_us[:MAX_PERIODS], ahead.fan.mean[:MAX_PERIODS], ahead.fan.quantiles[:MAX_PERIODS])
    reach_steps = _reach_steps(page)
    reach_us = None if reach_steps is None else page.outlook.first_us + reach_steps * page.outlook.step_us
    is_seen = reach_us is not None and reach_us <= int(fan.start_us[-1])
    return Panel(
        scale,
        seen.start_us[-MAX_PERIODS:],
        seen.values[-MAX_PERIODS:],
        fan,
        has_mean=True,
        reach_us=reach_us if is_seen else None,
    )


def _near_panel(key: str, history: History, origin: int, fan: Fan) -> Panel:
    begin, end = max(0, origin - 2 * len(fan)), min(len(history), origin + len(fan))
    shown = history.part(begin, end)
    return Panel(key, shown.start_us + np.arange(len(shown), dtype=np.int64) * shown.step_us, shown.values, fan)


def _texts(page: ForecastPage, panels: Sequence[Panel]) -> dict[str, dict[str, str]]:
    """Return by metric its meaning, and for each panel what a person would see there."""
    return {
        metric.name: {
            "label": label(metric.name),
            "meaning": metric.meaning,
            **{panel.key: _described(panel, metric, page) for panel in panels},
        }
        for metric in METRICS
    }


def _described(panel: Panel, metric: Metric, page: ForecastPage) -> str:
    index = METRIC_INDEX[metric.name]
    seen, fan = panel.seen[:, index], panel.fan
    what = f"{label(metric.name)} {'at the end of' if metric.kind is Kind.TOTAL else 'in'} "
    if panel.key in set(Scale):
        what = f"{meant(metric.name, rule_of(metric.name))}, of each {panel.key}"
    elif panel.key == "far":
        what += f"each {duration_words(page.outlook.block_steps * page.history.step_us)}"
    else:
        what += f"each step of {duration_words(page.history.step_us)}"
    median, low, high = (fan.quantiles[:, index, column] for column in (2, 1, 3))
    said = (
        f"Line chart of {what}. Observed from {day(int(panel.seen_us[0]))}" if len(seen) else f"Line chart of {what}."
    )
    if len(seen):
        said += f": {number(seen.min())} to {number(seen.max())}."
    return (
        f"{said} Forecast from {day(int(fan.start_us[0]))} to {day(int(fan.start_us[-1]))}: "
        f"median {number(median.min())} to {number(median.max())}; "
        f"80 % interval at the end {number(low[-1])} to {number(high[-1])}."
    )


def _facts(page: ForecastPage) -> list[tuple[str, str]]:
    """Return what the card says, as rows."""
    if not page.card:
        return [("Model", f"{page.model}, a floor")]
    scores = page.card["scores"]
    training = []
    # A model that was made in another way has no such scores.
    if "iterations" in scores:
        training = [
            (
                "Training",
                f"{scores['iterations']:,} iterations in {scores['elapsed_s']:.0f} s, ended by {scores['stopped']}",
            ),
            (
                "Validation loss",
                f"{scores['validation_loss']:.4f} (untrained {scores['untrained_validation_loss']:.4f})",
            ),
        ]
    return [
        ("Model", f"{page.model}, {json.dumps(page.card['architecture'])[1:-1].replace(chr(34), '')}"),
        *_trained_on(page.card["data"]),
        ("Seed", str(page.card["seed"])),
        *training,
        ("Weights digest", str(page.card["digest"])),
    ]


def _trained_on(data: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return what a model saw: the steps of its graph, or the logs of a general one."""
    first = data[0]
    if "steps" not in first:
        logs = [one["log"] for one in data if "events" in one]
        networks = sum(one.get("networks", 0) for one in data)
        return [("Trained on", f"{', '.join(logs)}, each up to its test part, and {networks} simulated networks")]
    steps = f"{first['steps']:,} steps of {first['step']}, {first['first_step']} to {first['until']}"
    return [("Trained on", steps), ("Data digest", str(first["digest"]))]


def _reach_steps(page: ForecastPage) -> int | None:
    """Return how far the model was trained, where the forecast goes beyond it."""
    steps = page.card.get("architecture", {}).get("reach_steps")
    return steps if steps is not None and steps < page.outlook.steps else None


def _reach(page: ForecastPage) -> str:
    """Say how far intervals were trained; nothing where the forecast stays within it."""
    steps = _reach_steps(page)
    if steps is None:
        return ""
    until = day(page.outlook.first_us + steps * page.outlook.step_us)
    return (
        f"Intervals were trained up to {steps:,} steps ahead, to {until}; "
        "beyond that they are held at what was learned there, and whether they hold is not known."
    )


def _json(value: object) -> Markup:
    """Return JSON that can stand inside a script element whatever it holds."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))
