"""What the settings say of ingestion, as `stream` takes it."""

from infra.settings import Settings
from infra.steps import SECOND_US
from stream.closing import Limits
from stream.ingest import IngestOptions


def ingest_options(
    settings: Settings, *, split_by_type: bool = False, backfill: bool = False, live: bool = False
) -> IngestOptions:
    """Return the options of a run.

    Args:
        settings: all settings.
        split_by_type: also keep a graph for each event type.
        backfill: the events revise closed steps.
        live: events come as they happen, so that a time ahead of the clock is a wrong clock. A log may hold any time.
    """
    ingest, metrics = settings.ingest, settings.metrics
    return IngestOptions(
        step_us=ingest.step_us,
        out_of_orderness_us=ingest.out_of_orderness_s * SECOND_US,
        allowed_lateness_us=ingest.allowed_lateness_s * SECOND_US,
        max_ahead_us=ingest.max_ahead_s * SECOND_US if live else None,
        idle_hold_us=ingest.idle_hold_s * SECOND_US,
        dedup_window_us=ingest.dedup_window_s * SECOND_US,
        keep_edges_us=ingest.keep_edges_s * SECOND_US or None,
        backfill=backfill,
        split_by_type=split_by_type,
        limits=Limits(metrics.max_nodes, metrics.max_edges, ingest.max_empty_steps),
        keep_rejects=ingest.keep_rejects,
    )
