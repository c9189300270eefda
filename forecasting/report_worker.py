"""The process that makes reports: it plans what the schedules want, makes one report at a time, and delivers them.

Alerts are watched in it too: `forecasting.alert_worker`.

Run as `python -m forecasting.report_worker`; `forecasting.job_processes` and `graphtide report schedule run` do.
Planning and delivering have a thread of their own: a receiver that is slow holds up no report.
"""

import logging
import threading
from contextlib import suppress
from functools import partial

from forecasting import alert_worker
from forecasting.live import LiveStates
from forecasting.reports.deliveries import Deliveries, Delivery, DeliveryError
from forecasting.reports.records import BUNDLE, HTML, LostReportError, ReportRow, Reports
from forecasting.reports.schedules import Schedules
from forecasting.reports.sending import lease_s, send_next
from forecasting.reports.targets.parcel import Parcel, report_parcel
from forecasting.service_file import ServiceFile, now_us
from forecasting.store_patience import StorePatience
from forecasting.worker_process import beside, lease, run_worker, work_off
from infra.errors import ModelError, StoreError, UsageError
from infra.settings import Settings
from infra.steps import SECOND_US, format_time

IDLE_WAIT_S = 0.1
PLAN_EVERY_S = 1.0
_log = logging.getLogger(__name__)


def work(settings: Settings, worker: str, stop: threading.Event) -> None:
    """Plan, make and deliver reports until `stop` is set.

    Args:
        settings: all of them.
        worker: name of this process, different from all others.
        stop: asked between chunks and while there is nothing to do.

    Raises:
        StoreError: the service's file cannot be opened.
    """
    patience = StorePatience.of(settings, stop)
    with (
        ServiceFile(settings.api.service_db) as file,
        LiveStates(
            patience.for_background,
            settings.models.directory,
            max_graphs=1,
        ) as states,
    ):
        reports = Reports(file, settings.reports, settings.jobs)
        deliver = partial(_plan_and_deliver, settings, file, reports, stop)
        with beside(stop, deliver, *alert_worker.works(settings, stop)):
            work_off(
                reports,
                lambda report: _make(reports, report, states, settings, stop),
                worker,
                stop,
                idle_s=lambda: max(IDLE_WAIT_S, file.look_s),
            )


def _make(reports: Reports, report: ReportRow, states: LiveStates, settings: Settings, stop: threading.Event) -> None:
    # What draws plots takes a second and tens of megabytes, which a service that makes no reports does without.
    from forecasting.reports.making import ReportCancelledError, make_report, report_files  # noqa: PLC0415

    done = 0

    def progressed(steps: int, _of: int) -> None:
        nonlocal done
        done = steps

    problem = None
    try:
        with lease(lambda: reports.renew(report, done), LostReportError, settings.jobs.lease_s / 3) as lost:
            live = states.state_of(report.graph)
            with StorePatience.of(settings, stop).for_background() as reader:
                made = make_report(
                    reader,
                    live,
                    report.request,
                    made=format_time(now_us() // SECOND_US * SECOND_US),
                    chunk_steps=settings.jobs.chunk_steps,
                    previous=reports.facts_before(report.graph, live.next_step_us),
                    on_progress=progressed,
                    cancelled=lambda: stop.is_set() or lost.is_set(),
                )
        reports.finish(report, report_files(made), live.next_step_us, made.facts["summary"])
        return
    except ReportCancelledError:
        return  # `work` puts it back on its way out, or another process has it
    except LostReportError as ended:
        _log.info("%s", ended.message)
        return
    except ModelError as error:
        _log.warning("the report %s failed: %s", report.id, error.message)
        problem = "no forecast could be made from this state"
    except UsageError as error:
        # Asked for when fewer steps were closed.
        problem = f"{error.message}: {error.fix}"
    except StoreError:
        # A store that is away comes back, a graph that is away does not.
        info = states.catalog().get(report.graph)
        if info is not None and info.snapshots > 0:
            raise
        problem = f"the store has no snapshots of {report.graph!r}"
    with suppress(LostReportError):
        reports.fail(report, problem)


def _plan_and_deliver(settings: Settings, file: ServiceFile, reports: Reports, stop: threading.Event) -> None:
    schedules = Schedules(file, settings.reports)
    wait_s = lease_s(settings.reports, settings.jobs.lease_s)
    deliveries = Deliveries(file, settings.reports, lease_s=wait_s)
    while not stop.is_set():
        try:
            schedules.plan()
            while not stop.is_set() and send_next(deliveries, lambda one: _parcel(one, reports), settings.reports):
                pass
        except StoreError as error:
            _log.warning("%s", error.message)
        stop.wait(PLAN_EVERY_S)


def _parcel(delivery: Delivery, reports: Reports) -> Parcel:
    report = reports.get(delivery.subject)
    html, bundle = (reports.body(delivery.subject, name) for name in (HTML, BUNDLE))
    if report is None or html is None or bundle is None:
        raise DeliveryError("the report is there no more", is_final=True)
    return report_parcel(delivery.id, report, html, bundle)


def main() -> None:
    """Work as told on stdin, until stdin ends."""
    run_worker(work)


if __name__ == "__main__":
    main()
