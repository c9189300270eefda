"""Fibers: blocking code that runs only when it is told to, so that a seed decides every interleaving.

Each is a thread, of which at most one runs at any time; `resume` and `pause` hand the right to run back and forth.
"""

import threading
from collections.abc import Callable

# No code under test waits for real, so a fiber that does not pause for this long hangs.
_HANG_S = 60.0


class Killed(BaseException):
    """The simulated process is dead: nothing that it does from now on has an effect."""


class Fiber:
    """A call that runs from one `pause` to the next.

    Args:
        body: what to run; what it raises comes out of `resume`.
    """

    def __init__(self, body: Callable[[], None]) -> None:
        self._body = body
        # Locks that one thread takes and the other releases: semaphores of one, at a tenth of their cost.
        self._go, self._back = threading.Lock(), threading.Lock()
        self._go.acquire()
        self._back.acquire()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._begun = False
        self._killed = False
        self._error: BaseException | None = None
        self.ended = False

    def resume(self) -> None:
        """Run up to the next `pause`, or to the end.

        Raises:
            BaseException: whatever the body raised, but for `Killed`.
        """
        if self.ended:
            return
        if self._begun:
            self._go.release()
        else:
            self._begun = True
            self._thread.start()
        if not self._back.acquire(timeout=_HANG_S):
            raise RuntimeError("a simulated process waits for something outside the simulation")
        if self.ended:
            self._thread.join()
            error, self._error = self._error, None
            if error is not None and not isinstance(error, Killed):
                raise error

    def pause(self) -> None:
        """Let others run; called by the body.

        Raises:
            Killed: the fiber was killed meanwhile.
        """
        if self._killed:
            raise Killed
        self._back.release()
        self._go.acquire()
        if self._killed:
            raise Killed

    def kill(self) -> None:
        """End the fiber where it stands; its body sees `Killed`."""
        self._killed = True
        if not self._begun:
            self.ended = True
        self.resume()

    def _run(self) -> None:
        try:
            self._body()
        except BaseException as error:  # noqa: BLE001 - it goes on in `resume`
            self._error = error
        self.ended = True
        self._back.release()
