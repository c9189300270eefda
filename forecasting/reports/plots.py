"""Charts of history and forecast with Bokeh: one figure a panel, and the numbers of every metric to show in it.

A figure is drawn for the first metric; the page swaps in the numbers of another when it is chosen, so that 18 metrics
cost the size of their numbers and not of 18 figures.
"""

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from bokeh.embed import components
from bokeh.models import ColumnDataSource, DatetimeTickFormatter, HoverTool, NumeralTickFormatter, Range1d
from bokeh.models.annotations import Span
from bokeh.plotting import figure
from bokeh.resources import Resources

from forecasting.reports.outlook import SHOWN_LEVELS, Fan
from infra.schema import METRIC_INDEX, METRIC_NAMES, METRICS, Kind
from models.contract import FloatArray

# Also the colours of the legend in the template.
INK, SEEN, MODEL, MEAN, MUTED, GRID = "#17212b", "#3d4a57", "#0a6c8e", "#c2570c", "#5b6773", "#e6eaee"
WIDE_ALPHA, NARROW_ALPHA = 0.16, 0.3
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
HEIGHT_PX = 340
DIGITS = 6
_BOKEH_IDS = re.compile(r"\bp[0-9]{4,}\b|\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
_COLUMNS = ("mean", *(f"q{level:g}" for level in SHOWN_LEVELS))
_MEDIAN = f"q{SHOWN_LEVELS[2]:g}"


@dataclass(frozen=True, slots=True)
class Panel:
    """What one chart shows of every metric.

    Attributes:
        key: names the chart in the page.
        seen_us, seen: times [N] and values [N, M] of what was observed.
        fan: what is forecast, at least one step of it.
        has_mean: whether the mean is drawn beside the median.
        reach_us: up to where the intervals were trained, if that is marked.
    """

    key: str
    seen_us: npt.NDArray[np.int64]
    seen: FloatArray
    fan: Fan
    has_mean: bool = False
    reach_us: int | None = None


def series(panel: Panel, metric: str) -> dict[str, list[float]]:
    """Return the numbers that a panel shows of a metric: what was seen, each column of the fan, the range of y."""
    index = METRIC_INDEX[metric]
    columns = np.concatenate([panel.fan.mean[:, index, None], panel.fan.quantiles[:, index]], axis=-1)
    shown = columns if panel.has_mean else columns[:, 1:]
    both = np.concatenate([panel.seen[:, index], shown.ravel()])
    low, high = float(both.min()), float(both.max())
    # Counts and shares are read against zero, totals are not.
    low = low - 0.04 * (high - low) if METRICS[index].kind is Kind.TOTAL else 0.0
    high = high + 0.06 * (high - low)
    numbers = {name: _rounded(columns[:, column]) for column, name in enumerate(_COLUMNS)}
    return {"seen": _rounded(panel.seen[:, index]), **numbers, "y": [low, high if high > low else low + 1.0]}


def all_series(panels: list[Panel]) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Return the numbers by metric, then panel."""
    return {metric: {panel.key: series(panel, metric) for panel in panels} for metric in METRIC_NAMES}


def panel_figure(panel: Panel, metric: str) -> figure:
    """Return the figure of a panel, drawn for a metric."""
    numbers = series(panel, metric)
    low, high = numbers["y"]
    plot = figure(
        name=panel.key,
        height=HEIGHT_PX,
        sizing_mode="stretch_width",
        x_axis_type="datetime",
        y_range=Range1d(start=low, end=high, reset_start=low, reset_end=high),
        tools="xbox_zoom,reset",
        toolbar_location="right",
        background_fill_color=None,
        border_fill_color=None,
        outline_line_color=None,
        lod_threshold=None,
    )
    seen = ColumnDataSource({"time": panel.seen_us / 1e3, "seen": numbers["seen"]}, name=f"{panel.key}-seen")
    fan = ColumnDataSource(
        {"time": panel.fan.start_us / 1e3, **{name: numbers[name] for name in _COLUMNS}}, name=f"{panel.key}-fan"
    )
    for lower, upper, alpha in (("q0.025", "q0.975", WIDE_ALPHA), ("q0.1", "q0.9", NARROW_ALPHA)):
        plot.varea("time", lower, upper, source=fan, fill_color=MODEL, fill_alpha=alpha)
    seen_line = plot.line("time", "seen", source=seen, line_color=SEEN, line_width=1.4)
    median_line = plot.line("time", _MEDIAN, source=fan, line_color=MODEL, line_width=2.2)
    if panel.has_mean:
        plot.line("time", "mean", source=fan, line_color=MEAN, line_width=1.6, line_dash=[5, 3])
    for mark_us, dash in ((int(panel.fan.start_us[0]), [2, 3]), (panel.reach_us, [8, 4])):
        if mark_us is not None:
            plot.add_layout(Span(location=mark_us / 1e3, dimension="height", line_color=MUTED, line_dash=dash))
    time = ("time", "@time{%a %d %b %Y %H:%M}")
    number = "{0,0.[000]}"
    forecast = [
        time,
        ("median", f"@{{{_MEDIAN}}}{number}"),
        ("80 %", f"@{{q0.1}}{number} to @{{q0.9}}{number}"),
        ("95 %", f"@{{q0.025}}{number} to @{{q0.975}}{number}"),
    ]
    if panel.has_mean:
        forecast.insert(1, ("mean", f"@{{mean}}{number}"))
    for line, tooltips in ((seen_line, [time, ("observed", f"@seen{number}")]), (median_line, forecast)):
        plot.add_tools(HoverTool(renderers=[line], tooltips=tooltips, formatters={"@time": "datetime"}, mode="vline"))
    style_frame(plot)
    plot.xaxis.formatter = DatetimeTickFormatter(
        hours="%H:%M", days="%d %b", months="%b %Y", years="%Y", context=None, strip_leading_zeros=False
    )
    return plot


def embed(figures: list[figure]) -> tuple[str, list[str]]:
    """Return the script that draws the figures, and the element of each; equal figures give equal text."""
    script, elements = components(tuple(figures))
    # Bokeh names its models by a counter of the process and its elements at random.
    names: dict[str, str] = {}

    def renamed(text: str) -> str:
        return _BOKEH_IDS.sub(lambda match: names.setdefault(match[0], f"g{len(names) + 1}"), text)

    return renamed(script), [renamed(element) for element in elements]


def library() -> str:
    """Return the whole of BokehJS that the figures need, inline: nothing is asked from any host."""
    return str(Resources(mode="inline", components=["bokeh"]).render_js())


def style_frame(plot: figure) -> None:
    """Give a figure the axes and grid of all charts."""
    plot.toolbar.logo = None
    plot.toolbar.autohide = True
    plot.xgrid.grid_line_color = None
    plot.ygrid.grid_line_color = GRID
    plot.axis.axis_line_color = None
    plot.axis.major_tick_line_color = None
    plot.axis.minor_tick_line_color = None
    plot.axis.major_label_text_color = MUTED
    plot.axis.major_label_text_font = FONT
    plot.axis.major_label_text_font_size = "13px"
    plot.xaxis.axis_line_color = "#b9c2cb"
    plot.yaxis.formatter = NumeralTickFormatter(format="0,0.[000]")
    plot.min_border_left = 56


def _rounded(values: FloatArray) -> list[float]:
    return [float(f"{value:.{DIGITS}g}") for value in values.tolist()]
