"""What a result file says about the machine and the versions that made it."""

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from forecasting.bench.processor import processor


def hardware() -> dict[str, object]:
    """Return processor, cores and the load before the measurement."""
    return {
        "cpu": processor().model,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python and of installed packages."""
    return {"python": platform.python_version(), **{package: version(package) for package in packages}}
