"""The forecast service under mixed load while InfluxDB, Redis, its processes and its disk fail: what must hold, held.

    python benchmarks/faults.py [--minutes N] [--seed N] [--malformed N] [--output FILE]

Exit code 1 where something does not hold; `violations` of the summary says what. Needs the package with the extra
`test` and what .ci/servers installs; the full disk needs the right to mount a file system.
"""

import argparse
import json
import platform
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.soak.run import run
from tests.soak.summary import rows_of

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="of load")
    parser.add_argument("--seed", type=int, default=1, help="of all draws")
    parser.add_argument("--malformed", type=int, default=10_000, help="malformed requests in all")
    parser.add_argument("--output", type=Path, help="write the summary to this file too")
    given = parser.parse_args()
    with TemporaryDirectory(prefix="graphtide-faults-") as folder:
        found = run(Path(folder), seconds=60 * given.minutes, seed=given.seed, malformed=given.malformed)
    command = f"python benchmarks/faults.py --minutes {given.minutes:g} --seed {given.seed}"
    summary = {
        "bench": "service_faults",
        "command": command,
        "versions": {"python": platform.python_version()},
        "rows": rows_of(found),
        **found,
    }
    text = json.dumps(summary, indent=2) + "\n"
    sys.stdout.write(text)
    if given.output:
        given.output.write_text(text, encoding="utf-8")
    sys.exit(int(bool(found["violations"])))
