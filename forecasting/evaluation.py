"""Backtests of the forecaster beside floors, with models that saw nothing of what they are tested on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forecasting.backtests.engine import Engine, LocalEngine, OnTraining, Recipe, Training
from forecasting.backtests.kept import KeptParts, read
from forecasting.backtests.parts import Part
from forecasting.backtests.plan import Plan, default_horizons, make_plan, origin_stride
from forecasting.backtests.ratios import Ratio, ratios
from forecasting.backtests.scores import BacktestResult, json_fields, summarise
from forecasting.backtests.workers import Entrant, Task
from forecasting.training import forecaster_config, forecaster_of, kept_training, start_of
from infra.errors import ModelError, UsageError
from infra.settings import Settings
from models import checkpoint, floor_libraries
from models.contract import History
from models.floor_names import named_floors
from models.seasons import season_steps
from models.training import MIN_SEASONS

# Times that a forecast is made where nobody asked for a number: they spread over half a year of hours.
MOST_ORIGINS = 24
# Told the parts that are done and to do.
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Backtests of the same models.

    Attributes:
        results: by graph.
        forecaster: the name of the forecaster in them.
        floors: the names of the floors in them.
        trained: the graphs whose model was trained for this run.
        reused: how many parts were found kept, of how many.
    """

    results: dict[str, BacktestResult]
    forecaster: str
    floors: tuple[str, ...]
    trained: tuple[str, ...]
    reused: tuple[int, int]

    def summary(self) -> list[Ratio]:
        """Return geometric means over the graphs and their count metrics."""
        return ratios([result.rows for result in self.results.values()], [self.forecaster, *self.floors], self.floors)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values: of one graph its result, of several their results and the summary."""
        found = [result.to_json(graph) for graph, result in self.results.items()]
        if len(found) == 1:
            return found[0]
        return {"graphs": found, "summary": {"graphs": len(found), "ratios": [json_fields(r) for r in self.summary()]}}


def evaluate(
    histories: Mapping[str, History],
    settings: Settings,
    *,
    on_training: OnTraining | None = None,
    on_progress: OnProgress | None = None,
    engine: Engine | None = None,
) -> Evaluation:
    """Train on the steps before the first origin of each graph, then backtest these models and the floors.

    The models are kept apart from the graphs' own, and used again while history, settings and origins stay the same.
    So are the parts of the backtest, in worker processes or here: whatever ends this, the next call goes on from them.

    Args:
        histories: by graph.
        settings: `[backtest]` says which floors, horizons, origins and how many workers.
        on_training: told of the training of a graph.
        on_progress: told how many forecasts are done, of all that are.
        engine: what trains and forecasts; processes of this machine if None.

    Raises:
        UsageError: the windows leave too little history to train on, or there is no such floor.
        ModelError: a model cannot be kept or fails, or a floor's library is not installed.
        GraphtideError: a part cannot be kept.
    """
    floors = tuple(floor.name for floor in named_floors(settings.backtest.floors))
    plans = {graph: make_graph_plan(history, graph, settings) for graph, history in histories.items()}
    engine = engine or LocalEngine(settings.backtest.workers)
    made, trained = _forecasters(histories, plans, settings, engine, on_training)
    entrants = {
        graph: [
            Entrant(forecaster_of(made[graph]).name, made[graph].digest, _folder(graph, settings)),
            *(_floor_entrant(name) for name in floors),
        ]
        for graph in histories
    }
    paths = {graph: _paths(histories[graph], graph, plans[graph], entrants[graph], settings) for graph in histories}
    total = sum(len(by_origin) for by_model in paths.values() for by_origin in by_model.values())
    tasks = [
        Task(graph, histories[graph], plans[graph], entrant, missing)
        for graph, found in entrants.items()
        for entrant in found
        if (missing := {n: path for n, path in enumerate(paths[graph][entrant.name]) if read(path) is None})
    ]
    reused = total - sum(len(task.paths) for task in tasks)

    def report(done: int) -> None:
        if on_progress is not None:
            on_progress(reused + done, total)

    engine.run(tasks, report)
    results = {graph: _result(histories[graph], plans[graph], paths[graph], floors) for graph in histories}
    return Evaluation(results, entrants[next(iter(histories))][0].name, floors, trained, (reused, total))


def make_graph_plan(history: History, graph: str, settings: Settings) -> Plan:
    """Return the plan of a graph; the last window ends with the history.

    Raises:
        UsageError: the windows leave too little history to train on.
    """
    asked = settings.backtest
    horizons = asked.horizons or default_horizons(history.step_us)
    season, window = season_steps(history.step_us), max(horizons)
    stride = origin_stride(window, season)
    needed = MIN_SEASONS * season
    # None where not even one window fits.
    most = max(0, (len(history) - needed - window) // stride + 1)
    origins = min(most, MOST_ORIGINS) if asked.origins == 0 else asked.origins
    first_origin = len(history) - (max(origins, 1) - 1) * stride - window
    if not 1 <= origins <= most:
        raise UsageError(
            f"{_windows(max(origins, 1), window, stride)} {max(first_origin, 0):,} of {len(history):,} steps of graph"
            f" {graph} to train on, and {needed:,} are needed",
            fix=f"take at most {most} --origins, or shorter --horizons"
            if most
            else "take shorter --horizons, or ingest more history",
        )
    seed = settings.forecast.seed
    return make_plan(history, horizons=horizons, origins=origins, test_start=first_origin, stride=stride, seed=seed)


def _windows(count: int, window: int, stride: int) -> str:
    if count == 1:
        return f"a window of {window:,} steps leaves"
    return f"{count:,} windows of {window:,} steps, {stride:,} apart, leave"


def _result(history: History, plan: Plan, paths: Mapping[str, Sequence[Path]], floors: Sequence[str]) -> BacktestResult:
    parts: dict[str, list[Part]] = {}
    for model, by_origin in paths.items():
        parts[model] = []
        for path in by_origin:
            part = read(path)
            if part is None:
                raise ModelError(f"{path} is gone or damaged since it was written", fix="run the command again")
            parts[model].append(part)
    return summarise(history, plan, parts, floors)


def _forecasters(
    histories: Mapping[str, History],
    plans: Mapping[str, Plan],
    settings: Settings,
    engine: Engine,
    on_training: OnTraining | None,
) -> tuple[dict[str, checkpoint.Checkpoint], tuple[str, ...]]:
    """Return the forecaster of each graph, and the graphs for which it was trained just now."""
    forecaster, (start, config) = forecaster_config(settings), start_of(settings)
    found, missing = {}, []
    for graph, history in histories.items():
        past = history.part(0, plans[graph].first_origin)
        kept = kept_training(_folder(graph, settings), past, graph, forecaster, config, start)
        if kept is None:
            missing.append(Training(graph, past, _folder(graph, settings)))
        else:
            found[graph] = kept
    found |= engine.train(missing, Recipe(forecaster, config, start), on_training)
    return found, tuple(training.graph for training in missing)


def _folder(graph: str, settings: Settings) -> Path:
    return settings.models.directory / ".backtest" / graph


def _floor_entrant(name: str) -> Entrant:
    (floor,) = named_floors([name])
    versions = floor_libraries.versions()
    return Entrant(name, f"{floor.library} {versions.get(floor.library, '')}" if floor.library else "")


def _paths(
    history: History, graph: str, plan: Plan, entrants: Sequence[Entrant], settings: Settings
) -> dict[str, list[Path]]:
    """Return by model where the part of each origin is kept."""
    kept = KeptParts(settings.models.directory / ".backtest" / ".parts" / graph)
    kept.sweep()
    digests = plan.data_digests(history)
    return {
        entrant.name: [
            kept.path(entrant.name, {"data": data, "model": entrant.digest, **plan.part_key(origin)})
            for origin, data in zip(plan.origins, digests, strict=True)
        ]
        for entrant in entrants
    }
