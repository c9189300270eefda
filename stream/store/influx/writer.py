"""Writing points: batches of bounded size, one request at a time, tried again until InfluxDB has acknowledged it."""

import threading
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Self, TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_when_event_set,
    wait_random_exponential,
)

from infra.errors import StoreError
from stream.store.influx.address import InfluxAddress
from stream.store.influx.connection import Connection, TooLargeError
from stream.store.influx.unavailable import UnavailableError

_FIRST_WAIT_S = 0.25

OnTry = Callable[[StoreError | None], None]
Answer = TypeVar("Answer")


class StoppedError(Exception):
    """The writer was told to stop before everything was written; what it was may have been written in part."""


class InfluxWriter:
    """Writes points to one bucket; one thread uses it.

    Args:
        address: the bucket.
        stop: ends waits and tries at once when it is set.
        on_try: called with the error of each failed try, and with None after each request that succeeded.
    """

    def __init__(
        self, address: InfluxAddress, *, stop: threading.Event | None = None, on_try: OnTry | None = None
    ) -> None:
        self._address = address
        self._stop = stop or threading.Event()
        self._on_try = on_try
        self._connection = Connection(address)
        # Whether the server may still be at work on an earlier try of the batch that is being sent.
        self._may_go_on = False

    def write(self, lines: Iterable[str]) -> int:
        """Write all points and return how many; return only when InfluxDB has acknowledged every one.

        While InfluxDB cannot be reached or is too busy this waits and tries the whole batch again, for ever: a batch
        may have been written in part, and writing a point twice changes nothing.

        Raises:
            StoppedError: the stop event was set before that.
            StoreError: InfluxDB refuses the points; a later try would end alike until somebody mends the cause.
        """
        written, remaining = 0, iter(lines)
        while batch := list(islice(remaining, self._address.batch_points)):
            self._write_batch(batch)
            written += len(batch)
        return written

    def ask(self, flux: str) -> bytes:
        """Return the answer to a query as CSV; wait and try again as `write` does.

        Raises:
            StoppedError: the stop event was set before there was one.
            StoreError: InfluxDB refuses the query.
        """
        return self._patiently(lambda: self._connection.query(flux))

    def pause(self, seconds: float) -> None:
        """Wait.

        Raises:
            StoppedError: the stop event was set meanwhile.
        """
        if self._stop.wait(seconds):
            raise StoppedError

    def close(self) -> None:
        """Release the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _write_batch(self, batch: list[str]) -> None:
        try:
            self._send("\n".join(batch).encode())
        except TooLargeError:
            if len(batch) == 1:
                raise
            middle = len(batch) // 2
            self._write_batch(batch[:middle])
            self._write_batch(batch[middle:])

    def _send(self, body: bytes) -> None:
        self._may_go_on = False
        self._patiently(lambda: self._connection.write(body))
        # A server that hung and came back works on all that it was sent meanwhile, in any order. Newer revisions of the
        # same points wait, so that an older try of these cannot come after them.
        if self._may_go_on:
            self._stop.wait(self._address.settle_s)

    def _patiently(self, call: Callable[[], Answer]) -> Answer:
        exponential = wait_random_exponential(multiplier=_FIRST_WAIT_S, max=self._address.max_wait_s)

        def wait_s(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked_s = error.retry_after_s if isinstance(error, UnavailableError) else 0.0
            return min(max(exponential(state), asked_s), self._address.max_wait_s)

        retrying = Retrying(
            retry=retry_if_exception_type(UnavailableError),
            wait=wait_s,
            stop=stop_when_event_set(self._stop),
            sleep=sleep_using_event(self._stop),
            reraise=True,
        )
        try:
            answer: Answer = retrying(self._once, call)
        except UnavailableError:
            raise StoppedError from None
        return answer

    def _once(self, call: Callable[[], Answer]) -> Answer:
        if self._stop.is_set():
            raise StoppedError
        try:
            answer = call()
        except StoreError as error:
            self._may_go_on |= isinstance(error, UnavailableError) and error.may_go_on
            self._note(error)
            raise
        self._note(None)
        return answer

    def _note(self, error: StoreError | None) -> None:
        if self._on_try is not None:
            self._on_try(error)
