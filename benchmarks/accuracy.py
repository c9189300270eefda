"""Accuracy on the test parts of the public logs, which no shipped weights, scaling or choice have seen.

    python benchmarks/accuracy.py short general          # the general model without training, 1 to 168 hours ahead
    python benchmarks/accuracy.py short tuned            # trained on each log from the general model
    python benchmarks/accuracy.py short unseen:FOLDER --logs wiki-elec   # a general model that was not shown these logs
    python benchmarks/accuracy.py short seed:FOLDER      # a general model of one training, such as a teacher of ours
    python benchmarks/accuracy.py short again:FOLDER     # the general model made anew with another seed
    python benchmarks/accuracy.py short seasonal_naive profile_level lightgbm auto_theta
    python benchmarks/accuracy.py long general seasonal_naive seasonal_window_mean profile_level
    python benchmarks/accuracy.py                        # print the tables of what was measured

Logs are found as `graphtide datasets` finds them (GRAPHTIDE_DATA_DIR). The test part is the last 36,500 hours of
sx-mathoverflow and the last fifth of every other log. What is found is kept in benchmarks/results/accuracy_<log>.json,
model by model; a model that is measured again replaces itself.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hardware import hardware, versions

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from forecasting.backtest import backtest
from forecasting.backtests.plan import spread_windows
from forecasting.backtests.ratios import COUNT_METRICS, ratios
from forecasting.backtests.scores import BacktestResult, Row
from forecasting.general import DevelopmentLog, development_logs
from forecasting.training import forecaster_of, general_start, train_graph
from infra.configuration import load_settings
from infra.steps import HOUR_US
from models import checkpoint, general_folder
from models.contract import History, Model
from models.floor_names import named_floors
from models.forecaster import ForecasterConfig
from models.optimisation import TrainingConfig
from models.training import MIN_SEASONS

RESULTS = Path(__file__).parent / "results"
SEASON, MAX_ORIGINS = 168, 24
HORIZONS = (1, 24, 168)
LONG_LOGS = ("sx-mathoverflow", "wiki-elec", "bitcoin-otc")
TUNING = TrainingConfig(max_iterations=150, learning_rate=1e-3, budget_s=3600.0, patience=1000)


@dataclass(frozen=True)
class Test:
    """How the test part of a log is used."""

    horizons: tuple[int, ...]
    origins: int
    stride: int


def short_test(tested: int) -> Test:
    """Return windows of a week, or of what there is, spread over the test part without overlap."""
    window = min(max(HORIZONS), tested)
    return Test(
        tuple(dict.fromkeys(min(horizon, window) for horizon in HORIZONS)),
        *spread_windows(tested, window, MAX_ORIGINS),
    )


def models_of(names: list[str], past: History, log: str, folder: Path) -> Iterator[Model[Any]]:
    """Yield the models that are asked for, the forecaster under the name that tells how it was trained."""
    for name in names:
        if name == "general":
            found = checkpoint.load(general_folder())
            assert found is not None, "the general model is missing"
            yield forecaster_of(found)
        elif name.startswith("unseen:"):
            # Trained by `graphtide train --general FOLDER --exclude …` without the logs that it is measured on.
            found = checkpoint.load(Path(name.removeprefix("unseen:")))
            assert found is not None, f"there is no model in {name}"
            assert all(one["log"] != log for one in found.card["data"]), f"the model has seen {log}"
            found.card["name"] = "mamba2-unseen"
            yield forecaster_of(found)
        elif name.startswith(("seed:", "again:")):
            kind, _, place = name.partition(":")
            found = checkpoint.load(Path(place))
            assert found is not None, f"there is no model in {name}"
            found.card["name"] = "mamba2-again" if kind == "again" else f"mamba2-seed-{found.card['seed']}"
            yield forecaster_of(found)
        elif name == "tuned":
            if len(past) >= MIN_SEASONS * SEASON:
                yield forecaster_of(
                    train_graph(past, log, folder, ForecasterConfig(), TUNING, start=general_start(ForecasterConfig()))
                )
        else:
            yield from named_floors([name])


def measure(kind: str, names: list[str], log: DevelopmentLog) -> None:
    """Score models on the test part of one log and keep what is found."""
    history = log.events.history(HOUR_US, log.end_us)
    test_start = (log.train_until_us - history.start_us) // HOUR_US
    tested = len(history) - test_start
    test = short_test(tested) if kind == "short" else Test((tested,), 1, tested)
    with tempfile.TemporaryDirectory() as folder:
        for model in models_of(names, history.part(0, test_start), log.name, Path(folder)):
            begin_s = time.monotonic()
            result = backtest(history, [model], test_start=test_start, **asdict(test))
            keep(kind, log.name, model.name, result)
            print(f"{log.name} {kind} {model.name} {time.monotonic() - begin_s:.0f} s", file=sys.stderr, flush=True)


def keep(kind: str, log: str, model: str, result: BacktestResult) -> None:
    """Put the scores of one model into the result file of a log."""
    path = RESULTS / f"accuracy_{log.lower()}.json"
    new = {"bench": "accuracy", "graph": log.lower(), "rows": []}
    report: dict[str, Any] = json.loads(path.read_text()) if path.exists() else new
    found = result.to_json(log.lower())
    counted = [row for row in found["rows"] if row["metric"] in COUNT_METRICS]
    report["command"] = f"python benchmarks/accuracy.py {kind} MODEL…"
    report["hardware"], report["versions"] = hardware(), versions("graphtide", "torch", "numpy")
    report.setdefault("protocol", {})[kind] = found["protocol"]
    # By metric it would be long, and of the floors nobody asks.
    levels = [row for row in found["calibration"] if row["metric"] == "counts" and model.startswith("mamba2")]
    for key, rows in (("rows", counted), ("sums", found["sums"]), ("calibration", levels)):
        kept = [row for row in report.get(key, []) if (row["kind"], row["model"]) != (kind, model)]
        report[key] = kept + [{"kind": kind, **row} for row in rows]
    report.setdefault("timings", {}).setdefault(kind, {}).update(found["timings"])
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")


def table(kind: str, buckets: list[str]) -> str:
    """Return geometric means over logs and count metrics as a Markdown table; short test parts count as a week."""
    logs = [_rows(report, kind) for report in _reports()]
    models = sorted({row.model for rows in logs for row in rows})
    ours = [model for model in models if model.startswith("mamba2")]
    floors = [model for model in models if model not in ours]
    lines = [
        "| steps ahead | model | logs | MASE, best floor | of hindsight | WQL, best floor | of hindsight | in 80 % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for bucket in buckets:
        for model in ours:
            graphs = [[r for r in rows if r.bucket == bucket and r.model in {model, *floors}] for rows in logs]
            graphs = [rows for rows in graphs if any(row.model == model for row in rows)]
            found = {(r.score, r.against): r for r in ratios(graphs, [model, *floors], floors) if r.model == model}
            cells = []
            for score in ("mase", "wql"):
                single = found[score, "best_single_floor"]
                cells += [f"{single.ratio:.3f} ({single.floor})", f"{found[score, 'best_floor'].ratio:.3f}"]
            inside = [row.coverage_80 for rows in graphs for row in rows if row.model == model]
            cells.append(f"{sum(inside) / len(inside):.0%}")
            lines.append(f"| {bucket} | {model} | {len(graphs)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def log_table() -> str:
    """Return by log how the models stand a week ahead, as a Markdown table."""
    lines = [
        "| log | origins | model | MASE, best floor | of hindsight | WQL, best floor | of hindsight |",
        "|---|---|---|---|---|---|---|",
    ]
    for report in _reports():
        rows = [row for row in _rows(report, "short") if row.bucket == f"1-{max(HORIZONS)}"]
        names = sorted({row.model for row in rows})
        floors = [name for name in names if not name.startswith("mamba2")]
        for model in [name for name in names if name.startswith("mamba2")]:
            found = {(r.score, r.against): r.ratio for r in ratios([rows], names, floors) if r.model == model}
            cells = [
                f"{found[score, against]:.3f}"
                for score in ("mase", "wql")
                for against in ("best_single_floor", "best_floor")
            ]
            lines.append(
                f"| {report['graph']} | {report['protocol']['short']['origins']} | {model} | {' | '.join(cells)} |"
            )
    return "\n".join(lines)


def century_table() -> str:
    """Return errors of the forecast of 36,500 hours of sx-mathoverflow, as a Markdown table."""
    report = json.loads((RESULTS / "accuracy_sx-mathoverflow.json").read_text())
    sums = {
        (row["model"], row["metric"], row["period"]): row["wape_mean"]
        for row in report["sums"]
        if row["kind"] == "long"
    }
    mase = {(row.model, row.metric): row.mase for row in _rows(report, "long") if row.bucket == "1-36500"}
    metrics = ("events", "active_nodes")
    lines = ["| model | " + " | ".join(f"{m}: MASE | WAPE by day | by week" for m in metrics) + " |", "|---" * 7 + "|"]
    for model in dict.fromkeys(model for model, _ in mase):
        cells = [
            cell
            for metric in metrics
            for cell in (mase[model, metric], sums[model, metric, "day"], sums[model, metric, "week"])
        ]
        lines.append(f"| {model} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |")
    return "\n".join(lines)


def _reports() -> Iterator[dict[str, Any]]:
    """Yield what was found of each log."""
    for path in sorted(RESULTS.glob("accuracy_*.json")):
        report = json.loads(path.read_text())
        # Beside them lie those of accuracy_steps.py.
        if report["bench"] == "accuracy":
            yield report


def _rows(report: dict[str, Any], kind: str) -> list[Row]:
    """Return the rows of a report; its longest range counts as a week where the test part is shorter."""
    window = report["protocol"].get(kind, {}).get("window_steps")
    rows = []
    for row in report["rows"]:
        if row["kind"] == kind:
            fields = {key: float("nan") if value is None else value for key, value in row.items() if key != "kind"}
            if kind == "short" and fields["bucket"] == f"1-{window}":
                fields["bucket"] = f"1-{max(HORIZONS)}"
            rows.append(Row(**fields))
    return rows


def main() -> None:
    """Measure what is asked for, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", nargs="?", choices=("short", "long"))
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--logs", help="names with commas; all if left out")
    arguments = parser.parse_args()
    if arguments.kind is None:
        print(table("short", ["1", "1-24", "1-168"]))
        print(log_table())
        print(table("long", ["101-1000", "1001-10000", "10001-36500"]))
        print(century_table())
        return
    wanted = arguments.logs.split(",") if arguments.logs else None
    for log in development_logs(load_settings().values.data.folders()):
        if (wanted is None or log.name in wanted) and (arguments.kind == "short" or log.name in LONG_LOGS):
            measure(arguments.kind, arguments.models, log)


if __name__ == "__main__":
    main()
