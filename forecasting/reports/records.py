"""Reports in the service's file: asked for or scheduled, leased by the process that makes them, kept with their files.

As with the jobs of forecasts, who makes a report takes a lease and a fencing token and names the token with everything
that it keeps. The files, the end of the report and its deliveries are one transaction: a report is there whole or not.
"""

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from forecasting.bookkeeping.base import TEXTS_OF_JSON, Connection
from forecasting.jobs import Status, TooManyJobsError
from forecasting.reports.contents import ReportRequest
from forecasting.service_file import ServiceFile
from infra.errors import GraphtideError
from infra.settings import JobSettings, ReportSettings

HTML, BUNDLE, FACTS, PDF = "report.html", "report.zip", "report.json", "report.pdf"
SKIPPED = "skipped"
_COLUMNS = (
    "id, graph, owner, request, schedule, slot_us, deliver, status, steps_done, fence, attempts,"
    " created_us, started_us, finished_us, observed_until_us, problem, summary"
)
_ACTIVE = "status IN ('queued', 'running')"


class LostReportError(GraphtideError):
    """Another process has taken the report over, or it was removed."""


@dataclass(frozen=True, slots=True)
class ReportRow:
    """A row of the table; times are UTC microseconds.

    Attributes:
        schedule, slot_us: what wanted it and for when; None for one that was asked for.
        deliver: names of the targets.
        status: one of `forecasting.jobs.Status`, or `SKIPPED` for a slot that was missed.
        observed_until_us: end of the data that it rests on.
        summary: the sentences at its top, once it is done.
    """

    id: str
    graph: str
    owner: str
    request: ReportRequest
    schedule: str | None
    slot_us: int | None
    deliver: tuple[str, ...]
    status: str
    steps_done: int
    fence: int
    attempts: int
    created_us: int
    started_us: int | None
    finished_us: int | None
    observed_until_us: int | None
    problem: str | None
    summary: tuple[str, ...]


def canonical(request: ReportRequest) -> str:
    """Return a request as text, the same for equal requests."""
    return json.dumps(asdict(request), sort_keys=True)


def delivery_id(report: ReportRow, target: str) -> str:
    """Return the idempotency key of a delivery: the same for a slot and a target, however often it is tried."""
    wanted_by = report.id if report.schedule is None else f"{report.schedule} {report.slot_us}"
    return hashlib.sha256(f"{wanted_by} {target}".encode()).hexdigest()[:32]


