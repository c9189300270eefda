"""The simulated clock, and the trace of what happened when."""

import hashlib

SECOND_US = 1_000_000


class Clock:
    """Simulated time in microseconds; it stands still but for `advance`.

    Args:
        epoch_us: the time of day at which the run begins.
    """

    def __init__(self, epoch_us: int) -> None:
        self._epoch_us = epoch_us
        self.elapsed_us = 0

    def advance(self, by_us: int) -> None:
        """Let time pass."""
        self.elapsed_us += by_us

    def now_us(self) -> int:
        """Return the time of day, in microseconds since the epoch."""
        return self._epoch_us + self.elapsed_us

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run began."""
        return self.elapsed_us / SECOND_US


class Trace:
    """What happened, in order; a run that is repeated leaves the same trace."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.lines: list[str] = []

    def note(self, who: str, what: str) -> None:
        """Add a line."""
        self.lines.append(f"{self._clock.elapsed_us / SECOND_US:9.3f} s  {who:<9} {what}")

    def digest(self) -> str:
        """Return a SHA-256 of all lines."""
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()
