"""What one graph, one step and one event cost: the rates that docs/capacity.md is computed from.

    python benchmarks/capacity.py
    python benchmarks/capacity_table.py

A simulated network is ingested into SQLite, encoded and forecast, all on one thread of this machine; times are CPU
time. The result is printed as JSON and kept in benchmarks/results/capacity.json. Half a minute.
"""

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hardware import hardware, versions

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from forecasting.live import LiveStates
from infra.steps import HOUR_US
from models.contract import BLOCK_STEPS, FloatArray, Model
from stream.ingest import IngestOptions, ingest
from stream.simulation.config import SimulationConfig
from stream.sources.simulate import SimulatedSource
from stream.store import open_reader

RESULT = Path(__file__).parent / "results" / "capacity.json"
# The same two months by the hour, at a few and at many events an hour: the difference is the cost of events alone.
BUSY, QUIET = 400.0, 2.0
YEARS = 0.16
HORIZON = 168
REPEATS = 5
STATES = 24


def cpu_s(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return seconds of CPU, and what came of it."""
    begin_s = time.process_time()
    result = work()
    return time.process_time() - begin_s, result


def resident_bytes() -> int:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * resource.getpagesize()


def ingested(folder: Path, events_per_hour: float) -> dict[str, float]:
    path = folder / f"{events_per_hour:g}.db"
    source = SimulatedSource(SimulationConfig(years=YEARS, events_per_hour=events_per_hour), graph="g")
    cost_s, _ = cpu_s(lambda: ingest(source, f"sqlite:///{path}", IngestOptions()))
    with open_reader(f"sqlite:///{path}") as reader:
        info = reader.graph("g")
    size = sum(part.stat().st_size for part in folder.glob(f"{path.name}*"))
    return {"cpu_s": cost_s, "events": info.events, "snapshots": info.snapshots, "bytes": size}


def forecast_costs(url: str) -> dict[str, float]:
    """Return seconds to advance a state by a step and to forecast, and bytes of a state."""
    with LiveStates(lambda: open_reader(url), Path("none"), max_graphs=1) as states:
        live = states.state_of("g")
        with open_reader(url) as reader:
            values = reader.snapshots("g").values
        list(live.model.rollout(live.state, HORIZON))
        step_s, _ = cpu_s(lambda: advance(live.model, values))
        roll_s, _ = cpu_s(lambda: [list(live.model.rollout(live.state, HORIZON)) for _ in range(REPEATS)])
        before = resident_bytes()
        kept = [live.model.update(live.model.start(HOUR_US, n * HOUR_US), values[:512]) for n in range(STATES)]
        grown = max(0, resident_bytes() - before) / len(kept)
    return {"step_s": step_s / BLOCK_STEPS, "forecast_s": roll_s / REPEATS, "state_bytes": grown}


def advance(model: Model[Any], values: FloatArray) -> None:
    """Follow a graph for a block of steps as a service does, which replays one to two blocks a step."""
    base = model.update(model.start(HOUR_US, 0), values[: 2 * BLOCK_STEPS])
    state = model.update(base, values[2 * BLOCK_STEPS : 3 * BLOCK_STEPS])
    for end in range(3 * BLOCK_STEPS + 1, 4 * BLOCK_STEPS + 1):
        state = model.update(base, values[2 * BLOCK_STEPS : end], earlier=state)


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        quiet, busy = ingested(folder, QUIET), ingested(folder, BUSY)
        costs = forecast_costs(f"sqlite:///{folder / f'{QUIET:g}.db'}")
    events = busy["events"] - quiet["events"]
    per_event_s = (busy["cpu_s"] - quiet["cpu_s"]) / events
    per_event_bytes = (busy["bytes"] - quiet["bytes"]) / events
    rows = [
        ("event", per_event_s * 1e6, "us of CPU an event"),
        ("event-bytes", per_event_bytes, "bytes of the store an event"),
        ("snapshot", (quiet["cpu_s"] - quiet["events"] * per_event_s) / quiet["snapshots"] * 1e6, "us of CPU a step"),
        ("snapshot-bytes", (quiet["bytes"] - quiet["events"] * per_event_bytes) / quiet["snapshots"], "bytes a step"),
        ("advance", costs["step_s"] * 1e6, "us of CPU a step"),
        (f"forecast-{HORIZON}", costs["forecast_s"] * 1e6, "us of CPU a forecast"),
        ("state-bytes", costs["state_bytes"], "bytes of memory a graph"),
        ("process-bytes", resident_bytes(), "bytes of memory a process"),
    ]
    report = {
        "bench": "capacity",
        "command": "python benchmarks/capacity.py",
        "hardware": hardware(),
        "versions": versions("torch", "numpy"),
        "rows": [
            {"case": case, "system": "graphtide", "value": round(max(0.0, value), 3), "unit": unit}
            for case, value, unit in rows
        ],
    }
    text = json.dumps(report, indent=2) + "\n"
    RESULT.write_text(text, encoding="utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
