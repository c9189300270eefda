"""Models over sequences of snapshot metrics: Mamba2 and its kernels, the forecaster, the floors, training.

Knows nothing of `stream`: it sees arrays and the metric schema.
"""

from pathlib import Path


def general_folder() -> Path:
    """Return where the general forecaster that comes with the package lies."""
    return Path(__file__).parent / "general"
