"""Answers are computed in batches, off the event loop."""

import asyncio
import threading
from typing import Any, cast

import pytest

from forecasting.api.cache import AnswerCache
from forecasting.api.computing import Computing
from forecasting.api.shared_cache import SharedCache
from forecasting.api.telemetry import Telemetry


def computing(shared: Any = None) -> Computing:
    cache = AnswerCache(max_bytes=0, lifetime_s=0)
    return Computing(
        cache, queue_size=100, deadline_s=30, telemetry=Telemetry(), shared=cast(SharedCache | None, shared)
    )


def test_what_comes_while_answers_leave_makes_one_batch_with_those_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    # Those that come end the pause; a busy machine must not end it before.
    monkeypatch.setattr("forecasting.api.computing._PAUSE_S", 5.0)
    batches: list[int] = []
    goes_on = threading.Event()

    def make(batch: int) -> bytes:
        goes_on.wait(10)
        batches.append(batch)
        return b"{}"

    async def ask_twice(answers: Computing) -> None:
        for _ in range(2):
            await answers.answer(("g",), make, anew=True)

    async def run() -> None:
        answers = computing()
        first = [asyncio.create_task(ask_twice(answers)) for _ in range(2)]
        # They are at work now; one more comes meanwhile.
        await asyncio.sleep(0.05)
        late = asyncio.create_task(answers.answer(("g",), make, anew=True))
        await asyncio.sleep(0.05)
        goes_on.set()
        await asyncio.gather(*first, late)
        await answers.close()

    asyncio.run(run())
    assert batches == [1, 1, 2, 2, 2]


def test_who_waits_at_the_end_is_told() -> None:
    begun, goes_on = threading.Event(), threading.Event()

    def make(_batch: int) -> bytes:
        begun.set()
        goes_on.wait(10)
        return b"{}"

    async def run() -> tuple[bytes, bool]:
        answers = computing()
        under_way = asyncio.create_task(answers.answer(("g",), make, anew=True))
        await asyncio.to_thread(begun.wait, 10)
        waits = asyncio.create_task(answers.answer(("g",), make, anew=True))
        await asyncio.sleep(0.05)
        closing = asyncio.create_task(answers.close())
        await asyncio.sleep(0.05)
        goes_on.set()
        await closing
        with pytest.raises(asyncio.CancelledError):
            await waits
        return (await under_way).body, waits.cancelled()

    assert asyncio.run(run()) == (b"{}", True)


def test_a_shared_cache_that_fails_in_an_unknown_way_holds_up_no_answer() -> None:
    class Broken:
        async def get(self, key: object) -> bytes | None:
            raise RuntimeError("the transport is closed")

        def put(self, key: object, body: bytes) -> None: ...

        async def close(self) -> None: ...

    async def run() -> bytes:
        answers = computing(Broken())
        answer = await asyncio.wait_for(answers.answer(("g",), lambda _batch: b"{}"), 10)
        await answers.close()
        return answer.body

    assert asyncio.run(run()) == b"{}"
