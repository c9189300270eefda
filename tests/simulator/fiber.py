"""Fibers: blocking code that runs only when it is told to, so that a seed decides every interleaving.

Each is a greenlet with a stack of its own: to hand the right to run back and forth costs no more than a few calls.
"""

from collections.abc import Callable

from greenlet import getcurrent, greenlet


class Killed(BaseException):
    """The simulated process is dead: nothing that it does from now on has an effect."""


class Fiber:
    """A call that runs from one `pause` to the next.

    Args:
        body: what to run; what it raises comes out of `resume`.
    """

    def __init__(self, body: Callable[[], None]) -> None:
        self._body = body
        self._greenlet = greenlet(self._run)
        self._begun = False
        self._killed = False
        self.ended = False

    def resume(self) -> None:
        """Run up to the next `pause`, or to the end.

        Raises:
            BaseException: whatever the body raised, but for `Killed`.
        """
        if self.ended:
            return
        self._begun = True
        # `pause`, the end and an error all lead to whoever resumed last.
        self._greenlet.parent = getcurrent()
        self._greenlet.switch()

    def pause(self) -> None:
        """Let others run; called by the body.

        Raises:
            Killed: the fiber was killed meanwhile.
        """
        if self._killed:
            raise Killed
        self._greenlet.parent.switch()
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
        except Killed:
            return
        finally:
            self.ended = True
