"""Accuracy of the forecaster on a public log, beside the floors, as `graphtide backtest` measures it.

    python benchmarks/accuracy.py sx-mathoverflow wiki-elec     # measure
    python benchmarks/accuracy.py                               # print the table of the README from what was measured

The log is found as `graphtide datasets` finds it (GRAPHTIDE_DATA_DIR). Everything runs in a folder of its own with the
default settings, as a user would run it: ingest, then backtest, which trains on the steps before the first origin.
What the backtest prints is kept in benchmarks/results/accuracy_<log>.json with command, hardware and versions.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from hardware import hardware, versions

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from infra.schema import METRIC_INDEX, METRICS

AGAINST = ("seasonal_naive", "best_floor")
RESULTS = Path(__file__).parent / "results"


def graphtide(*arguments: str, folder: str) -> str:
    """Run a command of the project and return what it prints."""
    call = [sys.executable, "-c", "from forecasting.cli import main; main()", *arguments]
    return subprocess.run(call, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout


def measure(log: str) -> dict[str, object]:
    """Return the scores of one public log."""
    machine = hardware()
    with tempfile.TemporaryDirectory() as folder:
        path = graphtide("datasets", "path", log, folder=folder).strip()
        graphtide("ingest", path, "--graph", log.lower(), folder=folder)
        scores = json.loads(graphtide("backtest", log.lower(), "--json", folder=folder))
    return {
        "bench": "accuracy",
        "command": f"python benchmarks/accuracy.py {log}",
        "hardware": machine,
        "versions": versions("graphtide", "torch", "numpy"),
        **scores,
    }


def table() -> str:
    """Return the geometric means over all count metrics of every result file, as a Markdown table."""
    lines = [
        "| log | steps ahead | MASE | best floor | WQL | best floor | in 80 % | in 95 % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for path in sorted(RESULTS.glob("accuracy_*.json")):
        found = json.loads(path.read_text())
        ratios = {
            (r["bucket"], r["score"], r["against"]): r["ratio"] for r in found["ratios"] if r["model"] == "mamba2"
        }
        for horizon in found["protocol"]["horizons"]:
            bucket = "1" if horizon == 1 else f"1-{horizon}"
            cells = [f"{ratios[bucket, score, against]:.3f}" for score in ("mase", "wql") for against in AGAINST]
            rows = [
                row
                for row in found["rows"]
                if (row["model"], row["bucket"]) == ("mamba2", bucket)
                and METRICS[METRIC_INDEX[row["metric"]]].kind == "count"
            ]
            inside = [f"{sum(row[f'coverage_{share}'] for row in rows) / len(rows):.0%}" for share in (80, 95)]
            lines.append(f"| {found['graph']} | {bucket} | {' | '.join(cells + inside)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure the logs named on the command line, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", nargs="*")
    for log in parser.parse_args().logs:
        text = json.dumps(measure(log), indent=1) + "\n"
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"accuracy_{log.lower()}.json").write_text(text)
    print(table())


if __name__ == "__main__":
    main()
