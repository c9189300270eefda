"""Microseconds a step of an autoregressive rollout, against peers and the floor of this machine in one run.

    python benchmarks/rollout.py [--budget SECONDS] [--only CASE] [--output FILE] [--chart FILE.html]

Needs torch and numpy (and the compiled kernels: `pip install -e .`); peers are installed into environments of their
own under ~/.cache/graphtide/bench. `graphtide bench rollout` runs the same.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from forecasting.bench.rollout import measure
from forecasting.bench.script import main

if __name__ == "__main__":
    main(measure, __doc__, selects=True)
