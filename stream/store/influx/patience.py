"""How often a read of an InfluxDB that may be away is tried, how long is waited between, and when it is left alone."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, stop_when_event_set
from tenacity.nap import sleep_using_event
from tenacity.wait import wait_base, wait_exponential, wait_random_exponential

from infra.breaker import Breaker, BreakerState
from infra.settings import InfluxDBSettings
from stream.store.influx.unavailable import UnavailableError

Answer = TypeVar("Answer")
# Of a request's time, what one try of two may take.
_SHARE_OF_A_TRY = 0.4
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Patience:
    """How a reader goes on after failures.

    Attributes:
        attempts: tries in all.
        wait: seconds between two of them, by tenacity.
        timeout_s: seconds that a try may take; None for that of the settings.
        breaker: shared by all readers of a process; None where nothing is left alone.
        stop: ends the waiting once it is set.
    """

    attempts: int
    wait: wait_base
    timeout_s: float | None = None
    breaker: Breaker | None = None
    stop: threading.Event | None = None

    @classmethod
    def of_command(cls) -> "Patience":
        """Return that of somebody who waits at a terminal."""
        return cls(3, wait_random_exponential(multiplier=0.1, max=2.0))

    @classmethod
    def of_background(
        cls, settings: InfluxDBSettings, stop: threading.Event, breaker: Breaker | None = None
    ) -> "Patience":
        """Return that of work which nobody waits for."""
        wait = wait_exponential(multiplier=settings.retry_min_s, min=settings.retry_min_s, max=settings.retry_max_s)
        return cls(settings.attempts, wait, breaker=breaker, stop=stop)

    @classmethod
    def of_request(cls, deadline_s: float, breaker: Breaker) -> "Patience":
        """Return that of a request: one more try, both within its deadline."""
        wait = wait_random_exponential(multiplier=deadline_s / 50, max=deadline_s / 10)
        return cls(2, wait, timeout_s=deadline_s * _SHARE_OF_A_TRY, breaker=breaker)

    def ask(self, question: Callable[[], Answer], place: str) -> Answer:
        """Return the answer to a question.

        Args:
            question: raises UnavailableError where another try can help.
            place: who is asked, for messages.

        Raises:
            UnavailableError: no try had an answer, or it is left alone now.
            StoreError: what the question raises.
        """
        retrying = Retrying(
            retry=retry_if_exception_type(UnavailableError),
            wait=self.wait,
            stop=stop_after_attempt(self.attempts)
            if self.stop is None
            else stop_after_attempt(self.attempts) | stop_when_event_set(self.stop),
            before_sleep=self._told,
            reraise=True,
        )
        if self.stop is not None:
            retrying.sleep = sleep_using_event(self.stop)
        found: Answer = retrying(self._one_try, question, place)
        return found

    def _one_try(self, question: Callable[[], Answer], place: str) -> Answer:
        breaker = self.breaker
        if breaker is None:
            return question()
        if not breaker.may_try():
            raise UnavailableError(
                f"the {place} failed several times in a row and is left alone for a while",
                fix="start InfluxDB, or check host, port and TLS",
            )
        try:
            found = question()
        except UnavailableError:
            if breaker.failed():
                _log.warning("the %s is away: it is left alone between tries", place)
            raise
        except BaseException:
            # It answered, if only with a refusal.
            breaker.succeeded()
            raise
        if breaker.succeeded():
            _log.warning("the %s answers again", place)
        return found

    def _told(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        said = error.message if isinstance(error, UnavailableError) else str(error)
        # Of a long outage, the breaker has told already.
        is_told = self.breaker is not None and self.breaker.state is not BreakerState.CLOSED
        _log.log(logging.INFO if is_told else logging.WARNING, "%s; tried again in %.1f s", said, state.upcoming_sleep)
