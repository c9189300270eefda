"""Charts of a backtest with Bokeh: how ratios and calibration change with the horizon."""

from collections.abc import Sequence
from typing import Any

from bokeh.models import ColumnDataSource, HoverTool, NumeralTickFormatter, Range1d
from bokeh.models.annotations import Legend, Span
from bokeh.plotting import figure

from forecasting.backtests.ratios import Ratio
from forecasting.backtests.scores import ALL_COUNTS, Calibration
from forecasting.reports.plots import FONT, HEIGHT_PX, MODEL, MUTED, style_frame
from infra.schema import QUANTILE_LEVELS

# Told apart also by people who see few colours (Okabe and Ito), after the one of the model.
_OTHERS = ("#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8a6d3b", "#5b6773", "#b3a100", "#7a5195")


def colours(models: Sequence[str], ours: str) -> dict[str, str]:
    """Return a colour for each model."""
    others = [model for model in models if model != ours]
    return {ours: MODEL, **{model: _OTHERS[number % len(_OTHERS)] for number, model in enumerate(others)}}


def ratio_figure(name: str, found: Sequence[Ratio], buckets: Sequence[str], ours: str) -> figure:
    """Return a chart of ratios by range of horizons, a line a model; what is undefined is left out.

    Args:
        name: names the figure.
        found: ratios of one score against one reference.
        buckets: the ranges, in their order.
        ours: the model that is drawn strongest.
    """
    plot = _figure(name, x_range=list(buckets))
    plot.add_layout(Span(location=1, dimension="width", line_color=MUTED, line_dash=[2, 3]))
    models = list(dict.fromkeys(ratio.model for ratio in found))
    palette, items = colours(models, ours), []
    for model in models:
        own = {ratio.bucket: ratio.ratio for ratio in found if ratio.model == model}
        shown = [bucket for bucket in buckets if own.get(bucket, float("nan")) == own.get(bucket)]
        data = ColumnDataSource(
            {"bucket": shown, "ratio": [own[bucket] for bucket in shown], "model": [model] * len(shown)}
        )
        width = 3.0 if model == ours else 1.4
        line = plot.line("bucket", "ratio", source=data, line_color=palette[model], line_width=width)
        dots = plot.scatter("bucket", "ratio", source=data, size=7, fill_color=palette[model], line_color=None)
        plot.add_tools(
            HoverTool(renderers=[dots], tooltips=[("", "@model"), ("steps", "@bucket"), ("ratio", "@ratio{0.000}")])
        )
        items.append((model, [line, dots]))
    _legend(plot, items)
    plot.xaxis.axis_label = "steps ahead"
    plot.yaxis.axis_label = "ratio, below 1 is better"
    plot.yaxis.formatter = NumeralTickFormatter(format="0.00")
    return plot


def calibration_figure(name: str, found: Sequence[Calibration], buckets: Sequence[str]) -> figure:
    """Return a chart of the shares below, and at or below, each level over all counts: a band a range of horizons.

    Args:
        name: names the figure.
        found: calibration of one model.
        buckets: the ranges, in their order.
    """
    plot = _figure(name, x_range=Range1d(start=0, end=1), y_range=Range1d(start=0, end=1))
    plot.line([0, 1], [0, 1], line_color=MUTED, line_dash=[2, 3])
    palette, items = (MODEL, *_OTHERS), []
    by_bucket = {row.bucket: row for row in found if row.metric == ALL_COUNTS}
    for number, bucket in enumerate(bucket for bucket in buckets if bucket in by_bucket):
        row, colour = by_bucket[bucket], palette[number % len(palette)]
        data = ColumnDataSource({"level": list(QUANTILE_LEVELS), "low": list(row.below), "high": list(row.at_or_below)})
        band = plot.varea("level", "low", "high", source=data, fill_color=colour, fill_alpha=0.12)
        lines = [plot.line("level", side, source=data, line_color=colour, line_width=1.6) for side in ("low", "high")]
        plot.add_tools(
            HoverTool(
                renderers=[lines[0]],
                tooltips=[("level", "@level{0.000}"), ("below", "@low{0.000}"), ("at or below", "@high{0.000}")],
            )
        )
        items.append((bucket, [band, *lines]))
    _legend(plot, items)
    plot.xaxis.axis_label = "level of the quantile"
    plot.yaxis.axis_label = "share of observations"
    plot.xaxis.formatter = plot.yaxis.formatter = NumeralTickFormatter(format="0 %")
    return plot


def _figure(name: str, **ranges: Any) -> figure:
    plot = figure(
        name=name,
        height=HEIGHT_PX,
        sizing_mode="stretch_width",
        tools="",
        toolbar_location=None,
        background_fill_color=None,
        border_fill_color=None,
        outline_line_color=None,
        **ranges,
    )
    style_frame(plot)
    plot.axis.axis_label_text_color = MUTED
    plot.axis.axis_label_text_font = FONT
    plot.axis.axis_label_text_font_style = "normal"
    return plot


def _legend(plot: figure, items: list[Any]) -> None:
    legend = Legend(items=items, border_line_color=None, background_fill_color=None, label_text_color=MUTED)
    legend.label_text_font = FONT
    plot.add_layout(legend, "right")
