"""`GET /v1/graphs/{graph}/live`: snapshots as they close or are revised, and forecasts that follow them."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response

from forecasting.api import results, streams
from forecasting.api.cursors import Cursor
from forecasting.api.event_stream import EventStream
from forecasting.api.news import News, Subscription
from forecasting.api.parameters import check_reach, query
from forecasting.api.problems import parameter_problem
from forecasting.api.service import CallerHere, ServiceHere
from forecasting.api.short_forecasts import ShortForecast, horizon_steps, levels_of, metrics_of

router = APIRouter(tags=["graphs"])


@router.get("/v1/graphs/{graph}/live", summary="New and revised snapshots, and forecasts, as they come")
async def live(
    graph: str,
    request: Request,
    service: ServiceHere,
    caller: CallerHere,
    horizon: Annotated[str | None, Query(description="Steps ahead of a forecast after each change.")] = None,
    metrics: Annotated[str | None, Query(description="Metrics, with commas; all if left out.")] = None,
    quantiles: Annotated[str | None, Query(description="Quantile levels of the forecast, with commas.")] = None,
    last_event_id: Annotated[str | None, Header(description="The id of the last event that was received.")] = None,
) -> Response:
    """Stream server-sent events, or lines of JSON by `Accept: application/x-ndjson`, from the last snapshot on."""
    query(request, ("horizon", "metrics", "quantiles"))
    info = service.graph(caller, graph)
    names, levels = metrics_of(metrics), levels_of(quantiles)
    forecast = None
    if horizon is not None:
        steps = horizon_steps(graph, horizon, service.settings.api.short_max_steps)
        check_reach(info, steps)
        forecast = ShortForecast(steps, names, levels)
    elif quantiles is not None:
        raise parameter_problem("quantiles", quantiles, "it together with horizon: snapshots have none", "0.1,0.5,0.9")
    media_type = results.accepted(request.headers.get("accept"), streams.MEDIA_TYPES)
    cursor = None
    if last_event_id:
        cursor = Cursor.parse(last_event_id)
        if cursor is None:
            raise parameter_problem("Last-Event-ID", last_event_id, "the id of an event of this stream", "leave it out")
    news = News(service, Subscription(graph, caller, names, forecast, media_type), cursor)
    return EventStream(service, caller.id, news.lines(service.settings.api.heartbeat_s), media_type)
