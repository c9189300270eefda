"""Asking brokers that may be down, until they answer."""

from collections.abc import Callable
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
from stream.sources.kafka.client import UnavailableError

FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 5.0

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