class Reports:
    """The reports in a service's file.

    Args:
        file: where they are.
        settings: limits and times of reports.
        jobs: lease and attempts, as of forecasts.
        clock: the time in UTC microseconds, else that of the file.
    """

    def __init__(
        self, file: ServiceFile, settings: ReportSettings, jobs: JobSettings, clock: Callable[[], int] | None = None
    ) -> None:
        self._file = file
        self._settings = settings
        self._lease_us = int(jobs.lease_s * 1e6)
        self._max_attempts = jobs.max_attempts
        self._clock = clock or file.now_us

    def create(self, owner: str, graph: str, request: ReportRequest) -> ReportRow:
        """Queue a report that was asked for.

        Raises:
            TooManyJobsError: the owner or the service has too many that wait or run.
            StoreError: the file cannot be written.
        """
        with self._file.transaction() as connection:
            of_owner, of_all = connection.execute(
                f"SELECT count(*) FILTER (WHERE owner = ?), count(*) FROM reports WHERE {_ACTIVE}", (owner,)
            ).fetchone()
            if of_owner >= self._settings.max_active_per_key:
                raise TooManyJobsError(self._settings.max_active_per_key, of_caller=True)
            if of_all >= self._settings.max_active:
                raise TooManyJobsError(self._settings.max_active, of_caller=False)
            report_id = secrets.token_hex(16)
            insert(connection, report_id, graph, owner, request, self._clock())
            row = connection.execute(f"SELECT {_COLUMNS} FROM reports WHERE id = ?", (report_id,)).fetchone()
        return _report(row)

    def keep_made(
        self, graph: str, request: ReportRequest, files: Mapping[str, bytes], until_us: int, summary: Sequence[str]
    ) -> ReportRow:
        """Keep a report that was made by this process, on the command line.

        Raises:
            StoreError: the file cannot be written.
        """
        now, report_id = self._clock(), secrets.token_hex(16)
        with self._file.transaction() as connection:
            insert(connection, report_id, graph, "", request, now, status=Status.DONE)
            connection.execute(
                "UPDATE reports SET finished_us = ?, observed_until_us = ?, summary = ?, steps_done = ? WHERE id = ?",
                (now, until_us, json.dumps(list(summary)), request.horizon, report_id),
            )
            _keep_files(connection, report_id, files)
            row = connection.execute(f"SELECT {_COLUMNS} FROM reports WHERE id = ?", (report_id,)).fetchone()
        return _report(row)

    def get(self, report_id: str) -> ReportRow | None:
        """Return a report, or None if there is none."""
        rows = self._file.rows(f"SELECT {_COLUMNS} FROM reports WHERE id = ?", (report_id,))
        return _report(rows[0]) if rows else None

    def newest(
        self, graphs: Sequence[str] | None = None, *, schedule: str | None = None, limit: int
    ) -> list[ReportRow]:
        """Return the newest reports, of these graphs and of this schedule alone if given."""
        conditions, values = ["TRUE"], []
        if graphs is not None:
            conditions.append(f"graph IN ({TEXTS_OF_JSON})")
            values.append(json.dumps(list(graphs)))
        if schedule is not None:
            conditions.append("schedule = ?")
            values.append(schedule)
        order = "slot_us" if schedule is not None else "created_us"
        sql = f"SELECT {_COLUMNS} FROM reports WHERE {' AND '.join(conditions)} ORDER BY {order} DESC, id LIMIT ?"
        return [_report(row) for row in self._file.rows(sql, (*values, limit))]

    def graphs(self) -> list[str]:
        """Return the graphs that have reports."""
        return [name for (name,) in self._file.rows("SELECT DISTINCT graph FROM reports ORDER BY graph")]

    def body(self, report_id: str, name: str) -> bytes | None:
        """Return a file of a report: `HTML`, `BUNDLE`, `FACTS` or `PDF`; None while it has none."""
        sql = "SELECT body FROM report_files WHERE report_id = ? AND name = ?"
        rows = self._file.rows(sql, (report_id, name))
        return rows[0][0] if rows else None

    def keep_file(self, report_id: str, name: str, body: bytes) -> None:
        """Keep one more file of a report, or none where the report was deleted meanwhile.

        Raises:
            StoreError: the file cannot be written.
        """
        with self._file.transaction() as connection:
            if connection.execute("SELECT 1 FROM reports WHERE id = ?", (report_id,)).fetchone():
                _keep_files(connection, report_id, {name: body})

    def delete(self, report_id: str) -> bool:
        """Remove a report, its files, log and deliveries; False where there is none.

        One that is being made is made in vain: its process finds that it is not its any more. Its slot stays planned.

        Raises:
            StoreError: the file cannot be written.
        """
        with self._file.transaction() as connection:
            for table in ("report_files", "report_log", "report_deliveries"):
                connection.execute(f"DELETE FROM {table} WHERE report_id = ?", (report_id,))
            return connection.execute("DELETE FROM reports WHERE id = ?", (report_id,)).rowcount == 1

    def facts_before(self, graph: str, until_us: int) -> dict[str, Any] | None:
        """Return the facts of the newest report on older data than `until_us`; None if there is none.

        On older data, so that a report that is made again is compared with the same one as before.
        """
        rows = self._file.rows(
            "SELECT body FROM reports JOIN report_files ON report_id = id WHERE graph = ? AND status = 'done'"
            " AND observed_until_us < ? AND report_files.name = ?"
            " ORDER BY observed_until_us DESC, created_us, id LIMIT 1",
            (graph, until_us, FACTS),
        )
        found: dict[str, Any] | None = json.loads(rows[0][0]) if rows else None
        return found

    def claim(self, worker: str) -> ReportRow | None:
        """Take the oldest report that waits, or whose process no longer reports; one at a time of each schedule."""
        now = self._clock()
        due = f"(status = 'queued' OR (status = 'running' AND lease_until_us < {now}))"
        if not self._file.rows(f"SELECT 1 FROM reports WHERE {due} LIMIT 1"):
            return None
        busy = (
            "SELECT 1 FROM reports AS other WHERE other.schedule = reports.schedule AND other.id != reports.id"
            f" AND other.status = 'running' AND other.lease_until_us >= {now}"
        )
        with self._file.transaction() as connection:
            problem = "its process ended several times while it was made"
            for (report_id,) in connection.execute(
                "UPDATE reports SET status = 'failed', finished_us = ?, fence = fence + 1, problem = ?"
                f" WHERE attempts >= ? AND {due} RETURNING id",
                (now, problem, self._max_attempts),
            ).fetchall():
                log_line(connection, report_id, now, problem)
            row = connection.execute(
                "UPDATE reports SET status = 'running', fence = fence + 1, attempts = attempts + 1, worker = ?,"
                " lease_until_us = ?, started_us = coalesce(started_us, ?)"
                f" WHERE id = (SELECT id FROM reports WHERE {due} AND NOT EXISTS ({busy})"
                f" ORDER BY created_us, coalesce(slot_us, 0), id LIMIT 1) RETURNING {_COLUMNS}",
                (worker, now + self._lease_us, now),
            ).fetchone()
            if row is not None:
                log_line(connection, row[0], now, f"begun, attempt {row[10]}")
        return None if row is None else _report(row)

    def renew(self, report: ReportRow, steps_done: int) -> None:
        """Extend the lease and keep how far it is.

        Raises:
            LostReportError: the report is not this process's any more.
        """
        with self._file.transaction() as connection:
            self._fenced(
                connection, report, "lease_until_us = ?, steps_done = ?", self._clock() + self._lease_us, steps_done
            )

    def finish(self, report: ReportRow, files: Mapping[str, bytes], until_us: int, summary: Sequence[str]) -> None:
        """Keep the files of a report, its end and what has to be delivered.

        Raises:
            LostReportError: the report is not this process's any more.
        """
        now = self._clock()
        with self._file.transaction() as connection:
            self._fenced(
                connection,
                report,
                "status = 'done', finished_us = ?, observed_until_us = ?, summary = ?, steps_done = ?,"
                " lease_until_us = NULL",
                *(now, until_us, json.dumps(list(summary)), report.request.horizon),
            )
            _keep_files(connection, report.id, files)
            log_line(connection, report.id, now, "made")
            for target in report.deliver:
                connection.execute(
                    "INSERT INTO report_deliveries (id, report_id, target, status, attempts, fence, next_us,"
                    " created_us) VALUES (?, ?, ?, 'waiting', 0, 0, ?, ?) ON CONFLICT (id) DO NOTHING",
                    (delivery_id(report, target), report.id, target, now, now),
                )

    def fail(self, report: ReportRow, problem: str) -> None:
        """End a report that cannot be made.

        Raises:
            LostReportError: the report is not this process's any more.
        """
        now = self._clock()
        with self._file.transaction() as connection:
            self._fenced(
                connection,
                report,
                "status = 'failed', problem = ?, finished_us = ?, lease_until_us = NULL",
                problem,
                now,
            )
            log_line(connection, report.id, now, f"failed: {problem}")

    def release(self, worker: str, *, is_blameless: bool) -> None:
        """Put back what a process was making that ended, or had to leave it for no fault of the report."""
        with self._file.transaction() as connection:
            connection.execute(
                "UPDATE reports SET status = 'queued', fence = fence + 1, attempts = attempts - ?,"
                " lease_until_us = NULL WHERE worker = ? AND status = 'running'",
                (int(is_blameless), worker),
            )

    def log(self, report_id: str) -> list[tuple[int, str]]:
        """Return what happened to a report: time in UTC microseconds and a line."""
        sql = "SELECT time_us, line FROM report_log WHERE report_id = ? ORDER BY time_us, rowid"
        return [(time_us, line) for time_us, line in self._file.rows(sql, (report_id,))]

    def sweep(self) -> None:
        """Remove the reports that are finished for longer than they are kept, but none that is still delivered."""
        before_us = self._clock() - self._settings.keep_s * 1_000_000
        old = (
            "SELECT id FROM reports WHERE finished_us < ? AND NOT EXISTS"
            " (SELECT 1 FROM report_deliveries WHERE report_id = reports.id AND status = 'waiting')"
        )
        if self._file.rows(f"{old} LIMIT 1", (before_us,)):
            with self._file.transaction() as connection:
                for table in ("report_files", "report_log", "report_deliveries"):
                    connection.execute(f"DELETE FROM {table} WHERE report_id IN ({old})", (before_us,))
                connection.execute(f"DELETE FROM reports WHERE id IN ({old})", (before_us,))

    def _fenced(self, connection: Connection, report: ReportRow, change: str, *values: object) -> None:
        sql = f"UPDATE reports SET {change} WHERE id = ? AND fence = ? AND status = 'running'"
        if connection.execute(sql, (*values, report.id, report.fence)).rowcount != 1:
            raise LostReportError(f"the report {report.id} is not this process's any more")


