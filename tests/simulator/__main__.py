"""Run seeds: `python -m tests.simulator --seeds 0:500`, or one with its trace: `--seed 1234 --trace`."""

import argparse
import sys
from collections.abc import Sequence

from tests.simulator.batch import outcomes
from tests.simulator.bugs import BUGS
from tests.simulator.tally import Tally


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line says; return 1 where a seed failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulator", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", default="0:500", help="FIRST:END, without END itself (default %(default)s)")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--trace", action="store_true", help="show what happened")
    parser.add_argument("--processes", type=int, default=2, help="how many to use (default %(default)s)")
    parser.add_argument("--bug", choices=sorted(BUGS), help="plant a bug first")
    parser.add_argument("--stop", action="store_true", help="stop at the first seed that fails")
    given = parser.parse_args(arguments)
    first, end = (given.seed, given.seed + 1) if given.seed is not None else map(int, given.seeds.split(":"))
    tally = Tally()
    for outcome in outcomes(range(first, end), processes=given.processes, bug=given.bug):
        tally.add(outcome)
        if given.trace:
            print(*outcome.trace, f"trace {outcome.digest}", sep="\n")
        if outcome.problem is not None:
            print(f"seed {outcome.seed}: {outcome.problem}\n    {outcome.replay}", flush=True)
            if given.stop:
                break
    print(tally.text())
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
