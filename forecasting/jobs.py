"""Long-range forecasts as jobs: a table in the service's file that several processes lease work from.

A process that begins a job takes a lease and a fencing token. It renews the lease while it works and names the token
with everything that it keeps; who was taken over, or cancelled, finds its token outdated and can keep nothing more.
"""

import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from forecasting import job_chunks
from forecasting.bookkeeping.base import Connection
from forecasting.service_file import ServiceFile
from infra.errors import GraphtideError, StoreError
from infra.settings import JobSettings
from models.contract import PathChunk
from models.futures import part

_COLUMNS = (
    "id, graph, owner, request, status, steps_done, fence, attempts,"
    " created_us, started_us, finished_us, problem, ground"
)
_ACTIVE = "status IN ('queued', 'running')"


class Status(StrEnum):
    """How far a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen."""
        return self in {Status.DONE, Status.FAILED, Status.CANCELLED}


class KeyReusedError(GraphtideError):
    """An idempotency key stands for another request already."""


class TooManyJobsError(GraphtideError):
    """The caller, or the whole service, has as many jobs as it may; `of_caller` says which."""

    def __init__(self, most: int, *, of_caller: bool) -> None:
        super().__init__(f"{most} forecasts wait or run already")
        self.of_caller = of_caller


class LostJobError(GraphtideError):
    """The job was cancelled, or another process has taken it over."""


