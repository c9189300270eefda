import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import pytest

from infra.errors import GraphtideError
from stream.decoders.records.base import Record
from stream.delivery import Delivery
from stream.events import Reject
from stream.store import open_dead_letters, open_writer
from stream.store.dead_letters import DeadLetter
from stream.store.writer import StoreWriter

LONGEST_WAIT_S = 20.0


class Gate:
    """A target that takes letters once it is open, and refuses as many times as it was told to before."""

    refused: Sequence[int] = ()

    def __init__(self, refusals: int = 0, refusal: Exception | None = None) -> None:
        self.open = threading.Event()
        self.taken: list[int] = []
        self._refusals = refusals
        self._refusal = refusal or GraphtideError("not now")

    def take(self, letters: Sequence[DeadLetter]) -> None:
        assert self.open.wait(LONGEST_WAIT_S)
        if self._refusals:
            self._refusals -= 1
            raise self._refusal
        self.taken += [letter.number for letter in letters]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.db'}"


def reject(writer: StoreWriter, *offsets: int) -> None:
    with writer.transaction():
        source = writer.source("kafka") or writer.add_source("kafka", split_by_type=False)
        rejects = [Reject("p", "…", "bad", "STAGE", Record(b"x", topic="t", offset=offset)) for offset in offsets]
        writer.add_rejects(source, rejects, keep=0)


def until(is_so: Callable[[], bool]) -> None:
    end_s = time.monotonic() + LONGEST_WAIT_S
    while not is_so():
        assert time.monotonic() < end_s
        time.sleep(0.005)


def test_what_is_taken_while_others_commit_is_marked_with_the_next_commit(url: str) -> None:
    gate = Gate()
    with open_writer(url) as writer:
        reject(writer, 1, 2)
        with Delivery(lambda: open_dead_letters(url), lambda: gate) as delivery:
            with writer.transaction():
                delivery.commit(writer)  # nothing is taken yet
                gate.open.set()
                until(delivery.has_news)
            delivery.committed()
            assert delivery.has_news()
            assert delivery.drain(writer, LONGEST_WAIT_S)
    assert gate.taken == [1, 2]
    with open_dead_letters(url) as letters:
        assert letters.to_deliver(9) == []


@pytest.mark.parametrize("refusal", [GraphtideError("not now"), ZeroDivisionError("a mistake of ours")])
def test_a_target_that_refuses_is_tried_again_and_nothing_is_left_or_given_twice(url: str, refusal: Exception) -> None:
    gate = Gate(1, refusal)
    gate.open.set()
    with open_writer(url) as writer:
        reject(writer, 1, 2, 3)
        with Delivery(lambda: open_dead_letters(url), lambda: gate) as delivery:
            assert delivery.drain(writer, LONGEST_WAIT_S)
            assert delivery.error is None
            reject(writer, 4)
            assert delivery.drain(writer, LONGEST_WAIT_S)
    assert gate.taken == [1, 2, 3, 4]


def test_the_wait_begins_anew_after_a_success(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    def wait(self: Delivery, timeout_s: float) -> None:
        if self.error is not None:
            waits.append(timeout_s)
        time.sleep(0.001)

    monkeypatch.setattr(Delivery, "_wait", wait)
    gate = Gate(3)
    gate.open.set()
    with open_writer(url) as writer:
        reject(writer, 1)
        with Delivery(lambda: open_dead_letters(url), lambda: gate) as delivery:
            assert delivery.drain(writer, LONGEST_WAIT_S)
            gate._refusals = 2
            reject(writer, 2)
            assert delivery.drain(writer, LONGEST_WAIT_S)
    assert waits == [1, 2, 4, 1, 2]


def test_a_drain_that_is_too_short_says_so(url: str) -> None:
    gate = Gate()
    with open_writer(url) as writer:
        reject(writer, 1)
        with Delivery(lambda: open_dead_letters(url), lambda: gate) as delivery:
            assert not delivery.drain(writer, 0.1)
            gate.open.set()
