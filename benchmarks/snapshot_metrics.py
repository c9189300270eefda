"""Speed of the step metrics against NetworkX in the same process.

    python benchmarks/snapshot_metrics.py [--output FILE]

Two shapes bound what a log can look like: years by the hour (56,410 steps of 9 edges) and one step of a large network
(100,000 edges with hubs). NetworkX computes the same fields; of the small steps it gets the first 1,000, and rates are
compared. The result is printed as JSON and kept in benchmarks/results/snapshot_metrics.json.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import networkx as nx
import numpy as np
from hardware import hardware, versions

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stream.snapshots import step_metrics

N_STEPS, EDGES_PER_STEP, NETWORKX_STEPS = 56_410, 9, 1_000
LARGE_NODES, LARGE_EDGES = 30_000, 100_000
REPEATS = 5
TARGET_RATIO = 10.0


def networkx_metrics(src: np.ndarray, dst: np.ndarray) -> tuple[float, ...]:
    """Compute the same fields of one step with NetworkX."""
    directed = nx.DiGraph(zip(src.tolist(), dst.tolist(), strict=True))
    simple = directed.copy()
    simple.remove_edges_from(list(nx.selfloop_edges(directed)))
    undirected = simple.to_undirected()
    components = [len(part) for part in nx.weakly_connected_components(simple)]
    ginis = []
    for degrees in (simple.in_degree(), simple.out_degree()):
        x = sorted(degree for _, degree in degrees)
        n, total = len(x), sum(x)
        ginis.append(sum((2 * i - n - 1) * value for i, value in enumerate(x, 1)) / (n * total) if total else 0.0)
    return (
        directed.number_of_nodes(),
        directed.number_of_edges(),
        nx.overall_reciprocity(simple) if simple.number_of_edges() else 0.0,
        max(degree for _, degree in simple.in_degree()),
        max(degree for _, degree in simple.out_degree()),
        *ginis,
        len(components),
        max(components) / directed.number_of_nodes(),
        sum(nx.triangles(undirected).values()) // 3,
        nx.transitivity(undirected),
        max(nx.core_number(undirected).values()),
    )


def median_s(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Return the median wall time of `work` in seconds, after one run to warm up."""
    work()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return float(np.median(times))


def measure() -> dict[str, dict[str, float]]:
    """Return steps per second by case and system."""
    rng = np.random.default_rng(20)
    n_rows = N_STEPS * EDGES_PER_STEP
    step = np.repeat(np.arange(N_STEPS), EDGES_PER_STEP)
    small_src, small_dst = (8 * rng.random((2, n_rows)) ** 1.5).astype(np.int64)
    large_src, large_dst = (LARGE_NODES * rng.random((2, LARGE_EDGES)) ** 3).astype(np.int64)
    ones = np.ones(n_rows, dtype=np.int64)
    large_ones = np.ones(LARGE_EDGES, dtype=np.int64)

    def small_networkx() -> None:
        for begin in range(0, NETWORKX_STEPS * EDGES_PER_STEP, EDGES_PER_STEP):
            rows = slice(begin, begin + EDGES_PER_STEP)
            networkx_metrics(small_src[rows], small_dst[rows])

    return {
        "small-steps": {
            "graphtide": N_STEPS / median_s(lambda: step_metrics(step, small_src, small_dst, ones, N_STEPS)),
            "networkx": NETWORKX_STEPS / median_s(small_networkx, repeats=3),
        },
        "large-step": {
            "graphtide": 1 / median_s(lambda: step_metrics(large_ones * 0, large_src, large_dst, large_ones, 1)),
            "networkx": 1 / median_s(lambda: networkx_metrics(large_src, large_dst), repeats=3),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the step metrics against NetworkX.")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "snapshot_metrics.json")
    output: Path = parser.parse_args().output
    machine = hardware()
    threads = os.environ.get("OMP_NUM_THREADS")
    command = f"{f'OMP_NUM_THREADS={threads} ' if threads else ''}python benchmarks/snapshot_metrics.py"
    cases = measure()
    report = {
        "bench": "snapshot_metrics",
        "command": command,
        "hardware": machine,
        "versions": versions("numpy", "scipy", "rustworkx", "networkx"),
        "rows": [
            {"case": case, "system": system, "value": round(rate, 3), "unit": "steps/s"}
            for case, systems in cases.items()
            for system, rate in systems.items()
        ],
        "ratios": [
            {
                "case": case,
                "peer": "networkx",
                "ratio": round(systems["graphtide"] / systems["networkx"], 2),
                "target": TARGET_RATIO,
                "met": systems["graphtide"] / systems["networkx"] >= TARGET_RATIO,
            }
            for case, systems in cases.items()
        ],
    }
    text = json.dumps(report, indent=2)
    print(text)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text + "\n")


if __name__ == "__main__":
    main()
