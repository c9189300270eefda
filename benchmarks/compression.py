"""What smaller forms of the general model cost in accuracy and gain in size and speed.

    python benchmarks/compression.py make [--iterations 600]   # train the smaller architectures
    python benchmarks/compression.py score                     # on validation and test parts, beside the full model
    python benchmarks/compression.py speed                     # time them, interleaved, in one process
    python benchmarks/write_tables.py                          # put the table into docs/accuracy.md

Forms and scores are kept in build/compression, and what was killed goes on. Trainings see the training parts of the
public logs, cut as for the general model; validation parts are those of `graphtide compress --general`, test parts and
windows those of benchmarks/accuracy.py. The result is kept in benchmarks/results/compression.json.
"""

import argparse
import json
import math
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy import MAX_ORIGINS
from hardware import hardware, versions

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from forecasting.compression import Judged, Method, judged_parts, made, scores, shrunk, verdict
from forecasting.corpus import EventLog
from forecasting.general import DevelopmentLog, development_logs, log_series, random_network
from forecasting.general_training import general_series
from forecasting.training import forecaster_of
from infra.configuration import load_settings
from infra.steps import HOUR_US
from models import checkpoint, general_folder
from models.checkpoint import Checkpoint
from models.forecaster import ForecasterState, MambaForecaster
from models.mamba2.kernels.contract import StackWeights
from models.mamba2.kernels.cpu.backend import CpuStack
from models.mamba2.kernels.registry import get_backend
from models.optimisation import TrainingConfig, TrainingProgress
from models.outlook import N_FEATURES
from models.pruning import n_parameters
from models.quantisation import encode, n_bytes
from models.ranks import structure_json
from models.training import train_series
from stream.sources.simulate import SimulatedSource

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "compression.json"
FOLDER = ROOT / "build" / "compression"
FULL = "fp32"
ROUNDED = {"bf16": Method(precision="bf16"), "int8": Method(precision="int8")}
# By name: the architecture alone, and the same in int8.
SHRUNK = {
    "pruned": (Method(prune_share=0.5), Method(prune_share=0.5, precision="int8")),
    "distilled": (Method(distil=True), Method(distil=True, precision="int8")),
}
# The full architecture, trained on for half as many iterations: what of a form's scores training alone would give.
CONTROL = "fp32, trained on"
SIMULATED, TOLERANCE = 24, 0.005
TIMED_STEPS, ROUNDS = 2048, 20
PROTOCOL = {
    "score": "geometric means over count metrics, then logs, 1 to 168 hours ahead, up to 24 windows a log",
    "speed": f"one series, {TIMED_STEPS} steps, least CPU time of {ROUNDS} interleaved rounds, one thread",
}


def general() -> Checkpoint:
    """Return the model that comes with the package."""
    found = checkpoint.load(general_folder())
    assert found is not None, "the general model is missing"
    return found


def forms() -> dict[str, Checkpoint]:
    """Return the full model and its smaller forms, by name."""
    found = {FULL: general()}
    for name in (*ROUNDED, *SHRUNK, *(f"{name}-int8" for name in SHRUNK), CONTROL):
        form = checkpoint.load(FOLDER / name)
        if form is None:
            sys.exit(f"{FOLDER / name} is missing: python benchmarks/compression.py make")
        found[name] = form
    return found


def tell(progress: TrainingProgress) -> None:
    if progress.iteration % 20 == 0:
        say(f"{progress.iteration} {progress.loss:.4f} {progress.validation_loss:.4f}")


