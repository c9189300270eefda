"""A queue is worked off until it is told to stop; what is unfinished goes back, and counts where it is to blame."""

import json
import os
import signal
import threading
from dataclasses import dataclass, field

import pytest

from forecasting import worker_process
from forecasting.worker_process import beside, run_worker, work_off
from infra.errors import StoreError
from infra.settings import Settings


@dataclass
class Queue:
    waiting: list[str]
    stop: threading.Event = field(default_factory=threading.Event)
    released: list[bool] = field(default_factory=list)
    sweeps: int = 0

    def claim(self, worker: str) -> str | None:
        assert worker == "w"
        if not self.waiting:
            return None
        return self.waiting.pop(0)

    def release(self, worker: str, *, is_blameless: bool) -> None:
        self.released.append(is_blameless)

    def sweep(self) -> None:
        self.sweeps += 1
        self.stop.set()


def test_all_is_done_before_it_sweeps_and_stops() -> None:
    queue, done = Queue(["a", "b"]), []
    work_off(queue, done.append, "w", queue.stop, idle_s=lambda: 0)
    assert (done, queue.sweeps, queue.released) == (["a", "b"], 1, [True])


def test_what_is_stopped_goes_back_without_blame() -> None:
    queue = Queue(["a", "b"])
    work_off(queue, lambda _: queue.stop.set(), "w", queue.stop, idle_s=lambda: 0)
    assert (queue.waiting, queue.released) == (["b"], [True])


def test_a_store_that_is_away_blames_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "FAILURE_WAIT_S", 0)
    queue, done = Queue(["a", "b"]), []

    def do(one: str) -> None:
        if one == "a":
            raise StoreError("away")
        done.append(one)

    work_off(queue, do, "w", queue.stop, idle_s=lambda: 0)
    assert (done, queue.released) == (["b"], [True, True])


def test_what_ends_the_process_is_to_blame() -> None:
    queue = Queue(["a", "b"])

    def do(one: str) -> None:
        raise ZeroDivisionError(one)

    with pytest.raises(ZeroDivisionError):
        work_off(queue, do, "w", queue.stop, idle_s=lambda: 0)
    assert (queue.waiting, queue.released) == (["b"], [False])


def test_what_is_done_beside_ends_with_the_block() -> None:
    stop, ended = threading.Event(), []

    def wait(name: str) -> None:
        assert stop.wait(60)
        ended.append(name)

    with beside(stop, lambda: wait("one"), lambda: wait("other")):
        assert not stop.is_set()
    assert sorted(ended) == ["one", "other"]


def test_what_fails_beside_ends_everything_and_is_told() -> None:
    stop, ended = threading.Event(), []

    def fail() -> None:
        raise ZeroDivisionError

    def wait() -> None:
        assert stop.wait(60)
        ended.append("other")

    with pytest.raises(ZeroDivisionError), beside(stop, fail, wait):
        assert stop.wait(60)
        ended.append("block")
    assert sorted(ended) == ["block", "other"]


def test_a_signal_to_end_waits_for_nothing_that_it_interrupts(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes in the middle of whatever the main thread does, which may hold the lock of the event."""
    set_by, is_set = list[threading.Thread](), threading.Semaphore(0)

    def note() -> None:
        set_by.append(threading.current_thread())
        is_set.release()

    def work(settings: Settings, worker: str, stop: threading.Event) -> None:
        monkeypatch.setattr(stop, "set", note)
        os.kill(os.getpid(), signal.SIGTERM)
        assert is_set.acquire(timeout=60)

    read, write = os.pipe()
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(worker_process, "configure_logging", lambda _: None)
    monkeypatch.setattr("torch.set_num_threads", lambda _: None)
    try:
        with os.fdopen(read) as stdin, os.fdopen(write, "w") as parent:
            monkeypatch.setattr("sys.stdin", stdin)
            parent.write(json.dumps({"worker": "w", "log_level": 30, "settings": {}}) + "\n")
            parent.flush()
            run_worker(work)
            # As the end of stdin does, which its thread still reads.
            parent.close()
            assert is_set.acquire(timeout=60)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert len(set_by) == 2
    assert threading.main_thread() not in set_by
