"""Microseconds a step of an autoregressive rollout, against peers and the floor of this machine in one run.

    python benchmarks/rollout.py [--budget SECONDS] [--only CASE] [--output FILE] [--chart FILE.html]

Needs torch and numpy (and the compiled kernels: `pip install -e .`); peers are installed into environments of their
own under ~/.cache/graphtide/bench. `graphtide bench rollout` runs the same.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from forecasting.bench.report import Report
from forecasting.bench.rollout import measure
from forecasting.bench.script import main


def measure_chosen(*, only: str, **options: Any) -> Report:
    """Run the benchmark; a choice of no case is a wrong call, and no report of nothing."""
    report = measure(only=only, **options)
    if not report.rows:
        sys.stderr.write(f"--only {only!r} names no case\n  fix: leave it out to see all cases\n")
        sys.exit(2)
    return report


if __name__ == "__main__":
    main(measure_chosen, __doc__, selects=True)
