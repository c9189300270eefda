"""Ctrl-C that is held back for a moment: it reaches every process of the group, and not each may end by it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held() -> Iterator[None]:
    """Hold Ctrl-C back until the end of the block; what is started meanwhile holds it until it calls `let_through`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_through() -> None:
    """Let Ctrl-C come again, one that came meanwhile at once."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