def insert(
    connection: Connection,
    report_id: str,
    graph: str,
    owner: str,
    request: ReportRequest,
    now: int,
    *,
    status: str = Status.QUEUED,
    schedule: str | None = None,
    slot_us: int | None = None,
    deliver: Sequence[str] = (),
) -> bool:
    """Add a report within a transaction; False where its slot has one already."""
    finished_us = now if status == SKIPPED else None
    added = connection.execute(
        "INSERT INTO reports (id, graph, owner, request, schedule, slot_us, deliver, status, steps_done, fence,"
        " attempts, created_us, finished_us) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0, ?, ?)"
        " ON CONFLICT (schedule, slot_us) DO NOTHING",
        (
            *(report_id, graph, owner, canonical(request), schedule, slot_us),
            *(json.dumps(list(deliver)), status, now, finished_us),
        ),
    )
    return added.rowcount == 1


def _keep_files(connection: Connection, report_id: str, files: Mapping[str, bytes]) -> None:
    for name, body in files.items():
        connection.execute(
            "INSERT INTO report_files (report_id, name, body) VALUES (?, ?, ?)"
            " ON CONFLICT (report_id, name) DO UPDATE SET body = excluded.body",
            (report_id, name, body),
        )


def log_line(connection: Connection, report_id: str, time_us: int, line: str) -> None:
    """Note what happened to a report, within a transaction."""
    connection.execute("INSERT INTO report_log (report_id, time_us, line) VALUES (?, ?, ?)", (report_id, time_us, line))


def _report(row: tuple[Any, ...]) -> ReportRow:
    report_id, graph, owner, request, schedule, slot_us, deliver, *rest, summary = row
    asked = (report_id, graph, owner, ReportRequest(**json.loads(request)), schedule, slot_us)
    values: tuple[Any, ...] = (*asked, tuple(json.loads(deliver)), *rest, tuple(json.loads(summary or "[]")))
    return ReportRow(*values)
