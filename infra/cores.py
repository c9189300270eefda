"""How many cores a process may run on. Standard library only."""

import os
import sys


def allowed_cores() -> int:
    """Return how many cores the affinity of this process allows, whatever a quota leaves of them."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
