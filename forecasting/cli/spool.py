"""`graphtide ingest spool`: the events that `graphtide serve` took over HTTP."""

from pathlib import Path
from typing import TYPE_CHECKING

from forecasting.cli.call import interruptible
from forecasting.cli.ingested import Ran, run_to_end
from forecasting.cli.watch import Watch
from infra.errors import UsageError

if TYPE_CHECKING:
    from infra.settings import Settings
    from stream.decoders.builder import DecodeOptions
    from stream.ingest import IngestOptions

SPOOL_NAME = "spool"


def is_spool(source: Path) -> bool:
    """Tell whether a source is the spool; a file of that name goes before it."""
    return str(source) == SPOOL_NAME and not source.exists()


def run_spool(decoding: "DecodeOptions", settings: "Settings", options: "IngestOptions", *, follow: bool) -> Ran:
    """Drain the spool into the store, and show how it goes.

    Raises:
        UsageError: an option says how to read records, which the service has done already.
        GraphtideError: the spool or the store failed.
    """
    from stream.decoders.builder import DecodeOptions  # noqa: PLC0415 - numpy is not needed for --help
    from stream.spool.file import Spool  # noqa: PLC0415
    from stream.spool.source import SpoolSource  # noqa: PLC0415

    if decoding != DecodeOptions():
        raise UsageError(
            "the spool holds records that were checked already, each with its graph",
            fix="leave out --graph, --format, --columns, --time-unit, --bipartite and --strict",
        )
    spool = settings.spool
    with interruptible("Nothing of the spool was ingested yet."), Spool(spool.path) as file:
        source = SpoolSource(
            file,
            follow=follow,
            batch_records=settings.ingest.batch_rows,
            poll_interval_s=settings.ingest.poll_interval_s,
            idle_timeout_s=spool.idle_timeout_s,
            keep_s=spool.keep_s,
        )
        with Watch("Ingesting the spool") as watch:
            result, interrupted, notes = run_to_end(source, settings, options, watch.committed, watch.opened)
    return Ran(f"the spool {spool.path}", SPOOL_NAME, result, interrupted, notes)
