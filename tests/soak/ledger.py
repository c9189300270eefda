"""What the clients of a fault run saw: every answer counted, and what must not be noted as a violation."""

import threading
import time
from collections import Counter, defaultdict
from contextlib import suppress
from typing import Any

import httpx

MAX_VIOLATIONS = 200
# A killed process takes the requests under way with it; so long after a kill a broken connection is no wonder.
EXCUSED_S = 30.0


class Ledger:
    """Counts and violations; its methods may be called from several threads."""

    def __init__(self) -> None:
        self.begin_s = time.monotonic()
        self.statuses: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.latencies_ms: defaultdict[str, list[float]] = defaultdict(list)
        self.announced: Counter[str] = Counter()
        self.broken: Counter[str] = Counter()
        self.faults: list[dict[str, Any]] = []
        self.violations: list[str] = []
        self._excused_until_s = 0.0
        self._lock = threading.Lock()

    @property
    def now_s(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.begin_s

    def violate(self, what: str) -> None:
        """Note something that must not be."""
        with self._lock:
            if len(self.violations) < MAX_VIOLATIONS:
                self.violations.append(f"{self.now_s:.1f} s: {what}")

    def fault(self, kind: str, **about: Any) -> dict[str, Any]:
        """Note a fault; what is returned may be added to."""
        noted = {"at_s": round(self.now_s, 1), "kind": kind, **about}
        self.faults.append(noted)
        return noted

    def excuse(self) -> None:
        """From now on connections may break for a while: a serving process is killed."""
        self._excused_until_s = time.monotonic() + EXCUSED_S

    def sent(self, client: str, response: httpx.Response, expected: tuple[int, ...]) -> bool:
        """Note an answer; tell whether it is one of those expected and not an announced refusal."""
        status = response.status_code
        with self._lock:
            self.statuses[client][str(status)] += 1
            with suppress(RuntimeError):  # a stream that was not read to its end has no time
                self.latencies_ms[client].append(1000 * response.elapsed.total_seconds())
        if status in expected:
            return True
        if status in {429, 503, 507} and response.headers.get("retry-after", "").isdigit():
            with self._lock:
                self.announced[f"{status} {client}"] += 1
            return False
        self.violate(
            f"{client}: {response.request.method} {response.request.url} was answered {status}: {_text(response)}"
        )
        return False

    def lost(self, client: str, error: Exception) -> None:
        """Note a request without an answer; a violation unless a serving process was killed just before."""
        with self._lock:
            self.broken[f"{type(error).__name__} {client}"] += 1
        if time.monotonic() > self._excused_until_s:
            self.violate(f"{client}: no answer: {error!r}")


def _text(response: httpx.Response) -> str:
    try:
        return response.text[:300]
    except httpx.ResponseNotRead:
        return "(a stream)"
