"""Observed steps that training gets through a second, in one process and in several of `torchrun`, on this machine.

    python benchmarks/training_scaling.py [--processes 2] [--rounds 3] [--iterations 40]

`graphtide train` learns a simulated network of a quarter of a year, from the same start and with the same seed, one
thread a process, in turns; each card says how many steps a second went through all of its processes together. Medians
over the rounds, printed as JSON and kept in benchmarks/results/training_scaling.json. The efficiency of p processes is
their rate over p times that of one.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from hardware import hardware, versions

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stream.ingest import IngestOptions, ingest
from stream.simulation.config import SimulationConfig
from stream.sources.simulate import SimulatedSource

RESULT = Path(__file__).parent / "results" / "training_scaling.json"
GRAPH = "town"
_MAIN = [sys.executable, "-c", "from forecasting.cli import main; main()"]
_TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--no-python", "--nproc-per-node"]


def trained(store: str, processes: int, iterations: int) -> dict:
    """Train in a folder of its own and return the card."""
    command = [*_MAIN, "train", GRAPH, "--store", store, "--iterations", str(iterations), "--json"]
    if processes > 1:
        command = [*_TORCHRUN, str(processes), *command, "--distributed"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    with tempfile.TemporaryDirectory() as folder:
        environment["GRAPHTIDE_MODELS__DIRECTORY"] = folder
        # No end but that of the iterations.
        environment |= {"GRAPHTIDE_TRAINING__BUDGET_S": "100000", "GRAPHTIDE_TRAINING__PATIENCE": "1000"}
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    (line,) = [line for line in said.splitlines() if line.startswith("[")]
    (card,) = json.loads(line)
    return card


def main() -> None:
    """Measure and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=40)
    given = parser.parse_args()
    rates: dict[int, list[float]] = {1: [], given.processes: []}
    with tempfile.TemporaryDirectory() as folder:
        store = f"sqlite:///{folder}/store.db"
        network = SimulationConfig(years=0.25, events_per_hour=8.0, initial_users=80, communities=4)
        ingest(SimulatedSource(network, graph=GRAPH), store, IngestOptions())
        for turn in range(given.rounds):
            for processes, found in rates.items():
                scores = trained(store, processes, given.iterations)["scores"]
                if scores["workers"] != processes:
                    raise SystemExit(f"{scores['workers']} processes trained, not {processes}")
                found.append(scores["tokens_per_s"])
                print(f"{turn + 1}/{given.rounds}: {processes} processes: {found[-1]:,} steps/s", file=sys.stderr)
    rows = [
        {"case": "train", "system": f"{processes} processes", "value": median(found), "unit": "steps/s", "runs": found}
        for processes, found in rates.items()
    ]
    speedup = median(rates[given.processes]) / median(rates[1])
    report = {
        "bench": "training_scaling",
        "command": " ".join(["python", "benchmarks/training_scaling.py", *sys.argv[1:]]),
        "hardware": hardware(),
        "versions": versions("graphtide", "torch", "numpy"),
        "rows": rows,
        "ratios": [{"case": "train", "peer": "1 process", "ratio": speedup, "efficiency": speedup / given.processes}],
    }
    text = json.dumps(report, indent=1) + "\n"
    RESULT.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
