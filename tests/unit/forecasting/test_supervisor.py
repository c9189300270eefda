"""The parent of the serving processes hears of signals while a process does not answer, and replaces what has died."""

import logging
import signal
import threading
from collections.abc import Iterator
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace

import pytest
import uvicorn

from forecasting import interrupts
from forecasting.api import server
from forecasting.api.supervisor import POLL_S, Supervisor
from infra.settings import Settings

NEVER_S = 3600


class Worker:
    """A process that never answers, or answers at once."""

    def __init__(self, *, alive: bool = True, answers: bool = False) -> None:
        self.parent_conn, self.child_conn = Pipe()
        self.alive, self.killed, self.pid, self.exitcode = alive, False, 1, None
        self.process = SimpleNamespace(is_alive=lambda: self.alive, kill=self.kill, join=lambda: None)
        if answers:
            self.child_conn.send(True)
            self.child_conn.send(True)

    def kill(self) -> None:
        self.alive, self.killed = False, True

    def is_alive(self, timeout: float) -> bool:
        return self.alive and self.parent_conn.poll(timeout) and self.parent_conn.recv()

    def join(self) -> None:
        pass


# Its own logging would stay for all tests of this process.
CONFIG = uvicorn.Config("none:app", workers=2, timeout_worker_healthcheck=NEVER_S, log_config=None)


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    monkeypatch.setattr(
        "uvicorn.supervisors.multiprocess.Process",
        lambda config, sockets: SimpleNamespace(start=lambda: None, fresh=True),
    )
    return Supervisor(CONFIG, sockets=[])


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    yield
    for number, handler in handlers.items():
        if handler is not None and signal.getsignal(number) != handler:
            signal.signal(number, handler)


@pytest.mark.timeout(30)
def test_a_signal_is_heard_while_a_process_still_starts(supervisor: Supervisor) -> None:
    starting = Worker()
    supervisor.processes = [Worker(answers=True), starting]  # type: ignore[list-item]
    soon = threading.Timer(3 * POLL_S, supervisor.signal_queue.append, [signal.SIGINT])
    soon.start()
    supervisor.keep_subprocess_alive()
    soon.join()
    assert not starting.killed
    supervisor.handle_signals()
    assert supervisor.should_exit.is_set()
    # Nor is it waited for any longer.
    supervisor.keep_subprocess_alive()
    assert not starting.killed


@pytest.mark.timeout(30)
def test_a_process_that_dies_before_it_answers_is_replaced_at_once(supervisor: Supervisor) -> None:
    well, dying = Worker(answers=True), Worker()
    supervisor.processes = [well, dying]  # type: ignore[list-item]
    soon = threading.Timer(3 * POLL_S, lambda: setattr(dying, "alive", False))
    soon.start()
    supervisor.keep_subprocess_alive()
    soon.join()
    assert supervisor.processes[0] is well
    assert supervisor.processes[1].fresh  # type: ignore[attr-defined]


@pytest.mark.timeout(30)
def test_a_process_that_does_not_answer_in_time_is_replaced(supervisor: Supervisor) -> None:
    supervisor.config.timeout_worker_healthcheck = 1
    hung = Worker()
    supervisor.processes = [hung]  # type: ignore[list-item]
    supervisor.keep_subprocess_alive()
    assert hung.killed
    assert supervisor.processes[0].fresh  # type: ignore[attr-defined]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_whoever_began_is_told_of_the_signal_that_ended_it(monkeypatch: pytest.MonkeyPatch, sent: int) -> None:
    heard: list[int] = []
    signal.signal(sent, lambda number, _: heard.append(number))
    supervisor = Supervisor(CONFIG, sockets=[])
    monkeypatch.setattr(supervisor, "init_processes", lambda: None)
    supervisor.signal_queue.append(sent)
    supervisor.run()
    assert (heard, supervisor.ended_by) == ([sent], sent)


def test_ctrl_c_is_held_back_from_processes_that_start() -> None:
    supervisor = Supervisor(CONFIG, sockets=[])
    try:
        supervisor.init_processes()
        states = [Path(f"/proc/{started.pid}/status").read_text() for started in supervisor.processes]
    finally:
        for started in supervisor.processes:
            started.kill()
            started.join()
    for state in states:
        blocked = int(state.partition("SigBlk:")[2].split()[0], 16)
        assert blocked & 1 << signal.SIGINT - 1
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_ctrl_c_comes_through_to_a_process_that_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "begin_process", lambda log_level: None)
    monkeypatch.setattr(server, "build", lambda settings: signal.pthread_sigmask(signal.SIG_BLOCK, []))
    monkeypatch.setattr("multiprocessing.parent_process", lambda: SimpleNamespace(join=threading.Event().wait))
    with interrupts.held():
        assert signal.SIGINT not in server._application(Settings(), logging.WARNING)  # type: ignore[operator]