@dataclass(frozen=True, slots=True)
class JobRequest:
    """What is asked for.

    Attributes:
        horizon: steps ahead.
        metrics, quantiles: which of them.
        seed: seed of the sample paths.
        paths: sample paths that are kept beside them.
    """

    horizon: int
    metrics: tuple[str, ...]
    quantiles: tuple[float, ...]
    seed: int
    paths: int = 0

    def canonical(self) -> str:
        """Return the request as text, the same for equal requests."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def parse(cls, text: str) -> "JobRequest":
        """Return the request of `canonical`."""
        found = json.loads(text)
        # Jobs that were asked for before there were paths say nothing of them.
        n_paths = found.get("paths", 0)
        return cls(found["horizon"], tuple(found["metrics"]), tuple(found["quantiles"]), found["seed"], n_paths)


@dataclass(frozen=True, slots=True)
class Job:
    """A row of the table; times are UTC microseconds.

    Attributes:
        fence: the token of who works on it.
        attempts: how often it was begun.
        problem: why it failed.
        ground: what the forecast rests on, from its first begin.
    """

    id: str
    graph: str
    owner: str
    request: JobRequest
    status: Status
    steps_done: int
    fence: int
    attempts: int
    created_us: int
    started_us: int | None
    finished_us: int | None
    problem: str | None
    ground: dict[str, Any] | None


class Jobs:
    """The jobs in a service's file.

    Args:
        file: where they are.
        settings: limits and times.
        clock: the time in UTC microseconds, else that of the file.
    """

    def __init__(self, file: ServiceFile, settings: JobSettings, clock: Callable[[], int] | None = None) -> None:
        self._file = file
        self._settings = settings
        self._clock = clock or file.now_us

    @property
    def look_s(self) -> float:
        """Seconds that a process leaves between two looks at a job, at least."""
        return self._file.look_s

    def create(
        self, owner: str, graph: str, request: JobRequest, idempotency_key: str | None = None
    ) -> tuple[Job, bool]:
        """Queue a job; return it, and whether it is new: the same key with the same request gives the same job.

        Raises:
            KeyReusedError: the key stands for another request.
            TooManyJobsError: the owner or the service has too many that wait or run.
            StoreError: the file cannot be written.
        """
        with self._file.transaction() as connection:
            if idempotency_key is not None:
                row = connection.execute(
                    f"SELECT {_COLUMNS} FROM jobs WHERE owner = ? AND idempotency_key = ?", (owner, idempotency_key)
                ).fetchone()
                if row is not None:
                    found = _job(row)
                    if (found.graph, found.request) != (graph, request):
                        raise KeyReusedError(f"the key stands for the forecast {found.id}")
                    return found, False
            self._refuse_surplus(connection, owner)
            job_id = secrets.token_hex(16)
            connection.execute(
                "INSERT INTO jobs (id, graph, owner, request, idempotency_key, status, horizon, steps_done, fence,"
                " attempts, created_us) VALUES (?, ?, ?, ?, ?, 'queued', ?, 0, 0, 0, ?)",
                (job_id, graph, owner, request.canonical(), idempotency_key, request.horizon, self._clock()),
            )
            row = connection.execute(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return _job(row), True

    def get(self, job_id: str) -> Job | None:
        """Return a job, or None if there is none."""
        rows = self._file.rows(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (job_id,))
        return _job(rows[0]) if rows else None

    def cancel(self, job_id: str) -> None:
        """Cancel a job that waits or runs; its process finds out with the next chunk. A finished one stays."""
        with self._file.transaction() as connection:
            connection.execute(
                "UPDATE jobs SET status = 'cancelled', fence = fence + 1, finished_us = ?, lease_until_us = NULL"
                f" WHERE id = ? AND {_ACTIVE}",
                (self._clock(), job_id),
            )

    def chunks(self, job: Job, after_step: int = 0) -> Iterator[PathChunk]:
        """Yield the chunks kept so far that hold steps behind the first `after_step`, cut to those.

        Raises:
            StoreError: they cannot be read, or the job's time was over before all of them were.
        """
        done = after_step
        places = self._file.rows(
            "SELECT first_step FROM job_chunks WHERE job_id = ? AND first_step + steps > ? ORDER BY first_step",
            (job.id, after_step),
        )
        for (first,) in places:
            rows = self._file.rows("SELECT body FROM job_chunks WHERE job_id = ? AND first_step = ?", (job.id, first))
            if not rows:
                break
            request = job.request
            chunk = job_chunks.unpack(rows[0][0], first, request.metrics, request.quantiles, request.paths)
            yield part(chunk, max(0, after_step - first), len(chunk))
            done = first + len(chunk)
        if done < job.steps_done:
            # Were this no error, what was read so far would look like the whole.
            raise StoreError(f"the forecast {job.id} was removed while it was read: its time is over")

    def claim(self, worker: str) -> Job | None:
        """Take the oldest job that waits, or whose process no longer reports; None if there is none."""
        now = self._clock()
        condition = "status = 'queued' OR (status = 'running' AND lease_until_us < ?)"
        if not self._file.rows(f"SELECT 1 FROM jobs WHERE {condition} LIMIT 1", (now,)):
            return None
        with self._file.transaction() as connection:
            connection.execute(
                "UPDATE jobs SET status = 'failed', finished_us = ?, fence = fence + 1, problem = ?"
                f" WHERE attempts >= ? AND ({condition})",
                (now, "its process ended several times while it ran", self._settings.max_attempts, now),
            )
            row = connection.execute(
                "UPDATE jobs SET status = 'running', fence = fence + 1, attempts = attempts + 1, worker = ?,"
                " lease_until_us = ?, started_us = coalesce(started_us, ?)"
                f" WHERE id = (SELECT id FROM jobs WHERE {condition} ORDER BY created_us, id LIMIT 1)"
                f" RETURNING {_COLUMNS}",
                (worker, now + self._lease_us(), now, now),
            ).fetchone()
        return None if row is None else _job(row)

    def renew(self, job: Job) -> None:
        """Extend the lease.

        Raises:
            LostJobError: the job is not this process's any more.
        """
        with self._fenced(job, "lease_until_us = ?", (self._clock() + self._lease_us(),)):
            pass

    def begin(self, job: Job, ground: dict[str, Any]) -> None:
        """Keep what the forecast rests on.

        Raises:
            LostJobError: the job is not this process's any more.
        """
        with self._fenced(job, "ground = ?", (json.dumps(ground),)):
            pass

    def kept_digests(self, job: Job) -> dict[int, bytes]:
        """Return the digests of the chunks that are kept, by their first step."""
        sql = "SELECT first_step, digest FROM job_chunks WHERE job_id = ?"
        return dict(self._file.rows(sql, (job.id,)))

    def keep(self, job: Job, first_step: int, steps: int, body: bytes) -> None:
        """Keep a chunk, and with it that so many steps are done; the attempt is then no failed one.

        Raises:
            LostJobError: the job is not this process's any more.
        """
        change = "steps_done = ?, lease_until_us = ?, attempts = 1"
        with self._fenced(job, change, (first_step + steps, self._clock() + self._lease_us())) as connection:
            connection.execute(
                "INSERT INTO job_chunks (job_id, first_step, steps, digest, body) VALUES (?, ?, ?, ?, ?)",
                (job.id, first_step, steps, job_chunks.digest(body), body),
            )

    def finish(self, job: Job, problem: str | None = None) -> None:
        """End a job: done, or failed for `problem`.

        Raises:
            LostJobError: the job is not this process's any more.
        """
        status = Status.DONE if problem is None else Status.FAILED
        change = "status = ?, problem = ?, finished_us = ?, lease_until_us = NULL"
        with self._fenced(job, change, (status, problem, self._clock())):
            pass

    def release(self, worker: str, *, is_blameless: bool) -> None:
        """Put back what a process was working on that ended, or had to leave it for no fault of the job."""
        with self._file.transaction() as connection:
            connection.execute(
                "UPDATE jobs SET status = 'queued', fence = fence + 1, attempts = attempts - ?, lease_until_us = NULL"
                " WHERE worker = ? AND status = 'running'",
                (int(is_blameless), worker),
            )

    def sweep(self) -> None:
        """Remove the jobs that are finished for longer than they are kept."""
        before_us = self._clock() - self._settings.keep_s * 1_000_000
        if self._file.rows("SELECT 1 FROM jobs WHERE finished_us < ? LIMIT 1", (before_us,)):
            with self._file.transaction() as connection:
                old = "SELECT id FROM jobs WHERE finished_us < ?"
                connection.execute(f"DELETE FROM job_chunks WHERE job_id IN ({old})", (before_us,))
                connection.execute("DELETE FROM jobs WHERE finished_us < ?", (before_us,))

    def _lease_us(self) -> int:
        return int(self._settings.lease_s * 1e6)

    def _refuse_surplus(self, connection: Connection, owner: str) -> None:
        of_owner, of_all = connection.execute(
            f"SELECT count(*) FILTER (WHERE owner = ?), count(*) FROM jobs WHERE {_ACTIVE}", (owner,)
        ).fetchone()
        if of_owner >= self._settings.max_active_per_key:
            raise TooManyJobsError(self._settings.max_active_per_key, of_caller=True)
        if of_all >= self._settings.max_active:
            raise TooManyJobsError(self._settings.max_active, of_caller=False)

    def _fenced(self, job: Job, change: str, values: tuple[object, ...]) -> "_Fenced":
        return _Fenced(self._file, job, change, values)


class _Fenced:
    """A transaction that changes a job's row, if it still carries the token of this process."""

    def __init__(self, file: ServiceFile, job: Job, change: str, values: tuple[object, ...]) -> None:
        self._transaction = file.transaction()
        self._job = job
        self._sql = f"UPDATE jobs SET {change} WHERE id = ? AND fence = ? AND status = 'running'"
        self._values = (*values, job.id, job.fence)

    def __enter__(self) -> Connection:
        connection = self._transaction.__enter__()
        try:
            if connection.execute(self._sql, self._values).rowcount != 1:
                raise LostJobError(f"the forecast {self._job.id} is not this process's any more")
        except BaseException as error:
            self._transaction.__exit__(type(error), error, error.__traceback__)
            raise
        return connection

    def __exit__(self, *exc: Any) -> None:
        self._transaction.__exit__(*exc)


def _job(row: tuple[Any, ...]) -> Job:
    job_id, graph, owner, request, status, steps_done, fence, attempts = row[:8]
    created_us, started_us, finished_us, problem, ground = row[8:]
    return Job(
        id=job_id,
        graph=graph,
        owner=owner,
        request=JobRequest.parse(request),
        status=Status(status),
        steps_done=steps_done,
        fence=fence,
        attempts=attempts,
        created_us=created_us,
        started_us=started_us,
        finished_us=finished_us,
        problem=problem,
        ground=None if ground is None else json.loads(ground),
    )
