"""Reports of many graphs, made here one after the other or on a Ray cluster; all are kept in the service's file."""

from collections.abc import Callable, Iterator, Sequence

from forecasting.cli.engines import ray_cluster
from forecasting.cli.progress import Report as Shown
from forecasting.cli.progress import progress
from forecasting.history import read_history
from forecasting.live import LiveStates
from forecasting.reports.contents import ReportRequest
from forecasting.reports.making import Report, make_report, report_files
from forecasting.reports.records import Reports
from forecasting.scaleout.reports import ReportTask, make_all, model_files
from forecasting.scaleout.source import Seen, Source
from forecasting.service_file import ServiceFile, now_us
from infra.settings import Settings
from infra.steps import SECOND_US, format_time
from stream.store import open_reader
from stream.store.base import SnapshotReader

OnReport = Callable[[str, Report], None]


def here(names: Sequence[str], settings: Settings, reader: SnapshotReader, on_report: OnReport) -> None:
    """Make the reports in this process, in turn, and keep each.

    Raises:
        GraphtideError: a report cannot be made or kept.
    """
    request = _request(settings)

    def opened() -> SnapshotReader:
        return open_reader(settings.store.url, settings.influxdb)

    with (
        LiveStates(opened, settings.models.directory, max_graphs=1) as states,
        ServiceFile(settings.api.service_db) as file,
    ):
        reports = Reports(file, settings.reports, settings.jobs)
        for name in names:
            live = states.state_of(name)
            with progress(f"Making a report of {name}") as shown:

                def reached(done: int, steps: int, shown: Shown = shown) -> None:
                    shown(done, steps, "steps")

                report = make_report(
                    reader,
                    live,
                    request,
                    made=_now(),
                    chunk_steps=settings.jobs.chunk_steps,
                    use_threads=True,
                    previous=reports.facts_before(name, live.next_step_us),
                    on_progress=reached,
                )
            reports.keep_made(name, request, report_files(report), live.next_step_us, report.facts["summary"])
            on_report(name, report)


def on_ray(names: Sequence[str], settings: Settings, reader: SnapshotReader, on_report: OnReport) -> None:
    """Make the reports on a Ray cluster, all at once, and keep each here when it comes.

    Raises:
        GraphtideError: a report cannot be made or kept.
    """
    request = _request(settings)
    until_us: dict[str, int] = {}
    done = 0
    with (
        ServiceFile(settings.api.service_db) as file,
        ray_cluster(settings) as cluster,
        progress(f"Making {len(names)} reports") as shown,
    ):
        reports = Reports(file, settings.reports, settings.jobs)

        def tasks() -> Iterator[ReportTask]:
            for name in names:
                history = read_history(reader, name)
                until_us[name] = history.start_us + len(history) * history.step_us
                own = model_files(settings.models.directory, name)
                previous = reports.facts_before(name, until_us[name])
                yield ReportTask(Seen.of(name, history), own, _now(), previous)

        def finish(name: str, report: Report) -> None:
            nonlocal done
            reports.keep_made(name, request, report_files(report), until_us[name], report.facts["summary"])
            on_report(name, report)
            done += 1
            shown(done, len(names), "reports")

        make_all(cluster, Source.of(settings), tasks(), request, settings.jobs.chunk_steps, finish)


def _request(settings: Settings) -> ReportRequest:
    return ReportRequest(settings.reports.horizon, settings.forecast.seed, settings.reports.paths)


def _now() -> str:
    return format_time(now_us() // SECOND_US * SECOND_US)
