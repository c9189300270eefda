"""Backtests of the forecaster beside floors, with models that saw nothing of what they are tested on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from forecasting.backtests.begun import Begun
from forecasting.backtests.engine import Engine, LocalEngine, OnTraining, Recipe, Training
from forecasting.backtests.kept import KeptParts, read
from forecasting.backtests.parts import Part
from forecasting.backtests.plan import Plan, default_horizons, make_plan, origin_stride
from forecasting.backtests.ratios import Ratio, ratios
from forecasting.backtests.scores import BacktestResult, json_fields, summarise
from forecasting.backtests.workers import Entrant, Task, checkpoint_digest
from forecasting.resolving import general_card, general_model, needed_steps, why_not_general
from forecasting.training import forecaster_config, kept_training, start_of
from infra.errors import ModelError, UsageError
from infra.settings import Settings
from models import checkpoint, floor_libraries, general_folder
from models.contract import History
from models.floor_names import named_floors
from models.seasons import season_steps
from models.training import MIN_SEASONS

# Times that a forecast is made where nobody asked for a number: they spread over half a year of hours.
MOST_ORIGINS = 24
TRAINED = "was trained on the steps before the first origin"
AS_IT_COMES = "is the model that comes with the package, not trained any further"
# Told the parts that are done and to do.
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Backtests of the same models.

    Attributes:
        results: by graph.
        forecasters: the forecasters in them by name, those that were trained first, and a predicate that says what each
            is. A graph may lack some; the notes of its result say why.
        floors: the names of the floors in them.
        trained: the graphs whose model was trained for this run.
        reused: how many parts were found kept, of how many.
    """

    results: dict[str, BacktestResult]
    forecasters: Mapping[str, str]
    floors: tuple[str, ...]
    trained: tuple[str, ...]
    reused: tuple[int, int]

    def forecasters_of(self, graph: str) -> list[str]:
        """Return the names of the forecasters in the result of a graph, at least one."""
        return [name for name in self.forecasters if name in self.results[graph].timings]

    def summary(self) -> list[Ratio]:
        """Return geometric means over the graphs and their count metrics."""
        models = [*self.forecasters, *self.floors]
        return ratios([result.rows for result in self.results.values()], models, self.floors)

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
    beginning: Begun | None = None,
) -> Evaluation:
    """Train on the steps before the first origin of each graph, then backtest these models, the general one and floors.

    Where these steps are too few for a training, the general model and the floors are scored alone.

    The models are kept apart from the graphs' own, and used again while history, settings and origins stay the same.
    So are the parts of the backtest, in worker processes or here: whatever ends this, the next call goes on from them.

    Args:
        histories: by graph.
        settings: `[backtest]` says which floors, horizons, origins and how many workers.
        on_training: told of the training of a graph.
        on_progress: told how many forecasts are done, of all that are.
        engine: what trains and forecasts; processes of this machine if None.
        beginning: is told what this begins with, so that a later call can be given the same steps of grown graphs.

    Raises:
        UsageError: the windows leave too little history to forecast from, or there is no such floor.
        ModelError: the general model is missing or damaged, a model cannot be kept or fails, or a floor's library is
            not installed.
        GraphtideError: a part or the beginning cannot be kept.
    """
    floors = tuple(floor.name for floor in named_floors(settings.backtest.floors))
    plans = {graph: make_graph_plan(history, graph, settings) for graph, history in histories.items()}
    engine = engine or LocalEngine(settings.backtest.workers)
    general = general_model()
    if beginning is not None:
        beginning.write(histories, {graph: plan.first_origin for graph, plan in plans.items()})
    made, trained = _forecasters(histories, plans, settings, engine, on_training)
    entrants: dict[str, list[Entrant]] = {}
    notes: dict[str, list[str]] = {}
    for graph, history in histories.items():
        entrants[graph], notes[graph] = _ours(history, graph, plans[graph], made.get(graph), general, settings)
    ours = {one.name for found in entrants.values() for one in found}
    forecasters = {str(found.card["name"]): TRAINED for found in made.values()}
    forecasters |= dict.fromkeys(ours - forecasters.keys(), AS_IT_COMES)
    for found in entrants.values():
        found += [_floor_entrant(name) for name in floors]
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
    results = {
        graph: replace(_result(history, plans[graph], paths[graph], floors), notes=notes[graph])
        for graph, history in histories.items()
    }
    return Evaluation(results, forecasters, floors, trained, (reused, total))


