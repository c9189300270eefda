"""What becomes of forecasts in the far future: calibration of steps and of sums over simulated networks, and a rollout
of 365,000 steps.

    python benchmarks/far_future.py calibration --graphs 200   # networks that no model has seen, 12,000 hours ahead
    python benchmarks/far_future.py sums --graphs 40           # sums over weeks to 12,000 hours, on sample paths
    python benchmarks/far_future.py calibration --days         # the same by the day, 500 days ahead; so with sums
    python benchmarks/far_future.py stress                     # ten times the longest horizon, on each development log
    python benchmarks/far_future.py                            # print what was measured

The networks are drawn as those of training are, with other seeds. The shares of steps below each quantile level are
pooled over the count metrics of a network, and their errors are bootstrapped over networks. Of sums the shares below
the 10 % and above the 90 % quantile of the sample paths are taken: a tenth each where paths hang together rightly. The
new nodes and edges of the whole horizon are what totals grow by. Results go to benchmarks/results/far_future.json.
"""

import argparse
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from hardware import hardware, versions

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from forecasting.corpus import EventLog
from forecasting.general import development_logs, random_network
from forecasting.training import forecaster_of
from infra.configuration import load_settings
from infra.schema import METRIC_INDEX, QUANTILE_LEVELS
from infra.steps import DAY_US, HOUR_US
from models import checkpoint, general_folder
from models.columns import COUNTS, LEVELS, MEDIAN
from models.constraints import violations
from models.contract import History
from models.forecaster import MambaForecaster
from models.scoring import HORIZON_BUCKETS, bucket_name
from stream.sources.simulate import SimulatedSource

RESULT = Path(__file__).parent / "results" / "far_future.json"
# Nobody's training drew seeds from here on.
FIRST_SEED = 50_000_000
STRESS_STEPS, WINDOW_STEPS = 365_000, 8766
BOOTSTRAPS = 1000
SUMMED = ("events", "new_nodes", "new_edges")
# On earlier networks it was chosen how much of a step is its level.
PATHS, FIRST_SUMMED = 100, 1000


@dataclass(frozen=True)
class Scale:
    """By which steps networks are forecast; half a year is seen before the origin.

    Attributes:
        suffix: of the names of results.
        step_us, seen_steps, longest_steps: length of a step, steps before the origin and behind it.
        spans: steps of the spans that are summed over.
    """

    suffix: str
    step_us: int
    seen_steps: int
    longest_steps: int
    spans: dict[str, int]


HOURS = Scale("", HOUR_US, 4380, 12_000, {"week": 168, "4 weeks": 672, "26 weeks": 4368, "all": 12_000})
DAYS = Scale("_days", DAY_US, 183, 500, {"week": 7, "4 weeks": 28, "26 weeks": 182, "all": 500})


def general_model() -> MambaForecaster:
    """Return the model that comes with the package."""
    found = checkpoint.load(general_folder())
    assert found is not None, "the general model is missing"
    return forecaster_of(found)


