"""What a report of 36,500 steps and 18 metrics costs: the whole command, from the shell to the two files.

    python benchmarks/report.py              # five reports over a generated store of 56,000 snapshots
    python benchmarks/report.py --runs 3

Each report is made by a process of its own: wall time, processor time, peak memory, bytes of the page and of its data.
Two reports with one seed have to be equal but for their date. Printed, and kept in benchmarks/results/report.json.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

from hardware import hardware, versions

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stream.ingest import IngestOptions, ingest
from stream.simulation.config import HOURS_PER_YEAR, SimulationConfig
from stream.sources.simulate import SimulatedSource

RESULT = Path(__file__).parent / "results" / "report.json"
SNAPSHOTS, HORIZON = 56_000, 36_500
TOWN = SimulationConfig(years=SNAPSHOTS / HOURS_PER_YEAR, events_per_hour=4.0, initial_users=100, communities=8)
MOST_S, MOST_BYTES = 15.0, 5_000_000


@dataclass(frozen=True)
class Run:
    """One report: seconds of the wall and of all processors, peak memory in MiB, and its files."""

    wall_s: float
    cpu_s: float
    peak_mib: float
    page: bytes
    bundle: Path


def make_report(folder: Path, store: str, name: str) -> Run:
    """Make one report in a process of its own that has never made one."""
    page = folder / f"{name}.html"
    call = [sys.executable, "-c", "from forecasting.cli import main; main()", "report", "town"]
    call += ["--horizon", str(HORIZON), "--store", store, "--output", str(page)]
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("GRAPHTIDE_")},
        "GRAPHTIDE_API__SERVICE_DB": str(folder / f"{name}.db"),
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
    }
    begin_s = time.perf_counter()
    process = os.posix_spawn(sys.executable, call, environment)
    _, status, used = os.wait4(process, 0)
    wall_s = time.perf_counter() - begin_s
    if status:
        raise SystemExit(f"graphtide report ended with {os.waitstatus_to_exitcode(status)}")
    return Run(
        wall_s, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, page.read_bytes(), page.with_suffix(".zip")
    )


def undated(run: Run) -> tuple[bytes, dict[str, object]]:
    """Return the page and the facts of a report without its date."""
    with zipfile.ZipFile(run.bundle) as archive:
        facts = json.loads(archive.read("report.json"))
    made = str(facts.pop("made"))
    return run.page.replace(made.encode(), b"").replace(made[:10].encode(), b""), facts


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5, help="reports made, at least 2")
    runs = max(2, parser.parse_args().runs)
    load = hardware()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        store = f"sqlite:///{folder / 'store.db'}"
        ingest(SimulatedSource(TOWN, graph="town"), store, IngestOptions())
        made = [make_report(folder, store, f"run{number}") for number in range(runs)]
        first = undated(made[0])
        are_equal = all(undated(run) == first for run in made[1:])
        sizes = {"page": len(made[0].page), "data": made[0].bundle.stat().st_size}
    wall_s = statistics.median(run.wall_s for run in made)
    rows = [
        {"case": "wall", "value": round(wall_s, 2), "unit": "s", "least": round(min(r.wall_s for r in made), 2)},
        {"case": "cpu", "value": round(statistics.median(r.cpu_s for r in made), 2), "unit": "s"},
        {"case": "peak-memory", "value": round(statistics.median(r.peak_mib for r in made)), "unit": "MiB"},
        *({"case": f"bytes-{name}", "value": size, "unit": "B"} for name, size in sizes.items()),
    ]
    ratios = [
        {"case": "wall", "ratio": round(MOST_S / wall_s, 2), "target": 1.0, "met": wall_s <= MOST_S},
        *(
            {"case": f"bytes-{name}", "ratio": round(MOST_BYTES / size, 2), "target": 1.0, "met": size <= MOST_BYTES}
            for name, size in sizes.items()
        ),
        {"case": "equal-but-for-the-date", "ratio": float(are_equal), "target": 1.0, "met": are_equal},
    ]
    report = {
        "bench": "report",
        "command": "python benchmarks/report.py",
        "snapshots": SNAPSHOTS,
        "horizon": HORIZON,
        "runs": runs,
        "hardware": load,
        "versions": versions("graphtide", "torch", "numpy", "bokeh", "pyarrow"),
        "rows": [{"system": "graphtide", **row} for row in rows],
        "ratios": [{"peer": "guide", **ratio} for ratio in ratios],
    }
    text = json.dumps(report, indent=1) + "\n"
    RESULT.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
