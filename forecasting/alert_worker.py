"""The part of the report process that watches: it judges graphs as their steps close, and delivers what has changed.

Judging and delivering have a thread each, beside reports: a receiver that is slow holds up no judgement, and a report
of a century holds up no alert. Several processes may run at once; `watches` says who judges a graph.
"""

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from forecasting.alerts import records
from forecasting.alerts.evaluation import Subject, evaluate, was_made_anew
from forecasting.alerts.judging import judge_stale
from forecasting.alerts.messages import alert_parcel
from forecasting.alerts.records import Alerts, alert_id, begin_anew, record
from forecasting.alerts.rulebook import RuleBook, RuleRow, is_current
from forecasting.alerts.watches import LostWatchError, Watch, Watches
from forecasting.live import LiveStates
from forecasting.reports.deliveries import Deliveries, Delivery, DeliveryError
from forecasting.reports.sending import lease_s, send_next
from forecasting.reports.targets.parcel import Parcel
from forecasting.service_file import ServiceFile
from forecasting.worker_process import lease
from infra.errors import GraphtideError, ModelError, StoreError
from infra.settings import Settings
from stream.store import open_reader
from stream.store.base import GraphInfo, SnapshotReader

DELIVER_EVERY_S = 0.5
SWEEP_EVERY_S = 60.0
# A graph that could not be judged is not tried again before.
RETRY_S = 30.0
_log = logging.getLogger(__name__)


class Watcher:
    """Judges the graphs of a store by the rules of a service's file.

    Args:
        file: where rules and alerts are.
        open_store: opens the store.
        settings: all of them.
        clock: the time in UTC microseconds, else that of the file.
    """

    def __init__(
        self,
        file: ServiceFile,
        open_store: Callable[[], SnapshotReader],
        settings: Settings,
        clock: Callable[[], int] | None = None,
    ) -> None:
        self._file = file
        self._open_store = open_store
        self._settings = settings
        self._clock = clock or file.now_us
        self._states = LiveStates(open_store, settings.models.directory, max_graphs=settings.api.max_live_graphs)
        self._book = RuleBook(file, clock)
        self._alerts = Alerts(file, keep_s=settings.alerts.keep_s, clock=clock)
        self._watches = Watches(file, lease_s=settings.jobs.lease_s, clock=clock)
        self._retry_at: dict[str, float] = {}

    def close(self) -> None:
        """Release the store."""
        self._states.close()

    def look(self) -> int:
        """Judge what has moved; return how many graphs were judged.

        Raises:
            StoreError: the store or the service's file cannot be used.
        """
        self._alerts.end_silences()
        rows = self._book.all()
        if not rows:
            return 0
        catalog = self._states.catalog()
        counts = {row.rule.name: sum(map(row.rule.watches, catalog)) for row in rows}
        grounds, judged = self._watches.grounds(), 0
        for graph, info in catalog.items():
            own = [row for row in rows if row.rule.watches(graph)]
            self._judge_age([row for row in own if row.rule.spec.kind == "stale"], info)
            own = [row for row in own if row.rule.spec.kind != "stale"]
            ground = _ground(info, own, counts)
            if own and info.snapshots and grounds.get(graph) != ground:
                judged += self._judge(Subject(info, own, counts), ground)
        return judged

    def sweep(self) -> None:
        """Remove what is kept for long enough."""
        self._alerts.sweep()

    def _judge_age(self, rows: Sequence[RuleRow], info: GraphInfo) -> None:
        for row in rows:
            judgement = judge_stale(row.rule, info, self._clock())
            if judgement is None:
                continue
            known = self._alerts.get(alert_id(row.rule.name, row.created_us, info.name, ""))
            is_firing = known is not None and known.state == "firing"
            if known is None or is_firing != (judgement.verdict == "fire"):
                judged_us = None if known is None else known.judged_us
                # What we saw of the store may be older than what another process judged.
                is_anew = was_made_anew(info, judged_us) and was_made_anew(self._states.catalog()[info.name], judged_us)
                with self._file.transaction() as connection:
                    if not is_current(connection, row):
                        continue
                    if is_anew:
                        begin_anew(connection, info.name)
                    record(connection, row.rule, row.created_us, info.name, [judgement], self._clock())
                self._book.note({row.rule.name: 1}, {})

    def _judge(self, subject: Subject, ground: str) -> bool:
        graph = subject.info.name
        if time.monotonic() < self._retry_at.get(graph, 0):
            return False
        watch = self._watches.claim(graph, ground)
        if watch is None:
            return False
        try:
            self._judge_claimed(subject, watch, ground)
        except LostWatchError as error:
            _log.info("%s", error.message)
            return False
        except (ModelError, StoreError) as error:
            _log.warning("the alerts of %s could not be judged: %s", graph, error.message)
            self._put_off(subject, watch, error.message)
            return False
        except Exception:  # noqa: BLE001 - one graph must not hold up the others
            _log.exception("the alerts of %s could not be judged", graph)
            self._put_off(subject, watch, "something went wrong that should not; the log has it")
            return False
        self._retry_at.pop(graph, None)
        return True

    def _put_off(self, subject: Subject, watch: Watch, problem: str) -> None:
        graph = subject.info.name
        self._retry_at[graph] = time.monotonic() + RETRY_S
        self._watches.release(watch)
        self._book.note({}, {row.rule.name: f"{graph}: {problem}" for row in subject.rows})

    def _judge_claimed(self, subject: Subject, watch: Watch, ground: str) -> None:
        settings = self._settings
        with (
            lease(lambda: self._watches.renew(watch), LostWatchError, settings.jobs.lease_s / 3),
            self._open_store() as reader,
        ):
            found = evaluate(subject, watch, self._watches, self._states, reader, settings)
        self._watches.keep(watch, ground, found)


