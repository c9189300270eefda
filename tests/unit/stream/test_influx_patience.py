"""How often an InfluxDB that is away is asked: in the background, by requests, and once it is left alone."""

import logging
import threading

import pytest

from infra.breaker import Breaker, BreakerState
from infra.errors import StoreError
from infra.settings import InfluxDBSettings
from stream.store.influx.patience import Patience
from stream.store.influx.unavailable import UnavailableError

PLACE = "bucket 'b' of InfluxDB at http://h:1"


class Waits(threading.Event):
    """An event that notes how long it was waited for, and does not wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waited_s: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waited_s.append(timeout)
        return self.is_set()


class Server:
    """Answers after so many failures."""

    def __init__(self, failures: int, error: type[StoreError] = UnavailableError) -> None:
        self.failures = failures
        self.error = error
        self.asked = 0

    def ask(self) -> str:
        self.asked += 1
        if self.asked <= self.failures:
            raise self.error("away", fix="start it")
        return "answer"


def test_the_background_tries_three_times_after_four_and_eight_seconds() -> None:
    stop, server = Waits(), Server(failures=9)
    patience = Patience.of_background(InfluxDBSettings(), stop)
    with pytest.raises(UnavailableError, match="away"):
        patience.ask(server.ask, PLACE)
    assert (server.asked, stop.waited_s) == (3, [4.0, 8.0])
    longer = Waits()
    Patience.of_background(InfluxDBSettings(attempts=5), longer).ask(Server(failures=4).ask, PLACE)
    assert longer.waited_s == [4.0, 8.0, 10.0, 10.0]


def test_a_stop_ends_the_waiting() -> None:
    stop, server = threading.Event(), Server(failures=9)
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(UnavailableError):
        Patience.of_background(InfluxDBSettings(retry_min_s=60, retry_max_s=60), stop).ask(server.ask, PLACE)
    assert server.asked < 3


def test_a_request_tries_once_more_and_has_time_for_both() -> None:
    patience = Patience.of_request(0.5, Breaker(failures=9, pause_s=1))
    assert patience.timeout_s is not None
    assert 2 * patience.timeout_s + 0.5 / 10 < 0.5
    assert patience.ask(Server(failures=1).ask, PLACE) == "answer"
    server = Server(failures=2)
    with pytest.raises(UnavailableError):
        patience.ask(server.ask, PLACE)
    assert server.asked == 2


def test_what_failed_often_is_left_alone_and_tried_by_one(caplog: pytest.LogCaptureFixture) -> None:
    now_s = [0.0]
    breaker = Breaker(failures=3, pause_s=5, clock_s=lambda: now_s[0])
    patience, server = Patience.of_request(0.01, breaker), Server(failures=4)
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            with pytest.raises(UnavailableError):
                patience.ask(server.ask, PLACE)
        assert server.asked == 3
        now_s[0] = 5.0
        with pytest.raises(UnavailableError):
            patience.ask(server.ask, PLACE)
        assert (server.asked, breaker.state) == (4, BreakerState.OPEN), "one more, which failed"
        now_s[0] = 10.0
        assert patience.ask(server.ask, PLACE) == "answer"
        assert breaker.state is BreakerState.CLOSED
    told = [record.getMessage() for record in caplog.records if PLACE in record.getMessage()]
    assert told == [f"the {PLACE} is away: it is left alone between tries", f"the {PLACE} answers again"]


def test_a_refusal_is_an_answer() -> None:
    breaker = Breaker(failures=1, pause_s=5)
    server = Server(failures=1, error=StoreError)
    with pytest.raises(StoreError):
        Patience.of_request(0.01, breaker).ask(server.ask, PLACE)
    assert (server.asked, breaker.state) == (1, BreakerState.CLOSED)
