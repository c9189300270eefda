"""How long the processes that compute forecasts and reports wait before they are started again."""

import errno
import itertools
import logging
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from forecasting import job_processes
from forecasting.job_processes import LONGEST_PAUSE_S, SHORTEST_PAUSE_S, WorkerProcesses, next_pause_s
from infra.settings import Settings


def pauses(lives_s):
    return list(itertools.accumulate(lives_s, next_pause_s, initial=0.0))[1:]


def test_a_process_that_dies_at_its_start_is_tried_less_and_less_often():
    found = pauses([0.5] * 20)
    assert found[:4] == [0.1, 0.2, 0.4, 0.8]
    assert found == sorted(found)
    assert found[-1] == LONGEST_PAUSE_S


def test_one_that_worked_for_a_while_is_started_again_at_once():
    assert pauses([0.5] * 20 + [3600.0, 0.5])[-2:] == [SHORTEST_PAUSE_S, 2 * SHORTEST_PAUSE_S]


def test_processes_are_kept_with_these_pauses(tmp_path, monkeypatch):
    """The time of a clock of ours goes by while a process is watched; pauses are only noted."""
    lives_s, waited_s, now_s = [0.5, 0.5, 3600.0, 0.5], [], [0.0]

    def wait(pause_s):
        waited_s.append(pause_s)
        return len(waited_s) > len(lives_s)

    def watch(_):
        now_s[0] += lives_s[len(waited_s) - 1]
        return False

    settings = Settings(api={"service_db": tmp_path / "service.sqlite"})
    processes = WorkerProcesses(
        settings, log_level=logging.INFO, module="none", count=0, release=lambda _file, _worker: None
    )
    monkeypatch.setattr(processes, "_stop", SimpleNamespace(wait=wait))
    monkeypatch.setattr(processes, "_start", lambda _worker: SimpleNamespace(pid=1, returncode=1))
    monkeypatch.setattr(processes, "_watch", watch)
    monkeypatch.setattr(job_processes, "time", SimpleNamespace(monotonic=lambda: now_s[0]))
    processes._keep_one()
    assert waited_s == pytest.approx([0.0, 0.1, 0.2, SHORTEST_PAUSE_S, 2 * SHORTEST_PAUSE_S])


def test_a_process_that_cannot_be_started_is_tried_again(tmp_path, monkeypatch):
    """As where the machine has no room for one more process at the moment."""
    waited_s, started = [], []

    def wait(pause_s):
        waited_s.append(pause_s)
        return len(waited_s) > 4

    def start(_worker):
        started.append(len(waited_s))
        if len(started) < 3:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return SimpleNamespace(pid=1, returncode=1)

    settings = Settings(api={"service_db": tmp_path / "service.sqlite"})
    processes = WorkerProcesses(
        settings, log_level=logging.INFO, module="none", count=0, release=lambda _file, _worker: None
    )
    monkeypatch.setattr(processes, "_stop", SimpleNamespace(wait=wait))
    monkeypatch.setattr(processes, "_start", start)
    monkeypatch.setattr(processes, "_watch", lambda _: False)
    processes._keep_one()
    assert len(started) == 4
    assert waited_s[:3] == [0.0, 0.1, 0.2]


def test_a_process_that_ends_before_it_is_told_what_to_do_is_no_failure_of_ours(tmp_path, monkeypatch):
    class Gone:
        def write(self, _):
            raise BrokenPipeError

    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: SimpleNamespace(pid=1, stdin=Gone()))
    settings = Settings(api={"service_db": tmp_path / "service.sqlite"}, jobs={"when_idle": False})
    processes = WorkerProcesses(
        settings, log_level=logging.INFO, module="none", count=0, release=lambda _file, _worker: None
    )
    assert processes._start("worker").pid == 1


def running(tmp_path, monkeypatch, script: str, *, when_idle: bool) -> WorkerProcesses:
    """Return worker processes that run a shell script in the place of Python."""
    file = tmp_path / "script"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(file))
    settings = Settings(api={"service_db": tmp_path / "service.sqlite"}, jobs={"when_idle": when_idle})
    return WorkerProcesses(
        settings, log_level=logging.INFO, module="none", count=0, release=lambda _file, _worker: None
    )


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="this system has no idle class")
@pytest.mark.parametrize("when_idle", [True, False])
def test_a_process_steps_behind_from_its_first_moment(tmp_path, monkeypatch, when_idle):
    """Its imports take seconds of a core, which the service needs for its first answers."""
    processes = running(tmp_path, monkeypatch, "exec cat", when_idle=when_idle)
    process = processes._start("worker")
    try:
        expected = os.SCHED_IDLE if when_idle else os.sched_getscheduler(0)
        assert os.sched_getscheduler(process.pid) == expected
    finally:
        process.kill()
        process.wait()


def test_ctrl_c_ends_no_process_that_is_still_starting(tmp_path, monkeypatch):
    """Whoever started it tells it when to end; it would print a traceback of whatever it was importing."""
    processes = running(tmp_path, monkeypatch, "kill -INT $$\nexit 7", when_idle=False)
    assert processes._start("worker").wait() == 7


def test_a_process_that_is_still_starting_is_not_waited_for(tmp_path, monkeypatch):
    """It reads nothing before all is imported, which takes a busy machine longer than the service may take to end."""
    processes = running(tmp_path, monkeypatch, "exec sleep 600", when_idle=False)
    process = processes._start("worker")
    processes._stop.set()
    assert processes._watch(process)
    assert process.returncode == -signal.SIGTERM
