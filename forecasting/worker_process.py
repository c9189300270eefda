"""What processes beside the service share: how they are told what to do, work off a queue, keep a lease, and end.

The first line on stdin holds a worker's name and the settings as JSON. When stdin ends, whoever started it has ended or
wants it to: it puts its work back and ends too.
"""

import json
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, Protocol, TypeVar

import torch
from pydantic import BaseModel, SecretStr

from infra.errors import GraphtideError, StoreError
from infra.settings import Settings
from infra.telemetry import configure_logging

FAILURE_WAIT_S = 1.0
SWEEP_EVERY_S = 60.0
_log = logging.getLogger(__name__)
Claimed_co = TypeVar("Claimed_co", covariant=True)
Work = Callable[[Settings, str, threading.Event], None]


def run_worker(work: Work) -> None:
    """Work as told on stdin, until stdin ends.

    Args:
        work: given the settings, the name of this process, and an event that is set when it shall end.
    """
    given: dict[str, Any] = json.loads(sys.stdin.readline())
    settings = Settings(**given["settings"])
    configure_logging(given["log_level"])
    # Ctrl-C reaches the whole group of processes; who started this one tells it when to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    stop = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    # In a thread: the handler runs in the middle of whatever this one does, which may be inside the lock of `stop`.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=stop.set, daemon=True).start())
    try:
        work(settings, given["worker"], stop)
    except GraphtideError as error:
        _log.error("%s", error)
        sys.exit(1)


class WorkQueue(Protocol[Claimed_co]):
    """Work that several processes take from a service's file."""

    def claim(self, worker: str) -> Claimed_co | None:
        """Take what is next, if there is something."""
        ...

    def release(self, worker: str, *, is_blameless: bool) -> None:
        """Put back what a process has taken; it counts as an attempt unless it is not to blame."""
        ...

    def sweep(self) -> None:
        """Remove what is kept for long enough."""
        ...


def work_off(
    queue: WorkQueue[Claimed_co],
    do: Callable[[Claimed_co], None],
    worker: str,
    stop: threading.Event,
    *,
    idle_s: Callable[[], float],
) -> None:
    """Do what a queue has, one by one, until `stop` is set; what is unfinished then goes back.

    While the store is away, what needs it goes back too, and is not to blame. Whatever else escapes `do` ends this, and
    counts as an attempt: work that ends every process must not be taken for ever.

    Args:
        queue: where work is.
        do: does it, or leaves it where `stop` is set.
        worker: name of this process.
        stop: ends this between two pieces of work.
        idle_s: seconds until it looks again where there is nothing to do.
    """
    swept_at, is_blameless = float("-inf"), False
    try:
        while not stop.is_set():
            try:
                claimed = queue.claim(worker)
                if claimed is not None:
                    do(claimed)
                    continue
                if time.monotonic() - swept_at > SWEEP_EVERY_S:
                    queue.sweep()
                    swept_at = time.monotonic()
            except StoreError as error:
                _log.warning("%s", error.message)
                with suppress(StoreError):
                    queue.release(worker, is_blameless=True)
                stop.wait(FAILURE_WAIT_S)
            stop.wait(idle_s())
        is_blameless = True
    finally:
        with suppress(StoreError):
            queue.release(worker, is_blameless=is_blameless)


@contextmanager
def beside(stop: threading.Event, *works: Callable[[], None]) -> Iterator[None]:
    """Do `works` in threads of their own beside the block; they end when `stop` is set, as it is where the block ends.

    Where one of them fails, `stop` is set for all, and what it raised is raised at the end: a process that did only a
    part of its work would look as if all was well.
    """

    def do(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException:
            stop.set()
            raise

    with ThreadPoolExecutor(len(works), "beside") as threads:
        ended = [threads.submit(do, work) for work in works]
        try:
            yield
        finally:
            stop.set()
    for each in ended:
        each.result()


def without_secrets(settings: Settings) -> dict[str, Any]:
    """Return settings as JSON, for a process that finds the secrets in the environment, as this one did.

    Pydantic would write them as asterisks, which the other process would take for the secret.
    """
    sections = {name: getattr(settings, name) for name in type(settings).model_fields}
    hidden = {
        name: {key for key, field in type(section).model_fields.items() if field.annotation is SecretStr}
        for name, section in sections.items()
        if isinstance(section, BaseModel)
    }
    return settings.model_dump(mode="json", exclude=hidden)


@contextmanager
def lease(renew: Callable[[], None], lost_error: type[GraphtideError], every_s: float) -> Iterator[threading.Event]:
    """Renew a lease beside the work; the event that is yielded is set when it is lost.

    Args:
        renew: extends it.
        lost_error: what `renew` raises where it is not this process's any more.
        every_s: seconds between two renewals.
    """
    ended, lost = threading.Event(), threading.Event()

    def keep() -> None:
        while not ended.wait(every_s):
            try:
                renew()
            except lost_error:
                lost.set()
                return
            except StoreError as error:
                _log.warning("a lease was not renewed: %s", error.message)

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield lost
    finally:
        ended.set()
        thread.join()
