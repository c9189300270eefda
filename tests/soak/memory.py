"""Resident memory of the processes of a fault run: sampled, and how fast it grows after a warm-up."""

import threading
from collections import defaultdict
from contextlib import suppress
from typing import Any

import numpy as np
import psutil

from tests.soak.ledger import Ledger
from tests.soak.world import World

EVERY_S = 2.0
# Processes that were there for less time say nothing of a trend, and in their first part all of them grow: the largest
# bodies and the rarest answers come late, and what they took at most is not given back.
LEAST_S, WARM_UP_SHARE = 900.0, 0.4
# What a process may gain in an hour at most, beyond what it holds after the warm-up.
MOST_MB_PER_HOUR = 60.0


class Memory:
    """Samples the serving processes and those of jobs in a thread."""

    def __init__(self, world: World, ledger: Ledger) -> None:
        self._world = world
        self._ledger = ledger
        self._samples: defaultdict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._over.set()
        self._thread.join()

    def summary(self) -> list[dict[str, Any]]:
        """Return for each process its memory and, if it was there long enough, its trend; note those that grow."""
        found = []
        for (kind, pid), samples in self._samples.items():
            at_s, megabytes = np.array(samples).T
            about: dict[str, Any] = {
                "process": kind,
                "seconds": round(float(at_s[-1] - at_s[0])),
                "first_mb": round(float(megabytes[0]), 1),
                "last_mb": round(float(megabytes[-1]), 1),
                "most_mb": round(float(megabytes.max()), 1),
            }
            if at_s[-1] - at_s[0] >= LEAST_S:
                warm = at_s >= at_s[0] + WARM_UP_SHARE * (at_s[-1] - at_s[0])
                per_hour = 3600 * float(np.polyfit(at_s[warm], megabytes[warm], 1)[0])
                about["mb_per_hour"] = round(per_hour, 1)
                if per_hour > MOST_MB_PER_HOUR:
                    self._ledger.violate(f"the {kind} process {pid} grows by {per_hour:.0f} MB an hour")
            found.append(about)
        return found

    def _sample(self) -> None:
        while not self._over.wait(EVERY_S):
            of_kind = {"serving": self._world.api_workers(), "job": self._world.job_workers()}
            for kind, processes in of_kind.items():
                for process in processes:
                    with suppress(psutil.NoSuchProcess):
                        megabytes = process.memory_info().rss / 2**20
                        self._samples[kind, process.pid].append((self._ledger.now_s, megabytes))
