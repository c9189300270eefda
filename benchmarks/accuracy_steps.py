"""Accuracy of the general model at steps other than the hour, on the same test parts of the public logs.

    python benchmarks/accuracy_steps.py [STEP …]      # measure: 15m 6h 1d if none is named
    python benchmarks/accuracy_steps.py --table       # print the tables of what was measured

Up to 24 windows of a week (by the day, of four) are spread over the test part without overlap; where that is shorter,
one window as long as it is. Only whole steps count. The result is kept in benchmarks/results/accuracy_steps.json.
"""

import argparse
import json
import math
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from accuracy import MAX_ORIGINS, Test
from hardware import hardware, versions

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from forecasting.backtest import backtest
from forecasting.backtests.plan import spread_windows
from forecasting.backtests.ratios import BEST_FLOOR, BEST_SINGLE_FLOOR, COUNT_METRICS, Ratio, ratios
from forecasting.backtests.scores import Row
from forecasting.general import DevelopmentLog, development_logs
from forecasting.training import forecaster_of
from infra.configuration import load_settings
from infra.steps import DAY_US, parse_duration_us
from models import checkpoint, general_folder
from models.contract import Model
from models.floor_names import named_floors
from models.scoring import bucket_name

RESULT = Path(__file__).parent / "results" / "accuracy_steps.json"
STEPS = ("15m", "6h", "1d")
FLOORS = ("seasonal_naive", "seasonal_window_mean", "profile_level", "persistence", "drift")
# Their time grows with the season, which by the quarter of an hour has 672 steps.
SLOW_FLOORS, SLOW_FROM_US = ("auto_theta", "auto_ets"), DAY_US
FEWEST_STEPS = 7
# The longest range of each log, however long its windows are.
WHOLE = "whole"


