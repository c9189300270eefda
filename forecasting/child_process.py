"""A process that works for another: on one thread, without a word at Ctrl-C, and gone when the other is."""

import multiprocessing
import os
import signal
import threading

import torch


def begin_child() -> None:
    """Make this process such a one; the first thing that it does."""
    # Ctrl-C reaches the whole group: a worker ends without a word, what it finished is kept.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # One that was killed tells nobody, and its workers would wait for its next task for ever.
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
