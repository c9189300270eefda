"""What the processes beside the service share: how they are told what to do, how they end, how they keep a lease.

The first line on stdin holds a worker's name and the settings as JSON. When stdin ends, whoever started it has ended or
wants it to: it puts its work back and ends too.
"""

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pydantic import BaseModel, SecretStr

from infra.errors import GraphtideError, StoreError
from infra.settings import Settings
from infra.telemetry import configure_logging

_log = logging.getLogger(__name__)
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
    if settings.jobs.when_idle:
        _step_behind()
    torch.set_num_threads(1)
    stop = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        work(settings, given["worker"], stop)
    except GraphtideError as error:
        _log.error("%s", error)
        sys.exit(1)


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


def _step_behind() -> None:
    """Run only when a core has nothing else to do."""
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except (OSError, AttributeError):
        os.nice(19)