def test_of(tested: int, step_us: int) -> Test:
    """Return windows of a week, by the day of four, with ranges of one step, of a day, or a week of days, and of all.

    Args:
        tested: steps of the test part.
        step_us: step size.
    """
    ranges = (1, 7, 28) if step_us >= DAY_US else (1, DAY_US // step_us, 7 * DAY_US // step_us)
    window = min(max(ranges), tested)
    return Test(
        tuple(dict.fromkeys(min(steps, window) for steps in ranges)), *spread_windows(tested, window, MAX_ORIGINS)
    )


def scores(log: DevelopmentLog, step_us: int, models: list[Model[Any]]) -> tuple[Test, list[Row]] | None:
    """Return how models stand on the test part of a log; None where it has too few steps."""
    history = log.events.history(step_us, log.end_us // step_us * step_us)
    test_start = -(-(log.train_until_us - history.start_us) // step_us)
    tested = len(history) - test_start
    if tested < FEWEST_STEPS:
        return None
    test = test_of(tested, step_us)
    rows = backtest(history, models, test_start=test_start, **asdict(test)).rows
    wanted = [bucket_name(1, steps) for steps in test.horizons]
    return test, [
        replace(row, bucket=WHOLE) if row.bucket == wanted[-1] else row
        for row in rows
        if row.bucket in wanted and row.metric in COUNT_METRICS
    ]


def measure(step: str) -> list[dict[str, Any]]:
    """Return the ratios of the general model at a step size, over all logs and by log."""
    step_us = parse_duration_us(step)
    found = checkpoint.load(general_folder())
    assert found is not None, "the general model is missing"
    floors = [*FLOORS, *(SLOW_FLOORS if step_us >= SLOW_FROM_US else ())]
    models: list[Model[Any]] = [forecaster_of(found), *named_floors(floors)]
    names = [model.name for model in models]
    by_log: dict[str, tuple[Test, list[Row]]] = {}
    for log in development_logs(load_settings().values.data.folders()):
        begin_s = time.monotonic()
        if (scored := scores(log, step_us, models)) is not None:
            by_log[log.name] = scored
        print(f"{step} {log.name} {time.monotonic() - begin_s:.0f} s", file=sys.stderr, flush=True)

    def lines(of: list[list[Row]], **where: Any) -> list[dict[str, Any]]:
        """Return the ratios over graphs in each range of steps."""
        return [
            {"step": step, **where, **_line(ratio), "coverage_80": _coverage(of, ratio)}
            for bucket in dict.fromkeys(row.bucket for rows in of for row in rows)
            for ratio in ratios([[row for row in rows if row.bucket == bucket] for rows in of], names, names[1:])
            if ratio.model == names[0] and ratio.against in (BEST_SINGLE_FLOOR, BEST_FLOOR)
        ]

    rows = lines([rows for _, rows in by_log.values()], log="all", origins=None)
    for name, (test, of_log) in by_log.items():
        rows += lines([of_log], log=name, origins=test.origins)
    return rows


def _line(ratio: Ratio) -> dict[str, Any]:
    """Return a ratio as a row; None where nothing could be compared."""
    return {
        "bucket": ratio.bucket,
        "score": ratio.score,
        "against": ratio.against,
        "floor": ratio.floor,
        "ratio": None if math.isnan(ratio.ratio) else ratio.ratio,
        "logs": ratio.n_graphs,
    }


def _coverage(of: list[list[Row]], ratio: Ratio) -> float:
    inside = [row.coverage_80 for rows in of for row in rows if (row.model, row.bucket) == (ratio.model, ratio.bucket)]
    return sum(inside) / len(inside)


def tables(report: dict[str, Any]) -> str:
    """Return what was measured as two Markdown tables: over all logs by range, and by log over whole windows."""
    heads = "MASE, best floor | of hindsight | WQL, best floor | of hindsight"
    lines = [f"| step | steps ahead | logs | {heads} | in 80 % |", "|---" * 8 + "|"]
    rows = report["rows"]
    for step, bucket in dict.fromkeys((row["step"], row["bucket"]) for row in rows if row["log"] == "all"):
        of = [row for row in rows if (row["step"], row["bucket"], row["log"]) == (step, bucket, "all")]
        ahead = ("a week" if step != "1d" else "four weeks") if bucket == WHOLE else bucket
        lines.append(f"| {step} | {ahead} | {of[0]['logs']} | {_cells(of)} | {of[0]['coverage_80']:.0%} |")
    lines += ["", f"| log | step | origins | {heads} |", "|---" * 7 + "|"]
    whole = [row for row in rows if row["log"] != "all" and row["bucket"] == WHOLE]
    for log, step in sorted({(row["log"].lower(), row["step"]) for row in whole}):
        of = [row for row in whole if (row["log"].lower(), row["step"]) == (log, step)]
        lines.append(f"| {log} | {step} | {of[0]['origins']} | {_cells(of)} |")
    return "\n".join(lines)


def _cells(rows: list[dict[str, Any]]) -> str:
    cells = []
    for score in ("mase", "wql"):
        for against in (BEST_SINGLE_FLOOR, BEST_FLOOR):
            row = next(row for row in rows if (row["score"], row["against"]) == (score, against))
            cells.append(f"{row['ratio']:.3f}" + (f" ({row['floor']})" if row["floor"] else ""))
    return " | ".join(cells)


def main() -> None:
    """Measure what is asked for, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="*", metavar="STEP")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    report: dict[str, Any] = (
        json.loads(RESULT.read_text()) if RESULT.exists() else {"bench": "accuracy_steps", "rows": []}
    )
    if arguments.table:
        print(tables(report))
        return
    for step in arguments.steps or STEPS:
        report["rows"] = [row for row in report["rows"] if row["step"] != step] + measure(step)
        report["command"] = "python benchmarks/accuracy_steps.py"
        report["hardware"], report["versions"] = hardware(), versions("graphtide", "torch", "numpy", "statsforecast")
        RESULT.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
