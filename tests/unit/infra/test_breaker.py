"""A breaker opens after failures in a row, lets one caller probe after each pause, and closes when that succeeds."""

from concurrent.futures import ThreadPoolExecutor

from infra.breaker import Breaker, BreakerState


class Clock:
    """Seconds that a test moves."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_it_opens_probes_and_closes() -> None:
    clock = Clock()
    breaker = Breaker(failures=2, pause_s=5, clock_s=clock)
    assert not breaker.failed()
    assert not breaker.succeeded(), "it was never open"
    assert not breaker.failed(), "a success between two failures starts the count anew"
    assert breaker.failed()
    assert (breaker.state, breaker.may_try()) == (BreakerState.OPEN, False)
    clock.now_s = 5.0
    assert breaker.state is BreakerState.HALF_OPEN
    assert breaker.may_try()
    assert not breaker.may_try(), "one probe at a time"
    assert not breaker.failed(), "it was open already"
    assert breaker.state is BreakerState.OPEN
    clock.now_s = 10.0
    assert breaker.may_try()
    assert breaker.succeeded()
    assert (breaker.state, breaker.may_try()) == (BreakerState.CLOSED, True)


def test_a_probe_that_is_never_told_of_costs_one_pause() -> None:
    clock = Clock()
    breaker = Breaker(failures=1, pause_s=5, clock_s=clock)
    breaker.failed()
    clock.now_s = 5.0
    assert breaker.may_try()
    clock.now_s = 9.9
    assert not breaker.may_try()
    clock.now_s = 10.0
    assert breaker.may_try()


def test_of_many_threads_one_probes() -> None:
    clock = Clock()
    breaker = Breaker(failures=1, pause_s=5, clock_s=clock)
    breaker.failed()
    clock.now_s = 5.0
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda _: breaker.may_try(), range(200))) == 1
