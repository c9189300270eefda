"""A stream in which nothing happens is followed for ever; one that fails is given up."""

from collections.abc import Callable, Iterator

import httpx
import pytest

from graphtide import UnreachableError
from tests.unit.graphtide.client_cases import Body, Clock, both_clients, live

EVENT = b'id: 1.0.0.1.\nevent: snapshot\ndata: {"graph": "toy"}\n\n'
HEARTBEAT = b": still here\n"
Pieces = Callable[[Clock], Iterator[bytes]]


class Streams:
    """A service whose streams are `quiet` so many times, and then tell something."""

    def __init__(self, clock: Clock, quiet: Pieces, times: int) -> None:
        self._clock = clock
        self._quiet = quiet
        self._left = times
        self.begun = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.begun += 1
        self._left -= 1
        pieces = self._quiet(self._clock) if self._left >= 0 else iter([EVENT])
        return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, stream=Body(pieces))


def closed_after_heartbeats(clock: Clock) -> Iterator[bytes]:
    for _ in range(3):
        clock.now_s += 15
        yield HEARTBEAT


def closed_before_a_heartbeat(clock: Clock) -> Iterator[bytes]:
    clock.now_s += 10
    yield from ()


def broken_after_a_heartbeat(clock: Clock) -> Iterator[bytes]:
    clock.now_s += 15
    yield HEARTBEAT
    raise httpx.ReadError("the proxy has had enough")


def silent_after_a_heartbeat(clock: Clock) -> Iterator[bytes]:
    clock.now_s += 15
    yield HEARTBEAT
    clock.now_s += 30
    raise httpx.ReadTimeout("nothing came")


def closed_at_once(clock: Clock) -> Iterator[bytes]:
    yield HEARTBEAT


def silent_from_the_beginning(clock: Clock) -> Iterator[bytes]:
    clock.now_s += 30
    yield from ()
    raise httpx.ReadTimeout("nothing came")


@both_clients
@pytest.mark.parametrize(
    "quiet",
    [closed_after_heartbeats, closed_before_a_heartbeat, broken_after_a_heartbeat, silent_after_a_heartbeat],
)
def test_a_quiet_graph_is_followed_however_often_its_stream_is_cut(is_async: bool, quiet: Pieces) -> None:
    clock = Clock()
    streams = Streams(clock, quiet, times=20)
    (news,) = live(is_async, streams, clock, most=1)
    assert (news.kind, streams.begun) == ("snapshot", 21)
    assert set(clock.waited_s) == {0.25}


@both_clients
@pytest.mark.parametrize("timeout_s", [2.0, 300.0])
def test_a_short_patience_for_answers_is_none_for_the_heartbeats_of_a_stream(is_async: bool, timeout_s: float) -> None:
    clock = Clock()
    waits: list[dict[str, float]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        waits.append(request.extensions["timeout"])

        def pieces() -> Iterator[bytes]:
            # Between two heartbeats of a service that is set as it comes.
            clock.now_s += min(10, request.extensions["timeout"]["read"])
            if request.extensions["timeout"]["read"] < 10:
                raise httpx.ReadTimeout("nothing came")
            yield EVENT

        return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, stream=Body(pieces()))

    assert len(live(is_async, answer, clock, most=1, timeout_s=timeout_s)) == 1
    (waited,) = waits
    assert (waited["connect"], waited["read"]) == (timeout_s, max(30.0, timeout_s))


@both_clients
@pytest.mark.parametrize("quiet", [closed_at_once, silent_from_the_beginning])
def test_a_stream_that_never_lives_is_given_up(is_async: bool, quiet: Pieces) -> None:
    clock = Clock()
    streams = Streams(clock, quiet, times=20)
    with pytest.raises(UnreachableError, match="6 times in a row"):
        live(is_async, streams, clock, most=1)
    assert streams.begun == 6
    assert clock.waited_s == [0.25, 0.5, 1.0, 2.0, 4.0]


@both_clients
def test_a_service_that_is_away_for_long_is_given_up(is_async: bool) -> None:
    clock = Clock()

    def answer(request: httpx.Request) -> httpx.Response:
        clock.now_s += 30
        return httpx.Response(503, headers={"Retry-After": "3"})

    with pytest.raises(UnreachableError, match="6 times in a row"):
        live(is_async, answer, clock, most=1)
    assert clock.waited_s == [3.0, 3.0, 3.0, 3.0, 4.0]
