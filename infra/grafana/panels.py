"""What the Grafana dashboards show: a dashboard is a title, and rows of panels with their queries and units.

`build.py` makes the JSON files of `dashboards/` from it.
"""

from dataclasses import dataclass

SHORT = 'route="/v1/graphs/{graph}/forecast"'


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart.

    Attributes:
        title: what it shows.
        unit: one of Grafana's units.
        queries: expression and legend of each line.
        bound: a line to draw: the bound of an alert.
        help: what to read from it.
    """

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    bound: float | None = None
    help: str = ""


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard: its name, which is that of its file, its title, and rows of panels."""

    name: str
    title: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]


def _quantiles(metric: str, selector: str = "") -> tuple[tuple[str, str], ...]:
    return tuple(
        (f"histogram_quantile({level}, sum by (le) (rate({metric}_bucket{{{selector}}}[5m])))", f"p{100 * level:.0f}")
        for level in (0.5, 0.9, 0.99)
    )


INGESTION = Board(
    "ingestion",
    "Graphtide: ingestion",
    (
        (
            "Flow",
            (
                Panel(
                    "Events", "cps", (("sum by (instance) (rate(graphtide_ingest_events_total[5m]))", "{{instance}}"),)
                ),
                Panel(
                    "Records not read yet",
                    "short",
                    (("sum by (partition) (graphtide_ingest_partition_lag_records)", "{{partition}}"),),
                    bound=100_000,
                ),
                Panel(
                    "Closed and revised steps",
                    "cps",
                    (
                        ("sum(rate(graphtide_ingest_snapshots_total[5m]))", "closed"),
                        ("sum(rate(graphtide_ingest_revisions_total[5m]))", "revised"),
                    ),
                ),
            ),
        ),
        (
            "Event time",
            (
                Panel(
                    "Watermark and newest event behind the clock",
                    "s",
                    (
                        ("time() - min(graphtide_ingest_watermark_seconds)", "watermark"),
                        ("time() - max(graphtide_ingest_event_time_seconds)", "newest event"),
                    ),
                    help="A log that is played anew shows its own age here.",
                ),
                Panel("Idle partitions", "short", (("sum(graphtide_ingest_partition_idle)", "idle"),)),
                Panel(
                    "Waiting for a broker", "s", (("max(graphtide_ingest_broker_wait_seconds)", "waiting"),), bound=60
                ),
            ),
        ),
        (
            "What is not counted",
            (
                Panel(
                    "Records that are no events",
                    "percentunit",
                    (("graphtide:ingest_rejected:ratio_rate15m", "rejected"),),
                    bound=0.01,
                ),
                Panel("Late events", "percentunit", (("graphtide:ingest_late:ratio_rate15m", "late"),), bound=0.05),
                Panel(
                    "Duplicates and missing offsets",
                    "short",
                    (
                        ("sum(increase(graphtide_ingest_duplicates_total[15m]))", "duplicates in 15 min"),
                        ("sum(graphtide_ingest_partition_missing_records)", "offsets without a record"),
                    ),
                ),
            ),
        ),
        (
            "Writing",
            (
                Panel("Time of a commit", "s", _quantiles("graphtide_ingest_commit_seconds")),
                Panel(
                    "Snapshots that wait for InfluxDB",
                    "short",
                    (("sum(graphtide_ingest_projection_waiting_snapshots)", "waiting"),),
                    bound=1000,
                ),
            ),
        ),
    ),
)

