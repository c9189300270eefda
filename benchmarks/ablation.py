"""What each part of the forecaster is worth, on validation parts (the last fifth of each training part), and on
the last fifth of simulated networks that no training has seen.

    python benchmarks/ablation.py [--iterations N] [--seed S] [VARIANT …]      # measure; all variants if none is named
    python benchmarks/ablation.py --table                                      # print the tables of what was measured

Every variant is trained on the same series with the same seeds for the same iterations, then scored like the shipped
model on its test parts, but on steps before them. A table has what trainings of equal length have in the mean over
their seeds. The result is kept in benchmarks/results/ablation.json; runs of several variants may write it in turns.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from accuracy import Test, short_test
from hardware import hardware, versions

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import models.outlook
import models.profiles
import models.sampling
from forecasting.backtest import backtest
from forecasting.backtests.ratios import ratios
from forecasting.backtests.scores import Row
from forecasting.corpus import EventLog
from forecasting.general import (
    FEWEST_EVENTS,
    DevelopmentLog,
    development_logs,
    log_series,
    random_network,
    simulated_series,
)
from infra.configuration import load_settings
from infra.steps import HOUR_US
from models.baselines import floors
from models.calibration import Calibrations
from models.conformal import fit_calibration
from models.forecaster import ForecasterConfig, ForecasterNet, MambaForecaster
from models.optimisation import Optimisation, TrainingConfig
from models.ranks import default_structure
from models.samples import Batch
from models.sampling import Sampler, TrainingSeries
from stream.sources.simulate import SimulatedSource

RESULT = Path(__file__).parent / "results" / "ablation.json"
VALIDATION_SHARE = 0.2
SIMULATED, SEASON = 12, 168
VARIANTS = {
    "whole": "as it is shipped, but trained for as long as the others",
    "without the core": "tokens go straight to the head: no state beyond the causal statistics",
    "positions alone": "an hour of the week is known by itself, not also by its hour and its day",
    "rivals never fade": "what recent weeks say counts as much for a far step as for the next",
    "logs alone": "no parts, cuts and simulated networks, hours only",
    "spread never hidden": "what graphs are known by stays in every batch",
}
# Far forecasts begin behind these shares of the last fifth, where it has so many steps, and go to its end.
FAR_SHARES, FEWEST_FAR = (0.0, 0.25, 0.5), 2000
FAR_BUCKET = "1001-10000"
BUCKETS = ("1-24", f"1-{SEASON}", FAR_BUCKET)
# Networks drawn as those of training are, with numbers that nothing else draws.
UNSEEN, FIRST_UNSEEN = 40, 90_000_000


@contextmanager
def changed(variant: str) -> Iterator[None]:
    """Train and forecast without the part that a variant lacks."""
    without: dict[str, tuple[ModuleType, str, object]] = {
        "positions alone": (models.profiles, "SHAPE_PRIOR_OBSERVATIONS", 0.0),
        "rivals never fade": (models.outlook, "RIVAL_REACH_SEASONS", math.inf),
        "spread never hidden": (models.sampling, "HIDDEN_SPREAD_SHARE", 0.0),
    }
    if variant not in without:
        yield
        return
    module, name, value = without[variant]
    kept = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, kept)


def before_test(log: DevelopmentLog) -> DevelopmentLog:
    """Return the training part of a log, the last fifth of which is now the test part."""
    first_us = int(log.events.ts_E[0]) // HOUR_US * HOUR_US
    hours = (log.train_until_us - first_us) // HOUR_US
    until_us = log.train_until_us - int(hours * VALIDATION_SHARE) * HOUR_US
    return DevelopmentLog(log.name, log.training(), log.train_until_us, until_us)


def unseen_networks() -> Iterator[DevelopmentLog]:
    """Yield simulated networks, the last fifth of which is the test part."""
    for number in range(UNSEEN):
        generator = np.random.default_rng((FIRST_UNSEEN, number))
        events = EventLog.read(SimulatedSource(random_network(generator, FIRST_UNSEEN + number)))
        if len(events) >= FEWEST_EVENTS:
            end_us = (int(events.ts_E[-1]) // HOUR_US + 1) * HOUR_US
            yield before_test(DevelopmentLog(f"simulated-{number}", events, end_us, end_us))


def train(
    series: list[TrainingSeries], iterations: int, *, seed: int, has_core: bool
) -> tuple[ForecasterNet, list[Batch]]:
    """Return a net trained on the series, and the forecasts kept for validation."""
    config = ForecasterConfig()
    training = TrainingConfig(max_iterations=iterations, budget_s=1e6, patience=10**6, validate_every=200)
    net = ForecasterNet(config, seed=seed)
    if not has_core:
        # A block whose mixer answers nothing hands its input on.
        for name, parameter in net.core.named_parameters():
            if name.endswith("out_proj.weight"):
                parameter.data.zero_()
                parameter.requires_grad_(False)
    torch.set_num_threads(1)
    sampler = Sampler(series, reach_steps=config.reach_steps, tokens_per_batch=training.tokens_per_batch, seed=seed)
    loop = Optimisation(net, sampler, training, time.monotonic())
    while not loop.stopped:
        loop.iterate()
    return loop.best(), loop.validation


def measure(
    variant: str, logs: list[DevelopmentLog], unseen: list[DevelopmentLog], iterations: int, seed: int
) -> dict[str, Any]:
    """Return the scores of one training of a variant against the floors, over all logs and over unseen networks."""
    named = [series for log in logs for series in log_series(log, seed=0)]
    if variant == "logs alone":
        named = [series for series in named if series.kind == "whole 1h"]
    else:
        named += simulated_series(SIMULATED, seed=0)
    begin_s = time.monotonic()
    with changed(variant):
        has_core = variant != "without the core"
        net, validation = train([one.series for one in named], iterations, seed=seed, has_core=has_core)
        calibrations = Calibrations({HOUR_US: fit_calibration(net, validation)})
        model = MambaForecaster(net, default_structure(SEASON), ranks_season=SEASON, calibrations=calibrations)
        training_s = time.monotonic() - begin_s
        logs_found, unseen_found = standing(model, logs), standing(model, unseen)
    return {
        "variant": variant,
        "means": VARIANTS[variant],
        "iterations": iterations,
        "seed": seed,
        "parameters": sum(
            parameter.numel()
            for name, parameter in net.named_parameters()
            if variant != "without the core" or not name.startswith("core.")
        ),
        "training_s": round(training_s),
        **logs_found,
        "unseen": unseen_found,
    }


def standing(model: MambaForecaster, logs: list[DevelopmentLog]) -> dict[str, Any]:
    """Return how a model stands against the floors, over logs that are scored a week ahead and over far forecasts."""
    scored = [scores(model, log) for log in logs]
    near, far = [one for one, _ in scored if one], [rows for _, many in scored for rows in many]
    names = [model.name, *(floor.name for floor in floors())]
    found = [r for rows in (near, far) for r in ratios(rows, names, names[1:]) if r.model == model.name]
    return {
        "logs": len(near),
        "far_forecasts": len(far),
        "ratios": [asdict(r) for r in found if r.bucket in BUCKETS],
    }


def scores(model: MambaForecaster, log: DevelopmentLog) -> tuple[list[Row], list[list[Row]]]:
    """Return how a model and the floors stand a week ahead, if the test part has one, and in each far forecast."""
    history = log.events.history(HOUR_US, log.end_us)
    test_start = (log.train_until_us - history.start_us) // HOUR_US
    tested = len(history) - test_start
    test, known = short_test(tested), floors()
    near: list[Row] = []
    if test.horizons[-1] == SEASON:
        near = backtest(history, [model, *known], test_start=test_start, **asdict(test)).rows
    far = []
    for skipped in [int(tested * share) for share in FAR_SHARES] if tested >= FEWEST_FAR else []:
        test = Test((tested - skipped,), 1, tested - skipped)
        rows = backtest(history, [model, *known], test_start=test_start + skipped, **asdict(test)).rows
        if reached := [row for row in rows if row.bucket == FAR_BUCKET]:
            far.append(reached)
    return near, far


def tables(rows: list[dict[str, Any]]) -> str:
    """Return what was measured as Markdown, a table for each length of the trainings."""
    unseen = [{**row, **row["unseen"]} for row in rows if "unseen" in row]
    lines = []
    for on, measured in (("the public logs", rows), ("simulated networks", unseen)):
        for iterations in sorted({row["iterations"] for row in measured}):
            lines.append(f"\n{iterations} iterations, on {on}:\n")
            lines += table([row for row in measured if row["iterations"] == iterations])
    return "\n".join(lines).strip()


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Return the lines of a table of trainings of one length."""
    columns = [(score, bucket) for score in ("mase", "wql") for bucket in BUCKETS]
    heads = " | ".join(f"{score.upper()} {bucket}" for score, bucket in columns)
    lines = [f"| variant | seeds | {heads} |", "|---" * (len(columns) + 2) + "|"]
    for variant in VARIANTS:
        trainings = [row for row in rows if row["variant"] == variant]
        if trainings:
            cells = [mean_ratio(trainings, *column) for column in columns]
            named = f"{variant} ({trainings[0]['parameters']:,} parameters)"
            lines.append(f"| {named} | {len(trainings)} | {' | '.join(cells)} |")
    return lines


