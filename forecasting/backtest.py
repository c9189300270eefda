"""Rolling-origin evaluation: forecasts from successive origins of a history, scored against what came.

Windows do not overlap, a state moves on from origin to origin, and every model sees of the history what lies before
its origin and nothing else.
"""

from collections.abc import Callable, Sequence
from typing import Any

from forecasting.backtests.parts import Part, run_parts
from forecasting.backtests.plan import make_plan
from forecasting.backtests.scores import BacktestResult, summarise
from infra.errors import UsageError
from models.contract import History, Model
from models.floor import Floor


def backtest(
    history: History,
    models: Sequence[Model[Any]],
    *,
    horizons: Sequence[int] = (1, 24, 168),
    origins: int = 6,
    test_start: int | None = None,
    stride: int | None = None,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> BacktestResult:
    """Forecast from rolling origins and score, in this process.

    The windows are as long as the longest horizon. They lie from `test_start` on, or so that the last ends with the
    history.

    Args:
        history: all steps.
        models: what to compare; names must differ.
        horizons: steps ahead; scores are given from step 1 up to each, beside those of `HORIZON_BUCKETS`.
        origins: number of windows.
        test_start: index of the first origin; the steps before it scale MASE.
        stride: steps from origin to origin, at least a window; None for windows that follow one another.
        seed: seed of the sample paths of totals.
        on_progress: called with windows done and to do, all models together.

    Raises:
        UsageError: the history is too short, or a horizon, the origins, the start or the names make no sense.
    """
    plan = make_plan(history, horizons=horizons, origins=origins, test_start=test_start, stride=stride, seed=seed)
    names = [model.name for model in models]
    if not names or len(set(names)) < len(names):
        raise UsageError(f"a backtest needs models with different names, not {names}")
    parts: dict[str, list[Part]] = {name: [] for name in names}

    for index, model in enumerate(models):

        def keep(number: int, part: Part, name: str = model.name, before: int = index * origins) -> None:
            parts[name].append(part)
            if on_progress is not None:
                on_progress(before + number + 1, len(models) * origins)

        run_parts(history, model, plan, range(origins), keep)
    return summarise(history, plan, parts, [model.name for model in models if isinstance(model, Floor)])
