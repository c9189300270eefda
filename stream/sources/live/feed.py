"""Messages of one server without an end: connects, reads in a thread, and connects again after every drop."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tenacity import RetryCallState, wait_random_exponential

from infra.errors import InputError
from stream.sources.live.connection import Connection, DroppedError, Message

_LOG = logging.getLogger(__name__)
# Messages that are read ahead; beyond it the server is held up by its own socket.
_AHEAD = 10_000
_JOIN_TIMEOUT_S = 2.0
# How long the reading thread waits for room before it looks whether it should end.
_ROOM_TIMEOUT_S = 0.2
_NO_RETRYING: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """When to connect again.

    Attributes:
        min_s, max_s: the wait is random, doubling on average from try to try between these.
        give_up_after_s: how long tries may fail in a row; 0 for ever.
    """

    min_s: float = 0.5
    max_s: float = 60.0
    give_up_after_s: float = 3600.0

    def wait_s(self, attempt: int) -> float:
        """Return how long to wait after the given number of tries in a row, counted from 1."""
        # With a random part, so that not all clients of a server that comes back come back at once.
        waits = wait_random_exponential(multiplier=self.min_s, max=self.max_s, min=min(self.min_s, self.max_s) / 2)
        state = RetryCallState(_NO_RETRYING, None, (), {})
        state.attempt_number = attempt
        return float(waits(state))


class Feed:
    """Hands over messages in the order of the server. Use it as a context manager; its thread ends with it.

    A new connection is opened only when everything that the one before had sent was handed over: what it asks for can
    go by that.

    Args:
        connect: makes the next connection, which connects when it is read.
        backoff: when to connect again.
    """

    def __init__(self, connect: Callable[[], Connection], backoff: Backoff) -> None:
        self._connect = connect
        self._backoff = backoff
        self._pump: _Pump | None = None
        self._attempt = 0
        self._failing_since_s: float | None = None
        self._hint_s = 0.0
        self._retry_at_s = 0.0

    def __enter__(self) -> "Feed":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pump is not None:
            self._pump.stop()
            self._pump = None

    def next(self, timeout_s: float) -> Message | None:
        """Return the next message, None if none came in time.

        Raises:
            InputError: the server will not serve this, or could not be reached for too long.
        """
        if self._pump is None:
            wait_s = self._retry_at_s - time.monotonic()
            if wait_s > 0:
                time.sleep(min(wait_s, timeout_s))
                return None
            self._pump = _Pump(self._connect())
        try:
            item = self._pump.items.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if isinstance(item, Message):
            self._failing_since_s = None
            if item.retry_s is not None:
                self._hint_s = item.retry_s
            return item
        self._pump.stop()
        self._pump = None
        if not isinstance(item, DroppedError):
            raise item
        self._dropped(item)
        return None

    def went_on(self) -> None:
        """Note that the server sent something new: the next wait is a short one again."""
        self._attempt = 0

    def _dropped(self, error: DroppedError) -> None:
        now_s = time.monotonic()
        self._attempt += 1
        if self._failing_since_s is None:
            self._failing_since_s = now_s
        failing_s = now_s - self._failing_since_s
        limit_s = self._backoff.give_up_after_s
        if limit_s and failing_s > limit_s:
            raise InputError(
                f"{error}, and every try of the last {failing_s:.0f} s failed",
                fix="check the address and the network, then run the same command; it goes on where it stopped",
            )
        wait_s = max(self._backoff.wait_s(self._attempt), error.retry_after_s or 0.0, self._hint_s)
        self._retry_at_s = now_s + wait_s
        _LOG.warning("%s; connecting again in %.1f s", error, wait_s)


class _Pump:
    """A thread that reads one connection into `items`; its last item says how the connection ended."""

    def __init__(self, connection: Connection) -> None:
        self.items: queue.Queue[Message | Exception] = queue.Queue(_AHEAD)
        self._connection = connection
        self._stopped = threading.Event()
        # A thread that still waits for a connection must not keep the process alive.
        self._thread = threading.Thread(target=self._read, name="live-source", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the connection and the thread."""
        self._stopped.set()
        if self._thread.is_alive():
            self._connection.close()
        self._thread.join(_JOIN_TIMEOUT_S)

    def _read(self) -> None:
        try:
            for message in self._connection.messages():
                if not self._put(message):
                    return
            ended: Exception = DroppedError("the stream ended")
        except Exception as error:  # noqa: BLE001 - whatever it is, the reader of the feed has to know
            ended = error
        self._put(ended)

    def _put(self, item: Message | Exception) -> bool:
        while not self._stopped.is_set():
            try:
                self.items.put(item, timeout=_ROOM_TIMEOUT_S)
            except queue.Full:
                continue
            return True
        return False