def mean_ratio(trainings: list[dict[str, Any]], score: str, bucket: str) -> str:
    """Return the geometric mean over trainings against the best single floor, and between what they lie."""
    chosen = {"score": score, "bucket": bucket, "against": "best_single_floor"}
    found = sorted(r["ratio"] for row in trainings for r in row["ratios"] if chosen.items() <= r.items())
    if not found:
        return "not measured"
    mean = math.exp(sum(map(math.log, found)) / len(found))
    return f"{mean:.3f}" + (f" ({found[0]:.3f} to {found[-1]:.3f})" if len(found) > 1 else "")


def kept() -> dict[str, Any]:
    """Return what was measured so far."""
    return json.loads(RESULT.read_text()) if RESULT.exists() else {"bench": "ablation", "rows": []}  # type: ignore[no-any-return]


def keep(row: dict[str, Any]) -> None:
    """Put a training in the place of what was measured of the like before."""
    report, same = kept(), ("variant", "iterations", "seed")
    report["rows"] = [one for one in report["rows"] if any(one[key] != row[key] for key in same)] + [row]
    report["command"] = "python benchmarks/ablation.py --iterations N --seed S VARIANT"
    report["hardware"], report["versions"] = hardware(), versions("graphtide", "torch", "numpy")
    RESULT.write_text(json.dumps(report, indent=1) + "\n")


def main() -> None:
    """Measure what is asked for, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", nargs="*", metavar="VARIANT", help=", ".join(VARIANTS))
    parser.add_argument("--iterations", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if not arguments.table:
        logs = [before_test(log) for log in development_logs(load_settings().values.data.folders())]
        unseen = list(unseen_networks())
        for variant in arguments.variants or VARIANTS:
            row = measure(variant, logs, unseen, arguments.iterations, arguments.seed)
            keep(row)
            print(f"{variant}: {row['training_s']} s", file=sys.stderr, flush=True)
    print(tables(kept()["rows"]))


if __name__ == "__main__":
    main()
