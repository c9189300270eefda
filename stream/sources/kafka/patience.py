"""Asking brokers and a schema registry that may be down, until they answer."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from itertools import chain
from typing import TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_delay,
    stop_never,
    wait_exponential_jitter,
)

from infra.errors import InputError
from stream.decoders.records.registry import RegistryAwayError
from stream.sources.kafka.client import UnavailableError

FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 5.0
SAY_EVERY_S = 10.0
# Records that were decoded ahead may have failed before those before them had the registry back.
_SAID_AT = 2

Answer = TypeVar("Answer")


def ask_patiently(
    ask: Callable[[], Answer], *, where: str, timeout_s: float | None, say: Callable[[str], None]
) -> Answer:
    """Ask until there is an answer, and say at each try that there was none.

    Args:
        ask: raises UnavailableError where there is none now.
        where: the brokers, for messages.
        timeout_s: how long to go on asking; None for ever.
        say: tells the user, a line at a time.

    Raises:
        InputError: nothing answered in time.
    """

    def before_sleep(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        until = "" if timeout_s is None else f", for {timeout_s:g} s in all"
        say(f"Kafka at {where} does not answer ({error}); trying again{until}")

    attempts = Retrying(
        retry=retry_if_exception_type(UnavailableError),
        wait=wait_exponential_jitter(multiplier=FIRST_BACKOFF_S, max=LONGEST_BACKOFF_S),
        stop=stop_never if timeout_s is None else stop_after_delay(timeout_s),
        before_sleep=before_sleep,
        reraise=True,
    )
    try:
        return attempts(ask)
    except UnavailableError as error:
        raise InputError(
            f"Kafka at {where} has not answered for {timeout_s:g} s: {error}",
            fix="check --bootstrap-servers, that the brokers run, and security.protocol in [kafka.options]",
        ) from None


class Outage:
    """How long the brokers that are asked now and then have not answered, which the user is told now and then.

    Args:
        where: the brokers, for messages.
        say: tells the user, a line at a time.
    """

    def __init__(self, where: str, say: Callable[[str], None]) -> None:
        self._where = where
        self._say = say
        self._since_s: float | None = None
        self._said_s = 0.0

    @property
    def lasts_s(self) -> float | None:
        """Seconds since the first question without an answer; None while the brokers answer."""
        since_s = self._since_s  # a display asks from another thread
        return None if since_s is None else time.monotonic() - since_s

    def goes_on(self, error: UnavailableError) -> None:
        """Note that there was no answer."""
        now_s = time.monotonic()
        if self._since_s is None:
            self._since_s, self._said_s = now_s, 0.0
        if now_s - self._said_s >= SAY_EVERY_S:
            self._said_s = now_s
            self._say(
                f"Kafka at {self._where} has not answered for {now_s - self._since_s:.0f} s ({error});"
                " waiting, nothing is lost"
            )

    def end(self) -> bool:
        """Note that there was an answer; tell whether there had been none before."""
        if self._since_s is None:
            return False
        self._say(f"Kafka at {self._where} answers again")
        self._since_s = None
        return True


def decoded_patiently(
    first: Future[Answer], again: Callable[[], Future[Answer]], *, say: Callable[[str], None]
) -> Answer:
    """Return what becomes of records, however long the schema registry that they need is away.

    The caller's thread waits, so that it can be interrupted.

    Args:
        first: the records while they are decoded.
        again: has them decoded anew.
        say: tells the user once that the registry is away, and once that it is back.

    Raises:
        InputError: another try would end alike.
    """

    def before_sleep(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        if state.attempt_number == _SAID_AT and isinstance(error, RegistryAwayError):
            say(f"{error.message}; trying again until it answers, nothing is lost")

    futures: Iterator[Future[Answer]] = chain((first,), iter(again, None))
    attempts = Retrying(
        retry=retry_if_exception_type(RegistryAwayError),
        wait=wait_exponential_jitter(multiplier=FIRST_BACKOFF_S, max=LONGEST_BACKOFF_S),
        before_sleep=before_sleep,
        reraise=True,
    )
    answer = attempts(lambda: next(futures).result())
    if attempts.statistics["attempt_number"] > _SAID_AT:
        say("the schema registry answers again")
    return answer
