"""The benchmarks as scripts, for machines with nothing but torch and numpy."""

import argparse
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from forecasting.bench.processes import PeerError
from forecasting.bench.report import Report

DEFAULT_BUDGET_S = 30.0


def say(text: str) -> None:
    """Tell what is going on, on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def main(measure: Callable[..., Report], description: str, *, selects: bool) -> None:
    """Read the arguments, measure, and print the report as JSON.

    Args:
        measure: `rollout.measure` or `prefill.measure`.
        description: what the script is for.
        selects: whether `measure` takes `only`.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--budget", type=float, default=DEFAULT_BUDGET_S, help="seconds of rounds for each group")
    parser.add_argument("--output", type=Path, help="also write the report to this file")
    parser.add_argument("--chart", type=Path, help="also draw the report to this HTML file; needs Bokeh")
    if selects:
        parser.add_argument("--only", default="", metavar="TEXT", help="only groups with TEXT in the name of a case")
    given = parser.parse_args()
    chosen = {"only": given.only} if selects else {}
    words = ["python", f"benchmarks/{Path(sys.argv[0]).name}", "--budget", f"{given.budget:g}"]
    command = shlex.join([*words, *(["--only", given.only] if selects and given.only else [])])
    try:
        report = measure(command=command, budget_s=given.budget, say=say, **chosen)
    except PeerError as error:
        sys.exit(f"{error}")
    text = json.dumps(report.as_json(), indent=2) + "\n"
    sys.stdout.write(text)
    if given.output:
        given.output.write_text(text, encoding="utf-8")
    if given.chart:
        from forecasting.bench.chart import write_chart  # noqa: PLC0415 - needs Bokeh

        write_chart(report, given.chart)
