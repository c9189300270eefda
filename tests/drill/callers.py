"""Callers of the drill: clients that ask for short forecasts all the time, and note what they got."""

import threading
import time
from collections import Counter
from collections.abc import Sequence

import numpy as np

import graphtide

PAUSE_S = 0.2
CALLERS = 4


class Callers:
    """Threads that ask for the forecast of one graph after the other through the client that comes with Graphtide."""

    def __init__(self, url: str, graphs: Sequence[str]) -> None:
        self._url = url
        self._graphs = graphs
        self._end = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, name=f"caller-{number}") for number in range(CALLERS)]
        self._seconds: list[float] = []
        self.failures: Counter[str] = Counter()

    def start(self) -> None:
        """Begin to ask."""
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Stop asking."""
        self._end.set()
        for thread in self._threads:
            thread.join()

    def summary(self) -> dict[str, object]:
        """Return how many requests there were, how they ended, and how long they took in milliseconds."""
        p50, p99, longest = (1000 * float(np.quantile(self._seconds, level)) for level in (0.5, 0.99, 1.0))
        return {
            "requests": len(self._seconds) + self.failures.total(),
            "failed": self.failures.total(),
            "failures": dict(self.failures),
            "p50_ms": round(p50, 1),
            "p99_ms": round(p99, 1),
            "max_ms": round(longest, 1),
        }

    def _ask(self) -> None:
        number = 0
        with graphtide.Client(self._url) as client:
            while not self._end.wait(PAUSE_S):
                graph = self._graphs[number % len(self._graphs)]
                number += 1
                begin_s = time.perf_counter()
                try:
                    forecast = client.forecast(graph, 24, metrics=["events"])
                    assert len(forecast.frame) == 24
                except (graphtide.ApiError, graphtide.UnreachableError) as error:
                    with self._lock:
                        self.failures[f"{type(error).__name__}: {error}"[:200]] += 1
                else:
                    with self._lock:
                        self._seconds.append(time.perf_counter() - begin_s)
