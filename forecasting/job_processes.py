"""The processes that compute long-range forecasts and reports, started and watched beside the service."""

import json
import logging
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from forecasting import interrupts
from forecasting.jobs import Jobs
from forecasting.reports.records import Reports
from forecasting.service_file import ServiceFile
from forecasting.worker_process import without_secrets
from infra.errors import StoreError
from infra.settings import Settings

SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 30.0
_log = logging.getLogger(__name__)


def next_pause_s(last_pause_s: float, lived_s: float) -> float:
    """Return how long to wait before a process that ended is started again.

    Args:
        last_pause_s: the pause before it was started, 0 for the first one.
        lived_s: how long it ran; one that outlived the longest pause did not fail at its start.
    """
    if lived_s > LONGEST_PAUSE_S:
        return SHORTEST_PAUSE_S
    return min(LONGEST_PAUSE_S, max(SHORTEST_PAUSE_S, 2 * last_pause_s))


class WorkerProcesses:
    """Keeps processes running; one that dies is replaced, and what it worked on goes on.

    Args:
        settings: all of them.
        log_level: of the `logging` module.
        module: what each of them runs.
        count: how many.
        release: puts back what a worker that died was working on, given the file and its name.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        log_level: int,
        module: str,
        count: int,
        release: Callable[[ServiceFile, str], None],
    ) -> None:
        self._settings = settings
        self._log_level = log_level
        self._module = module
        self._release = release
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._keep_one, name=f"{module}-{number}") for number in range(count)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _keep_one(self) -> None:
        pause_s = 0.0
        while not self._stop.wait(pause_s):
            worker = f"{os.getpid()}-{secrets.token_hex(4)}"
            begin_s = time.monotonic()
            try:
                process = self._start(worker)
            except OSError as error:
                # No room for one more process: there may be later, and without this one nothing is computed.
                _log.warning("no process of %s can be started: %s", self._module, error)
                pause_s = next_pause_s(pause_s, 0.0)
                continue
            if self._watch(process):
                return
            _log.warning("the process %d of %s ended with %d", process.pid, self._module, process.returncode)
            try:
                with ServiceFile(self._settings.api.service_db) as file:
                    self._release(file, worker)
            except StoreError as error:
                # Its lease runs out by itself.
                _log.warning("%s", error.message)
            pause_s = next_pause_s(pause_s, time.monotonic() - begin_s)

    def _start(self, worker: str) -> "subprocess.Popen[bytes]":
        # The process inherits it: Ctrl-C reaches the whole group, also while it is still importing and cannot have said
        # that it leaves that to the one who started it.
        with interrupts.held():
            process = subprocess.Popen(
                [sys.executable, "-m", self._module],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                # A user's own `models.py` in the working directory is never picked up.
                env={**os.environ, "PYTHONSAFEPATH": "1"},
            )
        if self._settings.jobs.when_idle:
            _step_behind(process.pid)
        told = {"worker": worker, "log_level": self._log_level, "settings": without_secrets(self._settings)}
        assert process.stdin is not None
        # One that has ended already is found out by who watches it.
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(told).encode() + b"\n")
            process.stdin.flush()
        return process

    def _watch(self, process: "subprocess.Popen[bytes]") -> bool:
        """Wait for the process to end, and tell whether it was asked to."""
        while process.poll() is None:
            if self._stop.wait(0.2):
                assert process.stdin is not None
                process.stdin.close()
                # One that is still importing reads nothing yet, and holds nothing: the signal ends it at once. One that
                # works takes it as it takes the end of stdin.
                process.terminate()
                try:
                    process.wait(self._settings.api.drain_s)
                except subprocess.TimeoutExpired:
                    # Nothing is lost: what is kept stays, and the lease runs out.
                    process.kill()
                    process.wait()
                return True
        return self._stop.is_set()


def forecast_processes(settings: Settings, *, log_level: int) -> WorkerProcesses:
    """Return the `[jobs] workers` processes of long-range forecasts."""
    return WorkerProcesses(
        settings,
        log_level=log_level,
        module="forecasting.job_worker",
        count=settings.jobs.workers,
        release=lambda file, worker: Jobs(file, settings.jobs).release(worker, is_blameless=False),
    )


def report_processes(settings: Settings, *, log_level: int) -> WorkerProcesses:
    """Return the process of reports and their schedules; none where `[jobs] workers` is 0."""
    return WorkerProcesses(
        settings,
        log_level=log_level,
        module="forecasting.report_worker",
        count=min(1, settings.jobs.workers),
        release=lambda file, worker: Reports(file, settings.reports, settings.jobs).release(worker, is_blameless=False),
    )


def _step_behind(pid: int) -> None:
    """Let a process run only when a core has nothing else to do.

    From its first moment: the imports of a worker would hold up the first answers of the service that it stands beside.
    """
    try:
        os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
    except (OSError, AttributeError):
        # One that has ended already needs nothing.
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, pid, 19)