def begun(graphs: Sequence[str], settings: Settings) -> Begun:
    """Return the beginning of the backtest of some graphs with these settings; no graph stands for all of a store.

    Its engine and how many processes work on it make no other backtest of it.
    """
    asked = {
        "graphs": sorted(set(graphs)),
        "backtest": settings.backtest.model_dump(mode="json", exclude={"workers"}),
        "forecaster": settings.forecaster.model_dump(mode="json"),
        "training": settings.training.model_dump(mode="json"),
        "seed": settings.forecast.seed,
    }
    return Begun.of(settings.models.directory / ".backtest" / ".begun", asked)


def make_graph_plan(history: History, graph: str, settings: Settings) -> Plan:
    """Return the plan of a graph; the last window ends with the history.

    Where not even one window leaves enough to train on, it leaves what the general model needs.

    Raises:
        UsageError: the windows leave too little history to forecast from.
        ModelError: the general model is missing or damaged.
    """
    asked = settings.backtest
    horizons = asked.horizons or default_horizons(history.step_us)
    season, window = season_steps(history.step_us), max(horizons)
    stride = origin_stride(window, season)
    needed, aim = _needed_to_train(history), "to train on"

    def fitting() -> int:
        return max(0, (len(history) - needed - window) // stride + 1)

    most = fitting()
    if most == 0 and why_not_general(general_card(), history.step_us, needed_steps(history.step_us)) is None:
        needed, aim = needed_steps(history.step_us), "to forecast from without a training"
        most = fitting()
    origins = min(most, MOST_ORIGINS) if asked.origins == 0 else asked.origins
    first_origin = len(history) - (max(origins, 1) - 1) * stride - window
    if not 1 <= origins <= most:
        raise UsageError(
            f"{_windows(max(origins, 1), window, stride)} {max(first_origin, 0):,} of {len(history):,} steps of graph"
            f" {graph} {aim}, and {needed:,} are needed",
            fix=f"take at most {most} --origins, or shorter --horizons"
            if most
            else ("take shorter --horizons, or " if len(history) > needed else "") + "ingest more history",
        )
    seed = settings.forecast.seed
    return make_plan(history, horizons=horizons, origins=origins, test_start=first_origin, stride=stride, seed=seed)


def _ours(
    history: History,
    graph: str,
    plan: Plan,
    made: checkpoint.Checkpoint | None,
    general: checkpoint.Checkpoint,
    settings: Settings,
) -> tuple[list[Entrant], list[str]]:
    """Return the forecasters of a graph, the one that was trained first, and what of the usual is not there and why."""
    found, notes = [], []
    if made is not None:
        found.append(_entrant(made, _folder(graph, settings)))
    else:
        needed = _needed_to_train(history)
        notes.append(
            f"no model was trained: {plan.first_origin:,} of {len(history):,} steps lie before the first origin, and a "
            f"training needs {needed:,}; ingest more history"
            + (", or take shorter --horizons" if len(history) > needed else "")
        )
    if plan.first_origin <= season_steps(history.step_us):
        notes.append("MASE is undefined: no step before the first origin has one a season before it")
    unfit = why_not_general(general.card, history.step_us, plan.first_origin)
    if unfit is None:
        found.append(_entrant(general, general_folder()))
    else:
        notes.append(f"{general.card['name']} is left out: {unfit}")
    return found, notes


def _needed_to_train(history: History) -> int:
    return MIN_SEASONS * season_steps(history.step_us)


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
    """Return the forecaster of each graph that is long enough for one, and the graphs that were trained just now."""
    forecaster, (start, config) = forecaster_config(settings), start_of(settings)
    found, missing = {}, []
    for graph, history in histories.items():
        if plans[graph].first_origin < _needed_to_train(history):
            continue
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


def _entrant(found: checkpoint.Checkpoint, folder: Path) -> Entrant:
    return Entrant(str(found.card["name"]), checkpoint_digest(found), folder)


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
