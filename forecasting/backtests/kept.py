"""Parts of backtests that are kept: a backtest that was ended goes on from them, a repeated one reads them.

Each is a file of its own, named by a digest of all that it depends on: the steps up to the end of its window, the
model, the plan and the code. What was changed by any of these has another name, and is never read.
"""

import hashlib
import json
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from safetensors import SafetensorError
from safetensors.numpy import load, save

from forecasting.backtests.parts import Part
from infra.schema import METRIC_NAMES, QUANTILE_LEVELS
from infra.whole_file import whole_file

KEPT_DAYS = 30
# Many small arrays: a zip of them takes ten times as long to write and to read.
SUFFIX, _ZSTD_LEVEL = ".safetensors.zst", 1
_ROOT = Path(__file__).resolve().parents[2]
_SOURCES = ("models/*.py", "models/mamba2/**/*.py", "forecasting/backtests/*.py")


@dataclass(frozen=True)
class KeptParts:
    """The kept parts of one graph.

    Attributes:
        folder: where they are; made when the first is kept.
    """

    folder: Path

    def path(self, model: str, depends_on: dict[str, Any]) -> Path:
        """Return where a part is kept that depends on JSON values, the schema and the code."""
        all_of_it = [depends_on, METRIC_NAMES, QUANTILE_LEVELS, code_digest()]
        digest = hashlib.sha256(json.dumps(all_of_it, sort_keys=True).encode()).hexdigest()
        return self.folder / f"{model}-{digest[:32]}{SUFFIX}"

    def sweep(self) -> None:
        """Remove what was not used for `KEPT_DAYS`, and what a process that was killed left half-written."""
        now_s = time.time()
        for pattern, days in ((f"*{SUFFIX}", float(KEPT_DAYS)), (".*.part", 1.0)):
            for path in self.folder.glob(pattern):
                try:
                    if now_s - path.stat().st_mtime > days * 86_400:
                        path.unlink()
                except FileNotFoundError:
                    # Another backtest was faster.
                    continue


@cache
def code_digest() -> str:
    """Return a digest of the code that scores depend on, as hexadecimal digits."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in _SOURCES for path in _ROOT.glob(pattern)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def keep(path: Path, part: Part) -> None:
    """Write a part.

    Raises:
        GraphtideError: it cannot be written.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in part.arrays().items()}
    with whole_file(path) as temporary:
        temporary.write_bytes(zstandard.compress(save(arrays), _ZSTD_LEVEL))


def read(path: Path) -> Part | None:
    """Return a kept part; None if there is none, or none that can be read: it can be made again."""
    try:
        part = Part.of(load(zstandard.decompress(path.read_bytes())))
        path.touch()
    except (OSError, ValueError, KeyError, SafetensorError, zstandard.ZstdError):
        return None
    return part
