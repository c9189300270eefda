"""What a result file says about the machine and the versions that made it."""

import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from forecasting.bench.report import hardware as measured_on


def hardware() -> dict[str, Any]:
    """Return the processor, cores and the load before the measurement; how many threads are used, each script tells."""
    return {name: value for name, value in measured_on().items() if name != "threads"}


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python and of installed packages."""
    return {"python": platform.python_version(), **{package: version(package) for package in packages}}
