"""The tables of the benchmarks' page are those of the results."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_tables_are_written_from_the_results() -> None:
    checked = subprocess.run([sys.executable, ROOT / "benchmarks" / "write_tables.py", "--check"], check=False)
    assert checked.returncode == 0, "run: python benchmarks/write_tables.py"


def test_results_name_how_they_were_measured() -> None:
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        report = json.loads(path.read_text())
        assert "python benchmarks/" in report["command"] or "graphtide bench " in report["command"], path.name
        assert {"cpu", "cores"} <= report["hardware"].keys(), path.name
        assert "python" in report["versions"], path.name
        # Speed has values with a unit; accuracy has scores by metric and model or their ratios, an ablation trainings.
        measured = {"accuracy": "mase", "accuracy_steps": "ratio", "ablation": "training_s"}.get(
            report["bench"], "value"
        )
        for row in report.get("rows", []):
            assert row[measured] is None or row[measured] >= 0, (path.name, row)