def _ground(info: GraphInfo, rows: Sequence[RuleRow], counts: dict[str, int]) -> str:
    """Return what judgements rest on, as a text that is another when that is."""
    rules = " ".join(f"{row.rule.name} {row.created_us} {counts[row.rule.name]}" for row in rows)
    steps = f"{info.step_us} {info.first_step_us} {info.last_step_us} {info.events} {info.final_us}"
    return hashlib.sha256(f"{steps} {rules}".encode()).hexdigest()


def watch(settings: Settings, stop: threading.Event) -> None:
    """Judge graphs as their steps close, until `stop` is set.

    Raises:
        StoreError: the service's file cannot be opened.
    """
    with ServiceFile(settings.api.service_db) as file:
        watcher = Watcher(file, lambda: open_reader(settings.store.url, settings.influxdb), settings)
        swept_at, waits_for = time.monotonic(), ""
        while not stop.is_set():
            try:
                watcher.look()
                if time.monotonic() - swept_at > SWEEP_EVERY_S:
                    watcher.sweep()
                    swept_at = time.monotonic()
                waits_for = ""
            except GraphtideError as error:
                # Said once, not at every look.
                if error.message != waits_for:
                    _log.warning("alerts have to wait: %s", error.message)
                waits_for = error.message
            stop.wait(settings.api.poll_interval_s)
        watcher.close()


def deliver(settings: Settings, stop: threading.Event) -> None:
    """Deliver what has changed, until `stop` is set.

    Raises:
        StoreError: the service's file cannot be opened.
    """
    with ServiceFile(settings.api.service_db) as file:
        alerts = Alerts(file, keep_s=settings.alerts.keep_s)
        wait_s = lease_s(settings.reports, settings.jobs.lease_s)
        deliveries = Deliveries(file, settings.reports, lease_s=wait_s, queue=records.DELIVERIES)
        while not stop.is_set():
            try:
                while not stop.is_set() and deliver_next(deliveries, alerts, settings):
                    pass
            except StoreError as error:
                _log.warning("%s", error.message)
            stop.wait(DELIVER_EVERY_S)


def deliver_next(deliveries: Deliveries, alerts: Alerts, settings: Settings) -> bool:
    """Try the next delivery that is due, once; False where there is none.

    Raises:
        StoreError: the service's file cannot be used.
    """
    return send_next(deliveries, lambda one: _parcel(one, alerts, settings), settings.reports)


def _parcel(delivery: Delivery, alerts: Alerts, settings: Settings) -> Parcel:
    transition = alerts.transition(delivery.subject)
    alert = None if transition is None else alerts.get(transition.alert_id)
    if transition is None or alert is None:
        raise DeliveryError("the alert is there no more", is_final=True)
    return alert_parcel(delivery.id, alert, transition, settings.alerts.dashboard_url)


def works(settings: Settings, stop: threading.Event) -> list[Callable[[], None]]:
    """Return what watches and what delivers until `stop` is set, each for a thread of its own."""
    return [partial(watch, settings, stop), partial(deliver, settings, stop)]
