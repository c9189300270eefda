"""How much memory this process took at most while something ran, as Linux counts it."""

from pathlib import Path

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Measures from its making on: how far the resident set rose above where it stood."""

    def __init__(self) -> None:
        self._begin: int | None = None
        try:
            # Sets the peak back to what is resident now; proc(5).
            _RESET.write_text("5")
            self._begin = _bytes("VmRSS")
        except (OSError, ValueError):
            return

    def rise(self) -> float:
        """Return the rise in bytes; NaN where the system does not tell."""
        if self._begin is None:
            return float("nan")
        return float(max(0, _bytes("VmHWM") - self._begin))


def _bytes(field: str) -> int:
    for line in _STATUS.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise ValueError(field)
