"""Asking brokers and a schema registry that may be down, until they answer."""

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
