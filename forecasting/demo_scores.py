"""The scores of a demo: short horizons from many origins, the longest apart, kept until data or model change."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forecasting.backtest import backtest
from forecasting.backtests.scores import BacktestResult
from forecasting.demo_data import HORIZONS, Stage
from forecasting.reports.standing import Standing, standing
from infra.whole_file import whole_file
from models.baselines import floors
from models.contract import History
from models.forecaster import MambaForecaster

# From origin to origin of the short forecasts: an hour more than a day, so that they start at every hour in turn.
SHORT_STRIDE_STEPS = 25
SHOWN_METRICS = ("events", "active_nodes", "new_nodes", "unique_edges", "new_edges")


def score(
    history: History,
    model: MambaForecaster,
    *,
    scored_steps: int,
    identity: Mapping[str, Any],
    kept: Path,
    seed: int,
    stage: Stage,
) -> tuple[Standing, bool]:
    """Backtest a model on the last steps of a history; return where it stands, and whether it was scored just now.

    Args:
        history: all steps.
        model: what to score.
        scored_steps: how many steps at the end it was not trained on.
        identity: what the scores depend on, as JSON values.
        kept: where scores are kept; taken from there if they were made of the same.
        seed: seed of the sample paths of totals.
        stage: shows the progress.

    Raises:
        GraphtideError: the scores cannot be written.
    """
    plan = {"scored_steps": scored_steps, "horizons": list(HORIZONS), "stride": SHORT_STRIDE_STEPS, "seed": seed}
    made_of = {**identity, **plan}
    results = _read(kept, made_of)
    is_new = results is None
    if results is None:
        results = _backtest(history, model, scored_steps, seed, stage)
        graph = str(identity["graph"])
        found = {"made_of": made_of, "backtests": {h: result.to_json(graph) for h, result in results.items()}}
        with whole_file(kept) as temporary:
            temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return standing(results, model.name, SHOWN_METRICS), is_new


def _backtest(
    history: History, model: MambaForecaster, scored_steps: int, seed: int, stage: Stage
) -> dict[int, BacktestResult]:
    longest = max(HORIZONS)
    plans = ((tuple(h for h in HORIZONS if h != longest), SHORT_STRIDE_STEPS), ((longest,), longest))
    results: dict[int, BacktestResult] = {}
    for horizons, stride in plans:
        with stage(f"Scoring beside the floors, up to {max(horizons)} steps ahead") as report:
            result = backtest(
                history,
                [model, *floors()],
                horizons=horizons,
                origins=(scored_steps - max(horizons)) // stride + 1,
                test_start=len(history) - scored_steps,
                stride=stride,
                seed=seed,
                on_progress=lambda done, total, report=report: report(done, total, "forecasts"),  # type: ignore[misc]
            )
        results |= dict.fromkeys(horizons, result)
    return results


def _read(kept: Path, made_of: Mapping[str, Any]) -> dict[int, BacktestResult] | None:
    """Return kept results if they were made of the same, else None: they can be made again."""
    try:
        found = json.loads(kept.read_text(encoding="utf-8"))
        if found["made_of"] != made_of:
            return None
        return {int(horizon): BacktestResult.from_json(values) for horizon, values in found["backtests"].items()}
    except (OSError, ValueError, KeyError, TypeError):
        return None
