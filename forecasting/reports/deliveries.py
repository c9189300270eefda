"""Deliveries of reports and of alerts: leased, tried again after growing waits, each under one idempotency key.

A delivery is noted as done after the receiver has it. Whoever is killed in between leaves it to be sent again under
the same key, by which the receiver knows it: none is lost, and none counts twice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tenacity import RetryCallState, Retrying
from tenacity.wait import wait_random_exponential

from forecasting.bookkeeping.base import Connection
from forecasting.reports.records import log_line
from forecasting.service_file import ServiceFile
from infra.errors import GraphtideError
from infra.settings import ReportSettings


class DeliveryError(GraphtideError):
    """A try failed; `is_final` where another one cannot help."""

    def __init__(self, message: str, *, is_final: bool = False) -> None:
        super().__init__(message)
        self.is_final = is_final


@dataclass(frozen=True, slots=True)
class Queue:
    """A table of deliveries.

    Attributes:
        table: its name.
        subject: the column that says what is delivered.
        log: notes within a transaction what happened to a subject: its id, the time, a line.
        ready: a further condition of SQL that a delivery has to meet before it is tried; each `?` in it is the time.
    """

    table: str
    subject: str
    log: Callable[[Connection, str, int, str], None]
    ready: str = "TRUE"

    @property
    def columns(self) -> str:
        """Return the columns of a `Delivery`."""
        return f"id, {self.subject}, target, status, attempts, fence, created_us, next_us, finished_us, problem"


REPORTS = Queue("report_deliveries", "report_id", log_line)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A row of the table; `id` is the idempotency key, `status` is waiting, done or failed."""

    id: str
    subject: str
    target: str
    status: str
    attempts: int
    fence: int
    created_us: int
    next_us: int
    finished_us: int | None
    problem: str | None


class Deliveries:
    """The deliveries in a service's file.

    Args:
        file: where they are.
        settings: waits and limits.
        lease_s: seconds after which a delivery whose process does not report is tried by another.
        clock: the time in UTC microseconds, else that of the file.
        queue: which of them.
    """

    def __init__(
        self,
        file: ServiceFile,
        settings: ReportSettings,
        *,
        lease_s: float,
        clock: Callable[[], int] | None = None,
        queue: Queue = REPORTS,
    ) -> None:
        self._file = file
        self._settings = settings
        self._lease_us = int(lease_s * 1e6)
        self._clock = clock or file.now_us
        self._queue = queue

    def of(self, subject: str) -> list[Delivery]:
        """Return the deliveries of a report or a transition, by target."""
        queue = self._queue
        sql = f"SELECT {queue.columns} FROM {queue.table} WHERE {queue.subject} = ? ORDER BY target"
        return [Delivery(*row) for row in self._file.rows(sql, (subject,))]

    def claim(self) -> Delivery | None:
        """Take the delivery that has waited longest for its next try; None if there is none."""
        now = self._clock()
        queue = self._queue
        due = (
            f"status = 'waiting' AND next_us <= ? AND (lease_until_us IS NULL OR lease_until_us < ?) AND {queue.ready}"
        )
        times = [now] * due.count("?")
        if not self._file.rows(f"SELECT 1 FROM {queue.table} WHERE {due} LIMIT 1", times):
            return None
        with self._file.transaction() as connection:
            row = connection.execute(
                f"UPDATE {queue.table} SET fence = fence + 1, attempts = attempts + 1, lease_until_us = ?"
                f" WHERE id = (SELECT id FROM {queue.table} WHERE {due} ORDER BY next_us, id LIMIT 1)"
                f" RETURNING {queue.columns}",
                (now + self._lease_us, *times),
            ).fetchone()
        return None if row is None else Delivery(*row)

    def done(self, delivery: Delivery) -> bool:
        """Note that the receiver has it; False where another process has taken it over meanwhile."""
        now = self._clock()
        with self._file.transaction() as connection:
            is_ours = self._fenced(connection, delivery, "status = 'done', finished_us = ?, problem = NULL", now)
            if is_ours:
                line = f"delivered to {delivery.target}, try {delivery.attempts}"
                self._queue.log(connection, delivery.subject, now, line)
        return is_ours

    def failed(self, delivery: Delivery, error: DeliveryError) -> bool:
        """Note that a try failed: it waits for the next, or is given up; False where it was taken over meanwhile."""
        now = self._clock()
        is_over = now - delivery.created_us >= self._settings.give_up_after_s * 1e6
        with self._file.transaction() as connection:
            if error.is_final or is_over:
                change, value = "status = 'failed', problem = ?, finished_us = ?", now
                end = "given up"
            else:
                wait_s = self._wait_s(delivery.attempts)
                change, value = "problem = ?, next_us = ?", now + int(wait_s * 1e6)
                end = f"tried again in {wait_s:.0f} s"
            is_ours = self._fenced(connection, delivery, change, error.message, value)
            if is_ours:
                line = f"not delivered to {delivery.target}, try {delivery.attempts}: {error.message}; {end}"
                self._queue.log(connection, delivery.subject, now, line)
        return is_ours

    def _wait_s(self, attempts: int) -> float:
        # The wait outlives the process as a time in the file; how long it is, tenacity says.
        least, most = self._settings.retry_min_s, self._settings.retry_max_s
        state = RetryCallState(Retrying(), None, (), {})
        state.attempt_number = attempts
        return wait_random_exponential(multiplier=least, min=least, max=max(least, most))(state)

    def _fenced(self, connection: Connection, delivery: Delivery, change: str, *values: Any) -> bool:
        sql = f"UPDATE {self._queue.table} SET {change}, lease_until_us = NULL WHERE id = ? AND fence = ?"
        return connection.execute(sql, (*values, delivery.id, delivery.fence)).rowcount == 1
