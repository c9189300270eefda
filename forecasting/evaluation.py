"""A backtest of the forecaster beside the floors, with a model that saw nothing of what it is tested on."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from forecasting.backtest import backtest
from forecasting.backtests.plan import origin_stride
from forecasting.backtests.scores import BacktestResult
from forecasting.training import describe, forecaster_config, forecaster_of, train_graph, training_config
from infra.errors import ModelError, UsageError
from infra.settings import Settings
from models import checkpoint
from models.baselines import floors
from models.contract import History
from models.forecaster import ForecasterConfig
from models.seasons import season_steps
from models.training import MIN_SEASONS, TrainingConfig, TrainingProgress


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A backtest and the name of the forecaster in it; `trained` tells whether its model was trained for this run."""

    result: BacktestResult
    forecaster: str
    trained: bool


def evaluate(
    history: History,
    graph: str,
    settings: Settings,
    *,
    on_training: Callable[[TrainingProgress], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Train on the steps before the first origin, then backtest that model and all floors.

    The model is kept apart from the graph's own, and used again while history, settings and origins stay the same.

    Raises:
        UsageError: the windows leave too little history to train on.
        ModelError: the model cannot be kept.
    """
    horizons, origins = settings.backtest.horizons, settings.backtest.origins
    first_origin, stride = _plan(history, max(horizons), origins)
    folder = settings.models.directory / ".backtest" / graph
    forecaster, config = forecaster_config(settings), training_config(settings)
    past = history.part(0, first_origin)
    found = _fitting(folder, past, graph, forecaster, config)
    trained = found is None
    if found is None:
        found = train_graph(past, graph, folder, forecaster, config, on_progress=on_training)
    model = forecaster_of(found)
    result = backtest(
        history,
        [model, *floors()],
        horizons=horizons,
        origins=origins,
        test_start=first_origin,
        stride=stride,
        seed=settings.forecast.seed,
        on_progress=on_progress,
    )
    return Evaluation(result, model.name, trained)


def _plan(history: History, window: int, origins: int) -> tuple[int, int]:
    """Return the first origin and the steps from origin to origin; the last window ends with the history."""
    season = season_steps(history.step_us)
    stride = origin_stride(window, season)
    first_origin = len(history) - (origins - 1) * stride - window
    needed = MIN_SEASONS * season
    if first_origin < needed:
        raise UsageError(
            f"{origins} windows of {window} steps, {stride} apart, leave {max(first_origin, 0)} of {len(history)} "
            f"steps to train on, and {needed} are needed",
            fix="take fewer --origins or shorter --horizons, or ingest more history",
        )
    return first_origin, stride


def _fitting(
    folder: Path, past: History, graph: str, forecaster: ForecasterConfig, config: TrainingConfig
) -> checkpoint.Checkpoint | None:
    """Return the kept model if the same training on the same steps made it."""
    try:
        found = checkpoint.load(folder)
    except ModelError:
        # It is only kept to save time; damaged, or from another version, it is made anew.
        return None
    if found is None:
        return None
    made_by = (found.card["data"], found.card["architecture"], found.card["scores"]["training"])
    return found if made_by == ([describe(past, graph)], forecaster.as_json(), asdict(config)) else None
