"""What tests of the client share: one way to use both clients, and a network of their own."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import islice
from typing import Any

import httpx
import pytest

from graphtide import AsyncClient, Client
from graphtide.results import News

URL = "http://x"
Answer = Callable[[httpx.Request], httpx.Response]
both_clients = pytest.mark.parametrize("is_async", [False, True], ids=["Client", "AsyncClient"])


class Clock:
    """Seconds that pass as a test says, and while a client waits."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.waited_s: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    def wait(self, seconds: float) -> None:
        self.waited_s.append(seconds)
        self.now_s += seconds

    async def wait_for(self, seconds: float) -> None:
        self.wait(seconds)


class Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that comes as the pieces of an iterator do."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece


def call(is_async: bool, answer: Answer, method: str, *args: Any, **options: Any) -> Any:
    """Return what a method of a client returns where `answer` answers."""
    transport = httpx.MockTransport(answer)
    if not is_async:
        with Client(URL, transport=transport) as client:
            return getattr(client, method)(*args, **options)

    async def use() -> Any:
        async with AsyncClient(URL, transport=transport) as client:
            return await getattr(client, method)(*args, **options)

    return asyncio.run(use())


def live(is_async: bool, answer: Answer, clock: Clock, most: int, timeout_s: float = 30.0) -> list[News]:
    """Return the first `most` events of a graph's stream."""
    transport = httpx.MockTransport(answer)
    if not is_async:
        with Client(URL, transport=transport, timeout_s=timeout_s, sleep=clock.wait, clock=clock) as client:
            return list(islice(client.live("toy"), most))

    async def use() -> list[News]:
        found: list[News] = []
        async with AsyncClient(
            URL, transport=transport, timeout_s=timeout_s, sleep=clock.wait_for, clock=clock
        ) as client:
            async for one in client.live("toy"):
                found.append(one)
                if len(found) == most:
                    break
        return found

    return asyncio.run(use())
