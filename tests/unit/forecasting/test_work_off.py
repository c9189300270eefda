"""A queue is worked off until it is told to stop; what is unfinished goes back, and counts where it is to blame."""

import threading
from dataclasses import dataclass, field

import pytest

from forecasting import worker_process
from forecasting.worker_process import beside, work_off
from infra.errors import StoreError


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