API = Board(
    "api",
    "Graphtide: API",
    (
        (
            "Objective",
            (
                Panel(
                    "Share of failed requests",
                    "percentunit",
                    (
                        ("graphtide:request_errors:ratio_rate1h", "1 h"),
                        ("graphtide:request_errors:ratio_rate3d", "3 d"),
                    ),
                    bound=0.0005,
                    help="The line is the objective: 99.95 % are answered without a fault of the service.",
                ),
                Panel(
                    "Budget burned, times the allowed rate",
                    "short",
                    (("graphtide:request_errors:ratio_rate1h / 0.0005", "1 h"),),
                    bound=14.4,
                ),
                Panel(
                    "Serving processes",
                    "short",
                    (('sum(up{job="graphtide-api"})', "up"), ("sum(graphtide_store_up)", "store is read")),
                ),
            ),
        ),
        (
            "Requests",
            (
                Panel("Requests by status", "reqps", (("sum by (status) (graphtide:requests:rate5m)", "{{status}}"),)),
                Panel("Requests by route", "reqps", (("sum by (route) (graphtide:requests:rate5m)", "{{route}}"),)),
                Panel(
                    "Time of short forecasts",
                    "s",
                    _quantiles("graphtide_http_request_duration_seconds", SHORT),
                    bound=0.2,
                ),
            ),
        ),
        (
            "Load",
            (
                Panel(
                    "Turned away",
                    "reqps",
                    (("sum by (reason) (rate(graphtide_requests_shed_total[5m]))", "{{reason}}"),),
                ),
                Panel(
                    "Forecasts that wait or are computed",
                    "short",
                    (("sum by (instance) (graphtide_forecast_queue_length)", "{{instance}}"),),
                ),
                Panel(
                    "Streams",
                    "short",
                    (
                        ("sum(graphtide_streams_open)", "open"),
                        ("sum(increase(graphtide_streams_cut_total[15m]))", "cut in 15 min"),
                    ),
                ),
            ),
        ),
        (
            "Jobs and events",
            (
                Panel("Jobs", "short", (("max by (kind, status) (graphtide_jobs)", "{{kind}} {{status}}"),)),
                Panel(
                    "The first of the queue has waited",
                    "s",
                    (("max by (kind) (graphtide_job_wait_seconds)", "{{kind}}"),),
                    bound=900,
                ),
                Panel(
                    "Events taken over HTTP",
                    "cps",
                    (("sum by (result) (rate(graphtide_events_taken_total[5m]))", "{{result}}"),),
                ),
            ),
        ),
    ),
)

MODEL = Board(
    "model",
    "Graphtide: model",
    (
        (
            "Cost",
            (
                Panel("Time to roll out", "s", _quantiles("graphtide_model_seconds")),
                Panel("Time to encode or advance a state", "s", _quantiles("graphtide_state_seconds")),
                Panel("Rollouts", "ops", (("sum(rate(graphtide_model_seconds_count[5m]))", "rollouts"),)),
            ),
        ),
        (
            "Sharing",
            (
                Panel(
                    "Look-ups of answers",
                    "ops",
                    (("sum by (result) (rate(graphtide_forecast_cache_total[5m]))", "{{result}}"),),
                ),
                Panel(
                    "Requests that shared a forecast",
                    "ops",
                    (("sum(rate(graphtide_forecast_shared_total[5m]))", "shared"),),
                ),
                Panel(
                    "GPU",
                    "percentunit",
                    (("max by (instance, gpu) (graphtide_gpu_utilization_ratio)", "{{instance}} {{gpu}}"),),
                    bound=0.7,
                    help="With the extra `gpu`.",
                ),
            ),
        ),
    ),
)

QUALITY = Board(
    "quality",
    "Graphtide: quality of forecasts",
    (
        (
            "What forecasts rest on",
            (
                Panel(
                    "Age of the data, in steps",
                    "short",
                    (
                        (
                            "max by (graph) (graphtide_data_age_seconds) / max by (graph) (graphtide_step_seconds)",
                            "{{graph}}",
                        ),
                    ),
                    bound=3,
                ),
                Panel(
                    "Answers by a floor",
                    "short",
                    (("sum by (graph) (increase(graphtide_forecast_degraded_total[15m]))", "{{graph}}"),),
                ),
            ),
        ),
        (
            "How the next step came out",
            (
                Panel(
                    "Values inside the interval of 80 %, over a day",
                    "percentunit",
                    (("graphtide:forecast_coverage_80:ratio_1d", "{{graph}}"),),
                    bound=0.6,
                    help="Should lie near 80 %; the line is the bound of the alert.",
                ),
                Panel(
                    "Error of events, relative to events, over a day and a week",
                    "percentunit",
                    (
                        ("graphtide:forecast_event_error:ratio_1d", "{{graph}} 1 d"),
                        ("graphtide:forecast_event_error:ratio_7d", "{{graph}} 7 d"),
                    ),
                ),
                Panel(
                    "Scored steps",
                    "short",
                    (
                        (
                            "sum by (graph) (increase(graphtide_forecast_scored_values_total[1d])) / 18",
                            "{{graph}} in a day",
                        ),
                    ),
                    help="Eighteen values a step. Only graphs that are asked for are scored.",
                ),
            ),
        ),
    ),
)

BOARDS = (INGESTION, API, MODEL, QUALITY)
