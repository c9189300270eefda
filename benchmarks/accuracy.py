"""Accuracy of the forecaster on a public log, beside the floors, as `graphtide backtest` measures it.

    python benchmarks/accuracy.py sx-mathoverflow

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


def main() -> None:
    """Measure the logs named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", nargs="+")
    for log in parser.parse_args().logs:
        text = json.dumps(measure(log), indent=1) + "\n"
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"accuracy_{log.lower()}.json").write_text(text)


if __name__ == "__main__":
    main()
