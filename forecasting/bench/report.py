"""The result of a benchmark: one JSON object of fixed shape, the same for every benchmark. Standard library only."""

import os
import platform
from dataclasses import asdict, dataclass, field
from typing import Any

from forecasting.bench.processor import processor
from infra.cores import allowed_cores


@dataclass(frozen=True, slots=True)
class Row:
    """One figure.

    Attributes:
        case, system: what was measured of whom.
        value: the least disturbed measurement of a time, the median of others.
        unit: of the value; of those `a/s` more is better, of all others less.
        median: the usual measurement; None where there is but one.
        windows: measurements taken.
    """

    case: str
    system: str
    value: float
    unit: str
    median: float | None = None
    windows: int = 1


@dataclass(frozen=True, slots=True)
class Ratio:
    """How a peer compares: above 1 we are ahead. `met` is None where no target is set."""

    case: str
    peer: str
    ratio: float
    target: float | None
    met: bool | None


@dataclass(frozen=True, slots=True)
class Missing:
    """What was not measured, and why."""

    case: str
    system: str
    reason: str


@dataclass(slots=True)
class Report:
    """A benchmark's result.

    Attributes:
        bench: its name.
        command: how to run it again.
        rows, ratios, missing: what was found.
        versions: of what the figures depend on.
    """

    bench: str
    command: str
    rows: list[Row] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    hardware: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Fill in the machine."""
        self.versions["python"] = platform.python_version()
        self.hardware |= hardware()

    def add(self, row: Row) -> None:
        """Append a row, its figures rounded to what a clock can tell."""
        usual = None if row.median is None else float(f"{row.median:.5g}")
        self.rows.append(Row(row.case, row.system, float(f"{row.value:.5g}"), row.unit, usual, row.windows))

    def compare(self, case: str, peer: str, target: float | None) -> None:
        """Append how far our figure is ahead of a peer's, if both are there."""
        rows = {row.system: row for row in self.rows if row.case == case}
        ours = rows.get("graphtide")
        if peer in rows and ours is not None:
            less, more = ours.value, rows[peer].value
            if ours.unit.endswith("/s"):
                less, more = more, less
            ratio = float(f"{more / less:.4g}")
            self.ratios.append(Ratio(case, peer, ratio, target, None if target is None else ratio >= target))

    def as_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        return {
            "bench": self.bench,
            "command": self.command,
            "hardware": self.hardware,
            "versions": self.versions,
            "rows": [asdict(row) for row in self.rows],
            "ratios": [asdict(ratio) for ratio in self.ratios],
            "missing": [asdict(missing) for missing in self.missing],
        }


def hardware() -> dict[str, Any]:
    """Return what this machine is, as far as figures depend on it."""
    cpu = processor()
    watched = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "asimd", "sve")
    return {
        "cpu": cpu.model,
        "generation": cpu.generation,
        "cores": allowed_cores(),
        "features": [name for name in watched if name in cpu.flags],
        "load_1min": round(os.getloadavg()[0], 2),
        "threads": 1,
    }
