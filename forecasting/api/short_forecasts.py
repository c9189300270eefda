"""Short forecasts as bytes: what is asked for, and the answer of the model, or of the floor where that fails."""

import logging
from collections.abc import Hashable
from dataclasses import dataclass, replace

from forecasting.api.bodies import Digits, Layout, forecast_body
from forecasting.api.cache import Answer
from forecasting.api.computing import WorkFailedError
from forecasting.api.parameters import metric_names, quantile_levels, split, whole_number
from forecasting.api.problems import Problem, parameter_problem
from forecasting.api.service import Service
from forecasting.live import LiveState
from forecasting.resolving import no_forecast
from forecasting.rollouts import Rollouts
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


async def short_forecast(
    service: Service, graph: str, wanted: ShortForecast, *, anew: bool = False
) -> tuple[LiveState, Answer]:
    """Return the answer and the state that it rests on: the model's, or where that fails the floor's.

    Args:
        service: of this process.
        graph: which graph.
        wanted: what of its forecast.
        anew: nothing will do that was computed before this call, neither an answer nor a rollout.

    Raises:
        Problem: there is no answer in time, or none at all.
    """
    computing = service.computing
    if wanted.seed is None:
        wanted = replace(wanted, seed=service.settings.forecast.seed)

    def key(live: LiveState) -> tuple[Hashable, ...]:
        return (*live.key, live.next_step_us, live.degraded_reason, wanted)

    known = service.following.live(graph)
    if known is not None and not anew:
        kept = computing.kept(key(known))
        if kept is not None:
            return known, kept

    async def compute(live: LiveState) -> tuple[LiveState, Answer]:
        def work(batch: int) -> bytes:
            return forecast_bytes(live, service.rollouts, wanted, digits=service.digits, batch=batch, anew=anew)

        # What was looked for above is not there; of a state that had to be encoded first, it may be.
        kept = None if anew or live is known else computing.kept(key(live))
        return live, kept or await computing.answer(key(live), work, anew=anew)

    async def model_or_floor() -> tuple[LiveState, Answer]:
        live = await service.following.state_of(graph)
        while True:
            try:
                return await compute(live)
            except WorkFailedError:
                # A floor has no weights.
                if live.model_digest is None:
                    raise Problem(500, "internal", f"no forecast of {graph!r} could be made") from None
            _log.warning("the model of %s made no forecast: the floor answers", graph)
            # Where the state has moved meanwhile, it is the model's once more.
            live = await service.following.degrade(live, no_forecast(graph))

    return await computing.within_deadline(model_or_floor())


def forecast_bytes(
    live: LiveState,
    rollouts: Rollouts,
    wanted: ShortForecast,
    *,
    digits: Digits | None = None,
    batch: int = 0,
    anew: bool = False,
) -> bytes:
    """Return the answer from a state; `wanted` names a seed, `batch` and `anew` are as for `Rollouts.steps`.

    `digits` keeps what was written of a rollout, if it is given.

    Raises:
        ModelError: the model made no forecast.
    """
    seed = wanted.seed or 0
    chunk = rollouts.steps(live, wanted.steps, seed=seed, n_paths=wanted.n_paths, batch=batch, anew=anew)
    return forecast_body(
        live,
        chunk,
        layout=wanted.layout,
        metrics=wanted.metrics,
        levels=wanted.levels,
        seed=seed,
        digits=digits,
    )
