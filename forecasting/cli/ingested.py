"""What `graphtide ingest` says at its end: a table or JSON, and a file with a sample of what was not counted."""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from forecasting.cli.call import console, say
from forecasting.cli.store import graph_json
from infra.errors import GraphtideError
from infra.garbage import rare_collections
from infra.steps import format_duration, format_time
from infra.whole_file import whole_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from forecasting.ingestion import Ingestion
    from infra.settings import Settings
    from stream.events import Reject
    from stream.ingest import IngestOptions
    from stream.progress import IngestProgress, IngestResult
    from stream.sources.base import PartitionedSource

SHOWN_REJECTS = 5
SHOWN_GRAPHS = 20
_LAST_LOOK_S = 2.0
# File systems take 255 bytes; the ending, and what marks a file that is half written, come on top.
_MAX_NAME_BYTES = 200


@dataclass(frozen=True, slots=True)
class Ran:
    """How a run of ingestion ended.

    Attributes:
        name: how a person calls the source.
        file_name: how a file about it can be called.
        result: what the store has of it.
        interrupted: by Ctrl-C.
        notes: what else the user should know.
    """

    name: str
    file_name: str
    result: "IngestResult"
    interrupted: bool
    notes: "Sequence[str]"


def run_to_end(
    source: "PartitionedSource",
    settings: "Settings",
    options: "IngestOptions",
    on_progress: "Callable[[IngestProgress], None]",
    on_open: "Callable[[Ingestion], None]" = lambda _: None,
    kafka_options: "Sequence[str]" = (),
) -> "tuple[IngestResult, bool, list[str]]":
    """Ingest until the source ends or Ctrl-C; return the result, whether it was Ctrl-C, and what is left undone.

    Raises:
        GraphtideError: the source or the store failed.
    """
    from forecasting.ingestion import ingestion  # noqa: PLC0415 - numpy is not needed for --help

    interrupted, notes = False, []
    with (
        rare_collections(),
        ingestion(source, settings, options, on_progress, kafka_options=kafka_options) as running,
    ):
        on_open(running)
        try:
            running.run.run()
        except KeyboardInterrupt:
            interrupted = True
        result = running.run.result()
        # Who stops a run does not want to wait; without any wait nobody could tell whether something is left.
        longest_s = _LAST_LOOK_S if interrupted else math.inf
        projected = running.drain(min(settings.influxdb.drain_s, longest_s))
        if not running.deliver(min(settings.dead_letters.drain_s, longest_s)):
            why = "" if running.delivery is None or running.delivery.error is None else f" ({running.delivery.error})"
            notes.append(f"dead letters are not all delivered yet{why}; they wait in the store for the next run")
    if projected is not None and not projected.drained:
        notes.append(
            f"{projected.waiting:,} snapshots are not in InfluxDB yet; they wait in the store for the next run"
            + (f" ({projected.error})" if projected.error else "")
        )
    return result, interrupted, notes


def write_rejects(result: "IngestResult", folder: Path, name: str) -> Path | None:
    """Write the sample of rejected records to a file of `folder`; return it, or None if there is none.

    A file that cannot be written is told, and no error: the events are committed by then.
    """
    if not result.rejects:
        return None
    path = folder / f"{_file_name(name)}.ndjson"
    try:
        with whole_file(path) as temporary:
            lines = (json.dumps({"place": r.place, "reason": r.reason, "record": r.record}) for r in result.rejects)
            temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    except GraphtideError as error:
        say(f"note: the sample of rejected records is not kept: {error.message}")
        return None
    return path


def _file_name(name: str) -> str:
    """Return a name that file systems take; a digest keeps those apart that begin alike."""
    raw = name.encode("utf-8", "surrogateescape")
    if len(raw) <= _MAX_NAME_BYTES:
        return name
    digest = hashlib.sha256(raw).hexdigest()[:16]
    return f"{raw[: _MAX_NAME_BYTES - len(digest) - 1].decode('utf-8', 'ignore')}-{digest}"


def summary_json(result: "IngestResult", reject_file: Path | None) -> dict[str, object]:
    """Return what a run did as programs read it."""
    return {
        "source": result.source,
        "ended": result.ended,
        "unchanged": result.unchanged,
        "events": result.events,
        "late": result.late,
        "duplicates": result.duplicates,
        "rejected": result.rejected,
        "revisions": result.revisions,
        "reject_file": None if reject_file is None else str(reject_file),
        "seconds": round(result.seconds, 3),
        "graphs": [{**graph_json(graph), "nodes": graph.nodes, "edges": graph.edges} for graph in result.graphs],
    }


def summarise(source: str, result: "IngestResult", reject_file: Path | None) -> None:
    """Print what the store has of a source now."""
    table = Table(box=None)
    for title in ("graph", "events", "nodes", "edges", "snapshots", "step", "first step", "last step"):
        is_count = title in {"events", "nodes", "edges", "snapshots"}
        table.add_column(title, justify="right" if is_count else "left", no_wrap=True)
    for graph in result.graphs[:SHOWN_GRAPHS]:
        first, last = (format_time(us) if us is not None else "-" for us in (graph.first_step_us, graph.last_step_us))
        counts = (f"{count:,}" for count in (graph.events, graph.nodes, graph.edges, graph.snapshots))
        table.add_row(graph.name, *counts, format_duration(graph.step_us), first, last)
    out = console()
    out.print(table)
    if len(result.graphs) > SHOWN_GRAPHS:
        out.print(f"and {len(result.graphs) - SHOWN_GRAPHS:,} more graphs; see: graphtide graphs")
    if result.unchanged:
        out.print(f"Already ingested, nothing changed: {result.events:,} events of {source}")
    else:
        out.print(f"{result.events:,} events of {source} in {result.seconds:.1f} s")
    if result.duplicates:
        out.print(f"{result.duplicates:,} events had an id that was counted before and were not counted again")
    if result.late or result.rejected:
        out.print(f"{result.late:,} events came too late and {result.rejected:,} records were rejected", end="")
        out.print(", for example:" if result.rejects else "; see: graphtide deadletters list")
        for reject in one_of_each_reason(result.rejects):
            out.print(f"  {reject.place}: {reject.reason}")
        if reject_file is not None:
            out.print(f"A sample of {len(result.rejects):,} is in {reject_file}")
            from stream.lines import is_file  # noqa: PLC0415 - numpy is not needed for --help

            if is_file(result.source):
                out.print(
                    "To keep all of a file, whole, as dead letters, set [dead_letters] target before it is ingested"
                )


def one_of_each_reason(rejects: "Sequence[Reject]") -> "list[Reject]":
    """Return the first reject of each kind of reason, a few at most."""
    # Reasons quote values; their first words tell them apart.
    first_of: dict[tuple[str, ...], Reject] = {}
    for reject in rejects:
        first_of.setdefault(tuple(reject.reason.split()[:2]), reject)
    return list(first_of.values())[:SHOWN_REJECTS]
