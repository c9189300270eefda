"""The forecast service against LitServe, BentoML and Ray Serve, in one interleaved run on this machine.

    python benchmarks/api.py [--budget SECONDS] [--only CASE] [--output FILE] [--chart FILE.html]

Needs the package with the extra `bench`; peers are installed into environments of their own under
~/.cache/graphtide/bench. `graphtide bench api` runs the same.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from forecasting.bench.api import measure
from forecasting.bench.script import main

if __name__ == "__main__":
    main(measure, __doc__, selects=True)
