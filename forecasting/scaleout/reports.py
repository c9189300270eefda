"""Reports on a Ray cluster: one task a graph; pages and data come back to the driver, which keeps them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from forecasting.live import LiveStates
from forecasting.reports.contents import ReportRequest
from forecasting.reports.making import Report, make_report
from forecasting.scaleout.cluster import Cluster
from forecasting.scaleout.source import Seen, Source
from forecasting.training import checkpoint_folder
from infra.errors import ModelError
from models.checkpoint_files import read_files


@dataclass(frozen=True, slots=True)
class ReportTask:
    """A report that is to be made.

    Attributes:
        seen: the graph, up to the step that the report rests on.
        own: the files of the graph's own model by name, damaged or not; none where the general one answers.
        made: the date of the report.
        previous: facts of the last report, to compare with.
    """

    seen: Seen
    own: Mapping[str, bytes]
    made: str
    previous: Mapping[str, Any] | None


def model_files(models: Path, graph: str) -> dict[str, bytes]:
    """Return the files of a graph's own model in the folder of models, by name; none if it has no model.

    Raises:
        ModelError: they cannot be read.
    """
    folder = checkpoint_folder(models, graph)
    try:
        return read_files(folder)
    except OSError as error:
        raise ModelError(f"cannot read the model of {graph!r}: {error.strerror}", place=str(folder)) from error


def make_all(
    cluster: Cluster,
    source: Source,
    tasks: Iterable[ReportTask],
    request: ReportRequest,
    chunk_steps: int,
    on_report: Callable[[str, Report], None],
) -> None:
    """Make all reports; each is handed over when it comes, in any order.

    Args:
        cluster: where.
        source: the store, which the workers read.
        tasks: of which graphs.
        request: what each shall say.
        chunk_steps: steps of one chunk of the rollout.
        on_report: given graph and report.

    Raises:
        GraphtideError: a report cannot be made.
    """
    cluster.each(
        _make,
        tasks,
        lambda task, report: on_report(task.seen.graph, report),
        shared=(source, request, chunk_steps),
        named=lambda task: f"the report of {task.seen.graph}",
    )


def _make(task: ReportTask, source: Source, request: ReportRequest, chunk_steps: int) -> Report:
    graph = task.seen.graph
    task.seen.read(source)
    # The folder of models is the driver's; what it holds of this graph lies in one of our own.
    with TemporaryDirectory(prefix="graphtide-report-") as folder:
        own = checkpoint_folder(Path(folder), graph)
        own.mkdir(parents=True)
        for name, content in task.own.items():
            (own / name).write_bytes(content)
        with source.open() as reader, LiveStates(source.open, Path(folder), max_graphs=1) as states:
            live = states.state_at(graph, task.seen.steps)
            return make_report(reader, live, request, made=task.made, chunk_steps=chunk_steps, previous=task.previous)
