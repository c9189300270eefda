"""The delivery of dead letters beside ingestion: a thread that hands them to their target, from the store."""

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Self

from infra.errors import GraphtideError, StoreError
from stream.deadletters import Target, deliver
from stream.store.dead_letters import DeadLetters
from stream.store.writer import StoreWriter

logger = logging.getLogger(__name__)

_IDLE_S = 1.0
_LONGEST_WAIT_S = 30.0


class Delivery:
    """Delivers the dead letters of one store from `start` to `close`; a `stream.companion.Companion` of ingestion.

    The thread only reads the store. What the target has taken is marked by the ingesting thread in its transactions;
    a crash in between delivers again, with the same id.

    Args:
        open_letters: opens the dead letters; called in the thread, again after a failure.
        open_target: opens the target, likewise.
    """

    def __init__(
        self, open_letters: Callable[[], DeadLetters], open_target: Callable[[], AbstractContextManager[Target]]
    ) -> None:
        self._open_letters = open_letters
        self._open_target = open_target
        self._stop = False
        # Guards everything below, and tells of it.
        self._changed = threading.Condition()
        self._woken = False
        # What the target has taken, and those of it that the open transaction marks.
        self._taken: list[int] = []
        self._marked: list[int] = []
        # Rounds that found nothing left, and rounds that have begun.
        self._clean_round = self._round = 0
        self._error: GraphtideError | None = None
        # Before the next try; that of the thread alone.
        self._pause_s = _IDLE_S
        self._thread = threading.Thread(target=self._run, name="dead letters", daemon=True)

    def has_news(self) -> bool:
        """Return whether the target has taken letters that are not marked yet."""
        return bool(self._taken)

    def commit(self, writer: StoreWriter) -> None:
        """Mark what the target has taken."""
        self._marked = self._taken
        if self._marked:
            writer.letters_delivered(self._marked)

    def committed(self) -> None:
        """Let the thread look for more: what it had delivered is marked, and further letters may be there."""
        with self._changed:
            # What was taken after `commit` looked is marked next time.
            if self._taken is self._marked:
                self._taken = []
            self._marked = []
            self._woken = True
            self._changed.notify_all()

    @property
    def error(self) -> GraphtideError | None:
        """Why the last try failed; None if it did not."""
        return self._error

    def drain(self, writer: StoreWriter, timeout_s: float) -> bool:
        """Wait, at most so long, until every letter that was committed before is delivered; return whether all are."""
        begun = self._round
        waited_s = 0.0
        while self._clean_round <= begun and self._thread.is_alive() and waited_s < timeout_s:
            with self._changed:
                self._woken = True
                self._changed.notify_all()
                self._changed.wait(timeout=0.05)
            waited_s += 0.05
            if self.has_news():
                with writer.transaction():
                    self.commit(writer)
                self.committed()
        return self._clean_round > begun

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """End the thread; a delivery that is on its way is waited for."""
        with self._changed:
            self._stop = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop:
            try:
                with self._open_letters() as letters, self._open_target() as target:
                    self._deliver(letters, target)
            except GraphtideError as error:
                self._fail(error)
            except Exception as error:  # noqa: BLE001 - a delivery that ended in silence would look like an idle one
                self._fail(StoreError(f"this should not happen: {type(error).__name__}: {error}"))
            self._wait(self._pause_s)
            self._pause_s = min(2 * self._pause_s, _LONGEST_WAIT_S)

    def _fail(self, error: GraphtideError) -> None:
        if self._error is None:
            logger.warning("dead letters wait in the store: %s", error)
        self._error = error

    def _deliver(self, letters: DeadLetters, target: Target) -> None:
        while not self._stop:
            with self._changed:
                self._round += 1
                number = self._round
            taken = deliver(letters, target) if letters.elect() else []
            self._error, self._pause_s = None, _IDLE_S
            with self._changed:
                self._taken = taken
                if not taken:
                    self._clean_round = number
                self._changed.notify_all()
                # The same letters would be found again until they are marked.
                self._changed.wait_for(lambda: self._stop or not self._taken)
            if not taken:
                self._wait(_IDLE_S)

    def _wait(self, timeout_s: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._woken or self._stop, timeout=timeout_s)
            self._woken = False
