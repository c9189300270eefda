"""How much faster two Ray workers backtest 200 small graphs than one does.

    python benchmarks/ray_scaling.py [--graphs 200] [--rounds 2]

The graphs are generated; models are trained before the clock starts, and of a round each number of workers goes first
in turn. A cluster is started before the clock too, and its workers have run a task. The result is printed as JSON and
kept in benchmarks/results/ray_scaling.json. Some minutes, on at least two idle cores.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from hardware import hardware, versions

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


from forecasting.evaluation import evaluate
from forecasting.history import read_history
from forecasting.scaleout.backtests import RayEngine
from forecasting.scaleout.cluster import connected
from forecasting.scaleout.source import Source
from infra.settings import RaySettings, Settings
from models.contract import History
from stream.ingest import IngestOptions, ingest
from stream.simulation.config import SimulationConfig
from stream.sources.simulate import SimulatedSource
from stream.store import open_reader

RESULT = Path(__file__).parent / "results" / "ray_scaling.json"
TARGET = 0.85
WORKERS = (1, 2)


def fill(url: str, graphs: int) -> None:
    for seed in range(graphs):
        config = SimulationConfig(years=0.25, events_per_hour=1.0, initial_users=40, communities=4, seed=seed)
        ingest(SimulatedSource(config, graph=f"g{seed:03d}"), url, IngestOptions())


def settings_of(url: str, folder: Path) -> Settings:
    return Settings(
        store={"url": url},  # type: ignore[arg-type]
        models={"directory": folder},  # type: ignore[arg-type]
        training={"max_iterations": 1, "budget_s": 600, "tokens_per_batch": 64},  # type: ignore[arg-type]
        backtest={"horizons": (1, 24), "origins": 6, "floors": ("simple",)},  # type: ignore[arg-type]
    )


def timed(workers: int, settings: Settings, histories: dict[str, History]) -> float:
    """Return seconds of a backtest whose parts are not kept yet."""
    shutil.rmtree(settings.models.directory / ".backtest" / ".parts", ignore_errors=True)
    with connected(RaySettings(workers=workers)) as cluster:
        engine = RayEngine(cluster, Source.of(settings), lambda done, total: None)
        # Workers that run import everything; a cluster that lives on has paid that.
        cluster.each(_wait, range(2 * workers), lambda item, result: None, named=str)
        begin_s = time.perf_counter()
        evaluate(histories, settings, engine=engine)
        return time.perf_counter() - begin_s


def _wait(_item: int) -> None:
    time.sleep(1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--graphs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    before = hardware()
    times: dict[int, list[float]] = {workers: [] for workers in WORKERS}
    with tempfile.TemporaryDirectory() as name:
        url = f"sqlite:///{Path(name) / 'store.db'}"
        fill(url, given.graphs)
        settings = settings_of(url, Path(name) / "models")
        with open_reader(url) as reader:
            histories = {info.name: read_history(reader, info.name) for info in reader.graphs()}
        timed(2, settings, histories)
        for number in range(given.rounds):
            for workers in WORKERS if number % 2 == 0 else reversed(WORKERS):
                times[workers].append(timed(workers, settings, histories))
    one, two = (statistics.median(times[workers]) for workers in WORKERS)
    rows = [(f"workers-{workers}", statistics.median(times[workers]), "s") for workers in WORKERS]
    rows.append(("efficiency", one / (2 * two), "of linear, target 0.85"))
    report = {
        "bench": "ray_scaling",
        "command": f"python benchmarks/ray_scaling.py --graphs {given.graphs} --rounds {given.rounds}",
        "hardware": before,
        "versions": versions("torch", "numpy", "ray"),
        "graphs": given.graphs,
        "target": TARGET,
        "met": one / (2 * two) >= TARGET,
        "times_s": {str(workers): [round(value, 2) for value in times[workers]] for workers in WORKERS},
        "rows": [{"case": case, "system": "graphtide", "value": round(v, 4), "unit": unit} for case, v, unit in rows],
    }
    text = json.dumps(report, indent=2) + "\n"
    RESULT.write_text(text, encoding="utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