def simulated_history(number: int, scale: Scale) -> History:
    """Return the snapshots of one network, as long as its horizon needs."""
    config = random_network(np.random.default_rng((FIRST_SEED, number)), FIRST_SEED + number)
    years = (HOURS.seen_steps + HOURS.longest_steps) / 8766
    # A busy network would take minutes to draw; it is drawn quieter instead of shorter.
    config = replace(config, years=years, events_per_hour=min(config.events_per_hour, 120_000 / (years * 8766)))
    events = EventLog.read(SimulatedSource(config))
    # The last step is not over.
    return events.history(scale.step_us, int(events.ts_E[-1]) // scale.step_us * scale.step_us)


def shares(model: MambaForecaster, history: History, scale: Scale) -> dict[str, np.ndarray]:
    """Return, by bucket, the shares [2, Q] of counts below, and at or below, each level."""
    state = model.update(model.start(history.step_us, history.start_us), history.values[: scale.seen_steps])
    horizon = min(scale.longest_steps, len(history) - scale.seen_steps)
    found = {bucket_name(*bucket): np.zeros((2, len(LEVELS))) for bucket in HORIZON_BUCKETS}
    steps = dict.fromkeys(found, 0)
    for chunk in model.rollout(state, horizon):
        came = history.values[scale.seen_steps + chunk.first_step :][: len(chunk), COUNTS, None]
        said = chunk.quantiles[:, COUNTS]
        ahead = np.arange(chunk.first_step + 1, chunk.first_step + len(chunk) + 1)
        for first, last in HORIZON_BUCKETS:
            within = (ahead >= first) & (ahead <= last)
            if within.any():
                name = bucket_name(first, last)
                found[name] += [
                    (came < said)[within].mean(axis=1).sum(axis=0),
                    (came <= said)[within].mean(axis=1).sum(axis=0),
                ]
                steps[name] += int(within.sum())
    return {name: total / steps[name] for name, total in found.items() if steps[name]}


def calibration(graphs: int, scale: Scale) -> list[dict[str, Any]]:
    """Return the shares below each level by bucket, over `graphs` networks, with bootstrap errors over networks."""
    model, by_bucket = general_model(), dict[str, list[np.ndarray]]()
    for number in range(graphs):
        for name, share in shares(model, simulated_history(number, scale), scale).items():
            by_bucket.setdefault(name, []).append(share)
        print(f"{number + 1} of {graphs} networks", file=sys.stderr, flush=True)
    generator, rows = np.random.default_rng(0), []
    for name, found in by_bucket.items():
        share_G2Q = np.stack(found)
        drawn = share_G2Q[generator.integers(0, len(found), (BOOTSTRAPS, len(found)))].mean(axis=1)
        mean_2Q, error_2Q = share_G2Q.mean(axis=0), drawn.std(axis=0)
        for q, level in enumerate(QUANTILE_LEVELS):
            below, at_or_below = mean_2Q[:, q]
            # 0.03 and two errors: the tolerance that the forecasts are held to.
            met = below - 0.03 - 2 * error_2Q[0, q] <= level <= at_or_below + 0.03 + 2 * error_2Q[1, q]
            rows.append(
                {
                    "bucket": name,
                    "level": level,
                    "below": round(float(below), 4),
                    "at_or_below": round(float(at_or_below), 4),
                    "error": round(float(error_2Q[:, q].max()), 4),
                    "graphs": len(found),
                    "met": bool(met),
                }
            )
    return rows


def outside(model: MambaForecaster, history: History, scale: Scale) -> dict[tuple[str, str], tuple[float, float]]:
    """Return, by metric and span, the shares of sums below and above the 80 % interval of their sums on paths."""
    state = model.update(model.start(history.step_us, history.start_us), history.values[: scale.seen_steps])
    columns = [METRIC_INDEX[name] for name in SUMMED]
    came_HM = history.values[scale.seen_steps : scale.seen_steps + scale.longest_steps, columns]
    chunks = model.sample_paths(state, len(came_HM), n_paths=PATHS)
    drawn_HMP = np.concatenate([chunk.values[:, columns] for chunk in chunks])
    found = {}
    for span, steps in scale.spans.items():
        begins = np.arange(0, max(len(came_HM) - steps, 0) + 1, steps)
        came_SM = np.stack([came_HM[begin : begin + steps].sum(axis=0) for begin in begins])
        drawn_SMP = np.stack([drawn_HMP[begin : begin + steps].sum(axis=0) for begin in begins])
        low_SM, high_SM = np.quantile(drawn_SMP, [0.1, 0.9], axis=-1)
        for m, name in enumerate(SUMMED):
            below, above = came_SM[:, m] < low_SM[:, m], came_SM[:, m] > high_SM[:, m]
            found[name, span] = float(below.mean()), float(above.mean())
    return found


def sums(graphs: int, scale: Scale) -> list[dict[str, Any]]:
    """Return the shares of sums outside of their 80 % intervals over `graphs` networks, with bootstrap errors."""
    model, by_sum = general_model(), dict[tuple[str, str], list[tuple[float, float]]]()
    for number in range(graphs):
        for key, share in outside(model, simulated_history(FIRST_SUMMED + number, scale), scale).items():
            by_sum.setdefault(key, []).append(share)
        print(f"{number + 1} of {graphs} networks", file=sys.stderr, flush=True)
    generator, rows = np.random.default_rng(0), []
    for (name, span), found in by_sum.items():
        share_G2 = np.array(found)
        drawn = share_G2[generator.integers(0, len(found), (BOOTSTRAPS, len(found)))].mean(axis=1)
        rows.append(
            {
                "metric": name,
                "span": span,
                "below_0.1": round(float(share_G2[:, 0].mean()), 4),
                "above_0.9": round(float(share_G2[:, 1].mean()), 4),
                "error": round(float(drawn.std(axis=0).max()), 4),
                "graphs": len(found),
            }
        )
    return rows


def stress() -> list[dict[str, Any]]:
    """Return, by log, how the years of a rollout of `STRESS_STEPS` differ from its first whole year."""
    model, rows = general_model(), []
    for log in development_logs(load_settings().values.data.folders()):
        history = log.events.history(HOUR_US, log.train_until_us)
        state = model.update(model.start(history.step_us, history.start_us), history.values)
        broken, medians, widths, before = 0, [], [], None
        for chunk in model.rollout(state, STRESS_STEPS, chunk_steps=WINDOW_STEPS):
            assert np.isfinite(chunk.quantiles).all()
            broken += len(violations(chunk.mean, chunk.quantiles, before=before))
            before = chunk.mean[-1], chunk.quantiles[-1]
            medians.append(chunk.quantiles[:, COUNTS, MEDIAN].mean(axis=0))
            widths.append((chunk.quantiles[:, COUNTS, -1] - chunk.quantiles[:, COUNTS, 0]).mean(axis=0))
        # From the second year on: the first one holds what is still known.
        median, width = np.array(medians[1:-1]), np.array(widths[1:-1])
        drift = (np.abs(median - median[0]) / np.maximum(median[0], 1.0)).max()
        ratio = width[:, width[0] > 0] / width[0, width[0] > 0]
        rows.append(
            {
                "log": log.name,
                "steps": STRESS_STEPS,
                "broken_invariants": broken,
                "largest_drift_of_a_median": round(float(drift), 4),
                "narrowest_width_of_a_year": round(float(ratio.min()), 4),
                "widest_width_of_a_year": round(float(ratio.max()), 4),
                "largest_median": round(float(median.max()), 2),
                "largest_seen": round(float(history.values[:, COUNTS].max()), 2),
            }
        )
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["calibration", "sums", "stress"])
    parser.add_argument("--graphs", type=int, default=200)
    parser.add_argument("--days", action="store_true", help="by the day, not by the hour")
    arguments = parser.parse_args()
    report = json.loads(RESULT.read_text()) if RESULT.exists() else {"bench": "far_future"}
    if arguments.what is not None:
        report["command"] = "python benchmarks/far_future.py calibration|sums|stress [--days]"
        report["hardware"], report["versions"] = hardware(), versions("graphtide", "torch", "numpy")
        scale = DAYS if arguments.days else HOURS
        if arguments.what == "stress":
            report["stress"] = stress()
        else:
            measure = calibration if arguments.what == "calibration" else sums
            report[arguments.what + scale.suffix] = measure(arguments.graphs, scale)
        RESULT.write_text(json.dumps(report, indent=1) + "\n")
    for what in ("calibration", "calibration_days", "sums", "sums_days", "stress"):
        for row in report.get(what, []):
            print(json.dumps({"what": what, **row}))


if __name__ == "__main__":
    main()
