"""`GET /v1/graphs/{graph}/forecast`: the next steps, at once, from the live state."""

import time
from functools import lru_cache
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.datastructures import Headers, QueryParams
from starlette.responses import Response

from forecasting.api.bodies import Layout
from forecasting.api.parameters import check_reach, once_each
from forecasting.api.problems import parameter_problem
from forecasting.api.responses import tagged
from forecasting.api.service import CallerHere, Service, ServiceHere
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
from forecasting.keys import Key

PATH = "/v1/graphs/{graph}/forecast"
router = APIRouter(tags=["forecasts"])


@router.get(PATH, summary="Forecast of the next steps, answered at once")
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
    # They stand above for the description of the interface alone: what is asked past the routes reads them too.
    del horizon, metrics, quantiles, layout, paths, seed
    return await answer_forecast(service, caller, graph, request.url.query, request.headers)


async def answer_forecast(service: Service, caller: Key, graph: str, query: str, headers: Headers) -> Response:
    """Return the answer to a request.

    Args:
        service: of this process.
        caller: who asks.
        graph: for which graph.
        query: what stands behind the question mark.
        headers: of the request; `Cache-Control: no-cache` asks for an answer that is computed from now on.

    Raises:
        Problem: there is no such graph, a parameter cannot be used, or no answer comes in time.
    """
    info = service.graph(caller, graph)
    wanted = wanted_of(graph, query, service.settings.api.short_max_steps, most_paths(service.settings.api))
    check_reach(info, wanted.steps)
    anew = "no-cache" in headers.get("cache-control", "").lower()
    live, answer = await short_forecast(service, graph, wanted, anew=anew)
    age_s = max(0.0, time.time() - live.next_step_us / 1e6)
    if live.degraded_reason is not None:
        service.telemetry.degraded.labels(graph).inc()
    told = {
        "Graphtide-Data-Age": f"{age_s:.0f}",
        "Graphtide-Degraded": "true" if live.degraded_reason is not None else "false",
    }
    return await tagged(headers, answer, told, kept=(service.computing.cache, graph))


# The same few are asked for again and again.
@lru_cache(maxsize=256)
def wanted_of(graph: str, query: str, short_max_steps: int, max_paths: int) -> ShortForecast:
    """Return what a query asks for.

    Raises:
        Problem: a parameter cannot be used.
    """
    given = once_each(QueryParams(query).multi_items(), ("horizon", "metrics", "quantiles", "format", "paths", "seed"))
    steps = horizon_steps(graph, given.get("horizon"), short_max_steps)
    names, levels = metrics_of(given.get("metrics")), levels_of(given.get("quantiles"))
    layout = given.get("format")
    if layout not in {None, *Layout}:
        raise parameter_problem("format", layout, f"one of {', '.join(Layout)}", Layout.LONG.value)
    n_paths = paths_of(given.get("paths"), max_paths)
    return ShortForecast(steps, names, levels, Layout(layout or Layout.SERIES), n_paths, seed_of(given.get("seed")))
