"""`python -m tests.soak`: the fault run by hand. Exit code 1 where something does not hold."""

import argparse
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.soak.run import run

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="of load")
    parser.add_argument("--seed", type=int, default=1, help="of all draws")
    parser.add_argument("--malformed", type=int, default=10_000, help="malformed requests in all")
    parser.add_argument("--output", type=Path, help="write the summary to this file too")
    given = parser.parse_args()
    with TemporaryDirectory(prefix="graphtide-soak-") as folder:
        found = run(Path(folder), seconds=60 * given.minutes, seed=given.seed, malformed=given.malformed)
    text = json.dumps(
        {"command": f"python -m tests.soak --minutes {given.minutes:g} --seed {given.seed}", **found}, indent=2
    )
    sys.stdout.write(text + "\n")
    if given.output:
        given.output.write_text(text + "\n", encoding="utf-8")
    sys.exit(int(bool(found["violations"])))
