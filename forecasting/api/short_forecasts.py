"""Short forecasts as bytes: what is asked for, and the answer of the model, or of the floor where that fails."""

import logging
from dataclasses import dataclass, replace

from forecasting.api.bodies import Layout, forecast_body
from forecasting.api.cache import Answer
from forecasting.api.computing import WorkFailedError
from forecasting.api.parameters import metric_names, quantile_levels, split, whole_number
from forecasting.api.problems import Problem, parameter_problem
from forecasting.api.service import Service
from forecasting.live import LiveState
from infra.schema import MAX_HORIZON_STEPS, MAX_PATHS, METRIC_NAMES, QUANTILE_LEVELS
from infra.settings import MAX_SEED, ApiSettings

DEFAULT_HORIZON = 24
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ShortForecast:
    """What a short forecast is asked for; equal ones are computed once.

    Attributes:
        steps: steps ahead.
        metrics, levels: which of them.
        layout: of the JSON.
        n_paths: sample paths beside them.
        seed: of what is drawn; that of the settings if None.
    """

    steps: int
    metrics: tuple[str, ...]
    levels: tuple[float, ...]
    layout: Layout = Layout.SERIES
    n_paths: int = 0
    seed: int | None = None


def horizon_steps(graph: str, text: str | None, short_max_steps: int) -> int:
    """Return the steps ahead that a query asks for.

    Raises:
        Problem: the text is no number of steps, or one for a job.
    """
    if text is None:
        return min(DEFAULT_HORIZON, short_max_steps)
    steps = whole_number("horizon", text, 1, MAX_HORIZON_STEPS, example=min(DEFAULT_HORIZON, short_max_steps))
    if steps > short_max_steps:
        raise parameter_problem(
            "horizon",
            text,
            f"a whole number from 1 to {short_max_steps} here; for more, POST to /v1/graphs/{graph}/forecasts",
            short_max_steps,
            minimum=1,
            maximum=short_max_steps,
            long_range={"method": "POST", "href": f"/v1/graphs/{graph}/forecasts", "body": {"horizon": steps}},
        )
    return steps


def most_paths(api: ApiSettings) -> int:
    """Return how many sample paths a short answer may have.

    Paths are drawn for every metric and as far as short answers go, whatever of them is asked for.
    """
    return max(1, min(MAX_PATHS, api.max_path_values // (api.short_max_steps * len(METRIC_NAMES))))


def paths_of(text: str | None, most: int) -> int:
    """Return the sample paths that a query asks for; 0 if it asks for none.

    Raises:
        Problem: the text is no number of paths.
    """
    if text is None:
        return 0
    return whole_number("paths", text, 1, most, example=min(20, most))


def seed_of(text: str | None) -> int | None:
    """Return the seed of a query; None if it names none.

    Raises:
        Problem: the text is none.
    """
    return None if text is None else whole_number("seed", text, 0, MAX_SEED, example=7)


def metrics_of(text: str | None) -> tuple[str, ...]:
    """Return the metrics of a query; all if it names none.

    Raises:
        Problem: one is unknown.
    """
    return METRIC_NAMES if text is None else metric_names("metrics", split(text))


def levels_of(text: str | None) -> tuple[float, ...]:
    """Return the quantile levels of a query; all if it names none.

    Raises:
        Problem: one is not forecast.
    """
    return QUANTILE_LEVELS if text is None else quantile_levels("quantiles", split(text))


async def short_forecast(service: Service, graph: str, wanted: ShortForecast) -> tuple[LiveState, Answer]:
    """Return the answer and the state that it rests on: the model's, or where that fails the floor's.

    Raises:
        Problem: there is no answer in time, or none at all.
    """
    computing = service.computing
    seed = service.settings.forecast.seed if wanted.seed is None else wanted.seed

    async def compute(live: LiveState) -> tuple[LiveState, Answer]:
        def work() -> bytes:
            chunk = service.rollouts.steps(live, wanted.steps, seed=seed, n_paths=wanted.n_paths)
            return forecast_body(
                live, chunk, layout=wanted.layout, metrics=wanted.metrics, levels=wanted.levels, seed=seed
            )

        return live, await computing.answer(
            (*live.key, live.next_step_us, live.degraded_reason, replace(wanted, seed=seed)), work
        )

    async def model_or_floor() -> tuple[LiveState, Answer]:
        live = await service.following.state_of(graph)
        try:
            return await compute(live)
        except WorkFailedError:
            if live.degraded_reason is not None:
                raise Problem(500, "internal", f"no forecast of {graph!r} could be made") from None
            _log.warning("the model of %s made no forecast: the floor answers", graph)
            return await compute(
                await service.following.degrade(live, f"the model of {graph!r} made no forecast from this state")
            )

    return await computing.within_deadline(model_or_floor())
