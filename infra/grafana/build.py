"""Make the JSON files of `dashboards/` from `panels.py`.

    python infra/grafana/build.py

The types of Grafana's own SDK check what is built; it comes with the extra `dev`.
"""

import sys
from pathlib import Path

from grafana_foundation_sdk.builders import common, dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.dashboard import DataSourceRef

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from infra.grafana.panels import BOARDS, Board, Panel

FOLDER = Path(__file__).parent / "dashboards"
SOURCE = DataSourceRef(type_val="prometheus", uid="graphtide-prometheus")
HEIGHT, WIDTH = 8, 24


def chart(panel: Panel, width: int) -> timeseries.Panel:
    """Return a panel as Grafana's time series."""
    built = (
        timeseries.Panel()
        .title(panel.title)
        .description(panel.help)
        .datasource(SOURCE)
        .unit(panel.unit)
        .height(HEIGHT)
        .span(width)
        .min(0)
        .legend(common.VizLegendOptions().show_legend(True).placement(common_models.LegendPlacement.BOTTOM))
    )
    for number, (expression, legend) in enumerate(panel.queries):
        built = built.with_target(
            prometheus.Dataquery().ref_id(chr(ord("A") + number)).expr(expression).legend_format(legend)
        )
    if panel.bound is not None:
        steps = [models.Threshold(value=None, color="green"), models.Threshold(value=panel.bound, color="red")]
        built = built.thresholds(
            dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)
        ).thresholds_style(common.GraphThresholdsStyleConfig().mode(common_models.GraphTresholdsStyleMode.DASHED))
    return built


def board(content: Board) -> str:
    """Return a dashboard as the text of its file."""
    built = (
        dashboard.Dashboard(content.title)
        .uid(f"graphtide-{content.name}")
        .tags(["graphtide"])
        .refresh("30s")
        .time("now-6h", "now")
        .timezone("utc")
        .readonly()
    )
    for title, panels in content.rows:
        built = built.with_row(dashboard.Row(title))
        for panel in panels:
            built = built.with_panel(chart(panel, WIDTH // len(panels)))
    return JSONEncoder(sort_keys=True, indent=2).encode(built.build()) + "\n"


def files() -> dict[Path, str]:
    """Return the text of each file by its path."""
    return {FOLDER / f"{content.name}.json": board(content) for content in BOARDS}


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text)