def make(iterations: int) -> None:
    """Make all forms that are not there yet."""
    full = general()
    for name, method in ROUNDED.items():
        made(full, method, None, FOLDER / name)
    missing = [name for name in SHRUNK if checkpoint.load(FOLDER / f"{name}-int8") is None]
    has_control = checkpoint.load(FOLDER / CONTROL) is not None
    if not missing and has_control:
        return
    torch.set_num_threads(1)
    config = TrainingConfig(
        max_iterations=iterations, learning_rate=1e-3, budget_s=1e6, patience=10**6, validate_every=100
    )
    begin_s = time.monotonic()
    _, named = general_series(load_settings().values.data.folders(), simulated=SIMULATED, seed=config.seed)
    say(f"{len(named)} series after {time.monotonic() - begin_s:.0f} s")
    series = [one.series for one in named]
    for name in missing:
        (FOLDER / name).mkdir(parents=True, exist_ok=True)
        trained = shrunk(
            full,
            SHRUNK[name][0],
            series,
            config,
            resume_from=FOLDER / name / "training.pt",
            on_training=lambda p: (
                say(f"{p.iteration} {p.loss:.4f} {p.validation_loss:.4f}") if not p.iteration % 20 else None
            ),
        )
        say(f"{name}: {trained.scores()}")
        for method, folder in zip(SHRUNK[name], (FOLDER / name, FOLDER / f"{name}-int8"), strict=True):
            made(full, method, trained, folder)
    if not has_control:
        shorter = replace(config, max_iterations=iterations // 2)
        resume_from = FOLDER / CONTROL / "training.pt"
        resume_from.parent.mkdir(parents=True, exist_ok=True)
        trained = train_series(
            series, full.net.config, shorter, start=full.net, resume_from=resume_from, on_progress=tell
        )
        say(f"{CONTROL}: {trained.scores()}")
        found = {"ranks": structure_json(trained.ranks), "calibration": trained.calibration.to_json()}
        checkpoint.save(FOLDER / CONTROL, trained.net, {**full.card, **found, "scores": trained.scores()})


def score() -> None:
    """Score every form on every log, and write down how it stands beside the full model."""
    kept = FOLDER / "scores.json"
    found: dict[str, dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else {}
    models = forms()
    if any(found.get(name, {}).get("digest") != form.digest for name, form in models.items()):
        found = {name: one for name, one in found.items() if name in models and one["digest"] == models[name].digest}
    for log in development_logs(load_settings().values.data.folders()):
        parts = parts_of(log)
        for name, form in models.items():
            mine = found.setdefault(name, {"digest": form.digest})
            for part, judged in parts.items():
                if f"{part} {log.name}" in mine:
                    continue
                begin_s = time.monotonic()
                by_graph, windows = scores(forecaster_of(form), [judged], most=MAX_ORIGINS)
                mine[f"{part} {log.name}"] = [windows, {key: value.tolist() for key, value in by_graph[0].items()}]
                kept.write_text(json.dumps(found))
                say(f"{log.name} {part} {name} {time.monotonic() - begin_s:.0f} s")
    rows = []
    for name, form in models.items():
        stored = encode(form.net, form.precision)
        rows += [
            row(name, "parameters", n_parameters(form.net.config), ""),
            row(name, "weights", n_bytes(stored), "bytes"),
        ]
        for part in ("validation", "test"):
            logs = [key for key in found[FULL] if key.startswith(part)]
            full, mine = ([as_arrays(found[one][key][1]) for key in logs] for one in (FULL, name))
            said = verdict(full, mine, sum(found[name][key][0] for key in logs), TOLERANCE)
            rows += [
                row(name, f"WQL, {part}", said.wql_ratio, "of fp32"),
                row(name, f"MASE, {part}", said.mase_ratio, "of fp32"),
            ]
    keep(rows, "score")


def parts_of(log: DevelopmentLog) -> dict[str, Judged]:
    """Return the validation part, if the log has one, and the test part of a log."""
    whole = [one.series for one in log_series(log, seed=0) if one.kind == "whole 1h"]
    history = log.events.history(HOUR_US, log.end_us)
    found = dict(zip(["validation"], judged_parts(whole), strict=False))
    found["test"] = Judged(history, (log.train_until_us - history.start_us) // HOUR_US)
    return found


def as_arrays(by_score: dict[str, list[float]]) -> dict[str, np.ndarray]:
    return {name: np.array(values) for name, values in by_score.items()}


def speed() -> None:
    """Time encoding, forecasting and the kernels alone, a step, of all forms in turn; the least CPU time counts."""
    torch.set_num_threads(1)
    config = random_network(np.random.default_rng(0), 1)
    events = EventLog.read(SimulatedSource(replace(config, years=0.3, events_per_hour=20.0)))
    history = events.history(HOUR_US)
    values = history.values[:TIMED_STEPS]
    # What kernels take does not hang on the numbers.
    inputs = torch.randn(1, TIMED_STEPS, N_FEATURES, generator=torch.Generator().manual_seed(0))
    lanes, rows = {}, []
    for name, form in forms().items():
        model, net = forecaster_of(form), form.net
        start = model.start(history.step_us, history.start_us)
        stack = get_backend().pack(StackWeights.from_modules(net.embed, net.core, net.head), form.precision)
        if isinstance(stack, CpuStack):
            rows.append(row(name, "in memory", stack.floor(1).weight_bytes, "bytes"))
        lanes[name] = {
            "encoding": partial(model.update, start, values),
            "forecast": partial(consume, model, model.update(start, values)),
            "kernel": partial(stack.prefill, inputs, net.core.initial_state(1)),
        }
    least: dict[tuple[str, str], float] = {}
    for _ in range(ROUNDS):
        for name, works in lanes.items():
            for what, work in works.items():
                begin_s = time.process_time()
                work()
                used_s = time.process_time() - begin_s
                least[name, what] = min(least.get((name, what), math.inf), used_s)
    rows += [row(name, f"{what}, a step", s / TIMED_STEPS * 1e6, "microseconds") for (name, what), s in least.items()]
    keep(rows, "speed")


def consume(model: MambaForecaster, state: ForecasterState) -> None:
    for _ in model.rollout(state, TIMED_STEPS):
        pass


def row(case: str, system: str, value: float, unit: str) -> dict[str, Any]:
    return {"case": case, "system": system, "value": value, "unit": unit}


def keep(rows: list[dict[str, Any]], what: str) -> None:
    """Put rows into the result file, in the place of those of the same measure."""
    report: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {"bench": "compression", "rows": []}
    measured = {one["system"] for one in rows}
    report["command"] = "python benchmarks/compression.py make; … score; … speed"
    report["hardware"], report["versions"] = hardware(), versions("graphtide", "torch", "numpy")
    report.setdefault("protocol", {})[what] = PROTOCOL[what]
    report["rows"] = [one for one in report["rows"] if one["system"] not in measured] + rows
    RESULT.write_text(json.dumps(report, indent=1) + "\n")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Do what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("make", "score", "speed"))
    parser.add_argument("--iterations", type=int, default=600)
    arguments = parser.parse_args()
    if arguments.what == "make":
        make(arguments.iterations)
    else:
        {"score": score, "speed": speed}[arguments.what]()


if __name__ == "__main__":
    main()
