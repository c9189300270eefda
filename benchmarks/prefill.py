"""Seconds for a history of 36,500 steps at once, against peers in one run.

    python benchmarks/prefill.py [--budget SECONDS] [--output FILE] [--chart FILE.html]

Needs what benchmarks/rollout.py needs. `graphtide bench prefill` runs the same.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from forecasting.bench.prefill import measure
from forecasting.bench.script import main

if __name__ == "__main__":
    main(measure, __doc__, selects=False)
