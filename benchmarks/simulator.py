"""Many seeds of the fault simulator: that none fails, how long they take, and which seed finds each planted bug first.

    python benchmarks/simulator.py [--seeds 0:10000] [--processes 2] [--bug-seeds 500] [--output FILE]

Prints a JSON object and keeps it in benchmarks/results/simulator.json. Exit code 1 where a seed fails or a bug is not
found. Needs the package with the extra `test`.
"""

import argparse
import json
import os
import sys
from contextlib import closing
from pathlib import Path

from hardware import hardware, versions

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.simulator.batch import outcomes
from tests.simulator.bugs import BUGS, FOUND_BY
from tests.simulator.tally import Tally

RESULT = Path(__file__).parent / "results" / "simulator.json"
TARGET_S = 600.0
SYSTEM = "graphtide"


def first_seed(bug: str, seeds: range, processes: int) -> int | None:
    """Return the first seed whose run finds a planted bug."""
    with closing(outcomes(seeds, processes=processes, bug=bug)) as found:
        return next((each.seed for each in found if (each.problem or "").startswith(FOUND_BY)), None)


def main() -> int:
    """Return 0 where every run came to what it must and every bug was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0:10000", help="FIRST:END, without END itself (default %(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="how many to use (default %(default)s)")
    parser.add_argument("--bug-seeds", type=int, default=500, help="seeds to find each bug with, 0 for none")
    parser.add_argument("--output", type=Path, default=RESULT)
    given = parser.parse_args()
    first, end = map(int, given.seeds.split(":"))
    about: dict[str, object] = {
        "bench": "simulator",
        "command": f"python benchmarks/simulator.py --seeds {given.seeds} --processes {given.processes}",
        "hardware": hardware(),
        "versions": versions("graphtide", "greenlet", "numpy"),
    }
    tally, before = Tally(), os.times()
    for outcome in outcomes(range(first, end), processes=given.processes):
        tally.add(outcome)
        if outcome.problem is not None:
            print(f"seed {outcome.seed}: {outcome.problem}\n    {outcome.replay}", file=sys.stderr, flush=True)
    seconds, after = tally.seconds, os.times()
    # Workers that have ended are children; without any, the runs were this process's own.
    cpu_s = sum(after[:4]) - sum(before[:4])
    rows = [
        ("runs", tally.runs, "runs"),
        ("runs that fail", tally.failed, "runs"),
        ("time", round(seconds, 1), "s"),
        ("processor time of a run", round(1000 * cpu_s / tally.runs, 1), "ms"),
        ("records", tally.records, "records"),
        ("fewest records of a run", tally.fewest_records, "records"),
        ("commits", tally.commits, "commits"),
        ("faults", tally.faults.total(), "faults"),
        ("fewest faults of a run", tally.fewest_faults, "faults"),
        *((f"faults: {kind}", count, "faults") for kind, count in sorted(tally.faults.items())),
    ]
    found = {bug: first_seed(bug, range(given.bug_seeds), given.processes) for bug in sorted(BUGS) if given.bug_seeds}
    rows += [(f"seeds to find {bug}", at + 1, "seeds") for bug, at in found.items() if at is not None]
    missing = [
        {"case": f"seeds to find {bug}", "system": SYSTEM, "reason": f"none of {given.bug_seeds} seeds finds it"}
        for bug, at in found.items()
        if at is None
    ]
    report = about | {
        "rows": [{"case": case, "system": SYSTEM, "value": value, "unit": unit} for case, value, unit in rows],
        "ratios": [
            {"case": "time", "peer": SYSTEM, "ratio": TARGET_S / seconds, "target": 1.0, "met": seconds <= TARGET_S}
        ]
        if tally.runs == 10_000
        else [],
        "missing": missing,
    }
    text = json.dumps(report, indent=2) + "\n"
    sys.stdout.write(text)
    given.output.write_text(text, encoding="utf-8")
    return int(bool(tally.failed or missing))


if __name__ == "__main__":
    sys.exit(main())
