"""`GET /v1/graphs/{graph}/forecast`: the next steps, at once, from the live state."""

import logging
import time
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from forecasting.api.bodies import Layout, forecast_body
from forecasting.api.cache import Answer
from forecasting.api.computing import WorkFailedError
from forecasting.api.parameters import metric_names, quantile_levels, query, split, whole_number
from forecasting.api.problems import Problem, parameter_problem
from forecasting.api.responses import tagged
from forecasting.api.service import CallerHere, Service, ServiceHere
from forecasting.live import LiveState
from infra.schema import MAX_HORIZON_STEPS, METRIC_NAMES, QUANTILE_LEVELS

router = APIRouter(tags=["forecasts"])
DEFAULT_HORIZON = 24
_log = logging.getLogger(__name__)


@router.get("/v1/graphs/{graph}/forecast", summary="Forecast of the next steps, answered at once")
async def forecast(
    graph: str,
    request: Request,
    service: ServiceHere,
    caller: CallerHere,
    horizon: Annotated[str | None, Query(description="Steps ahead, a whole number from 1.")] = None,
    metrics: Annotated[str | None, Query(description="Metrics, with commas; all if left out.")] = None,
    quantiles: Annotated[str | None, Query(description="Quantile levels, with commas; all if left out.")] = None,
    layout: Annotated[str | None, Query(alias="format", description="series or long.")] = None,
) -> Response:
    """Answer mean and quantiles of each metric and step; `Graphtide-Data-Age` says how old the data are, in seconds."""
    query(request, ("horizon", "metrics", "quantiles", "format"))
    service.graph(caller, graph)
    steps = _horizon(graph, horizon, service.settings.api.short_max_steps)
    names = METRIC_NAMES if metrics is None else metric_names("metrics", split(metrics))
    levels = QUANTILE_LEVELS if quantiles is None else quantile_levels("quantiles", split(quantiles))
    if layout not in {None, *Layout}:
        raise parameter_problem("format", layout, f"one of {', '.join(Layout)}", Layout.LONG.value)
    chosen = Layout(layout or Layout.SERIES)
    live, answer = await _answer(service, graph, steps, names, levels, chosen)
    age_s = max(0.0, time.time() - live.next_step_us / 1e6)
    service.telemetry.data_age.labels(graph).set(age_s)
    if live.degraded_reason is not None:
        service.telemetry.degraded.labels(graph).inc()
    headers = {
        "Graphtide-Data-Age": f"{age_s:.0f}",
        "Graphtide-Degraded": "true" if live.degraded_reason is not None else "false",
    }
    return tagged(request, answer, headers)


def _horizon(graph: str, text: str | None, short_max_steps: int) -> int:
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


async def _answer(
    service: Service,
    graph: str,
    steps: int,
    names: tuple[str, ...],
    levels: tuple[float, ...],
    layout: Layout,
) -> tuple[LiveState, Answer]:
    """Return the answer and the state that it rests on: the model's, or where that fails the floor's."""
    computing, seed = service.computing, service.settings.forecast.seed

    async def compute(live: LiveState) -> tuple[LiveState, Answer]:
        def work() -> bytes:
            chunk = service.rollouts.steps(live, steps)
            return forecast_body(live, chunk, layout=layout, metrics=names, levels=levels, seed=seed)

        return live, await computing.answer((*live.key, steps, names, levels, layout), work)

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
