"""The chart of a report: one page that needs no network, the figures of each case as bars on a logarithmic scale."""

from pathlib import Path

from bokeh.embed import file_html
from bokeh.models import ColumnDataSource, FactorRange
from bokeh.palettes import Category10_10
from bokeh.plotting import figure
from bokeh.resources import INLINE
from bokeh.transform import factor_cmap

from forecasting.bench.report import Report
from infra.whole_file import whole_file

_BAR_PIXELS = 22


def write_chart(report: Report, path: Path) -> None:
    """Write the chart as HTML.

    Raises:
        GraphtideError: the file cannot be written.
    """
    unit = report.rows[0].unit if report.rows else ""
    rows = [row for row in report.rows if row.unit == unit]
    systems = list(dict.fromkeys(row.system for row in rows))
    # Bokeh counts from below; the first case belongs on top.
    factors = [(row.case, row.system) for row in reversed(rows)]
    source = ColumnDataSource(
        {
            "case_system": factors,
            "value": [row.value for row in reversed(rows)],
            "median": [row.value if row.median is None else row.median for row in reversed(rows)],
        }
    )
    plot = figure(
        title=f"{report.bench}: {unit}, less is better; {report.hardware['cpu']}, one thread",
        y_range=FactorRange(factors=factors),
        x_axis_type="log",
        height=140 + _BAR_PIXELS * len(factors),
        width=1000,
        tooltips=[("case, system", "@case_system"), ("best", f"@value {unit}"), ("median", f"@median {unit}")],
        toolbar_location=None,
    )
    smallest = min((row.value for row in rows if row.value > 0), default=1.0)
    colours = factor_cmap("case_system", palette=Category10_10, factors=systems, start=1)
    plot.hbar(y="case_system", right="value", left=smallest / 2, height=0.8, source=source, fill_color=colours)
    plot.ygrid.grid_line_color = None
    # Of the class CategoricalAxis, since the range is one of factors.
    plot.yaxis.update(group_label_orientation="horizontal")
    with whole_file(path) as part:
        part.write_text(file_html(plot, INLINE, f"graphtide bench {report.bench}"), encoding="utf-8")
