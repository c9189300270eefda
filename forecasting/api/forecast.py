"""`GET /v1/graphs/{graph}/forecast`: the next steps, at once, from the live state."""

import time
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from forecasting.api.bodies import Layout
from forecasting.api.parameters import query
from forecasting.api.problems import parameter_problem
from forecasting.api.responses import tagged
from forecasting.api.service import CallerHere, ServiceHere
from forecasting.api.short_forecasts import (
    ShortForecast,
    horizon_steps,
    levels_of,
    metrics_of,
    most_paths,
    paths_of,
    seed_of,
    short_forecast,
)

router = APIRouter(tags=["forecasts"])


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
    paths: Annotated[str | None, Query(description="Sample paths beside the quantiles, from 1.")] = None,
    seed: Annotated[str | None, Query(description="Seed of what is drawn.")] = None,
) -> Response:
    """Answer mean and quantiles of each metric and step; `Graphtide-Data-Age` says how old the data are, in seconds."""
    query(request, ("horizon", "metrics", "quantiles", "format", "paths", "seed"))
    service.graph(caller, graph)
    steps = horizon_steps(graph, horizon, service.settings.api.short_max_steps)
    names, levels = metrics_of(metrics), levels_of(quantiles)
    if layout not in {None, *Layout}:
        raise parameter_problem("format", layout, f"one of {', '.join(Layout)}", Layout.LONG.value)
    n_paths = paths_of(paths, most_paths(service.settings.api))
    wanted = ShortForecast(steps, names, levels, Layout(layout or Layout.SERIES), n_paths, seed_of(seed))
    live, answer = await short_forecast(service, graph, wanted)
    age_s = max(0.0, time.time() - live.next_step_us / 1e6)
    service.telemetry.data_age.labels(graph).set(age_s)
    if live.degraded_reason is not None:
        service.telemetry.degraded.labels(graph).inc()
    headers = {
        "Graphtide-Data-Age": f"{age_s:.0f}",
        "Graphtide-Degraded": "true" if live.degraded_reason is not None else "false",
    }
    return await tagged(request, answer, headers, kept=(service.computing.cache, graph))
