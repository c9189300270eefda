"""`GET /v1/graphs/{graph}/history`: what was observed, at the resolution of a screen."""

from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from forecasting.api.bodies import encode
from forecasting.api.cache import Answer
from forecasting.api.computing import entity_tag
from forecasting.api.parameters import metric_names, query, split, time_us, whole_number
from forecasting.api.responses import tagged
from forecasting.api.service import CallerHere, ServiceHere
from forecasting.downsampling import Buckets, downsample
from infra.schema import METRIC_INDEX, METRICS, Kind
from infra.steps import format_duration, format_time
from models.contract import FloatArray
from stream.store.base import GraphInfo

router = APIRouter(tags=["graphs"])
DEFAULT_POINTS, MIN_POINTS, MAX_POINTS = 1000, 2, 5000


@router.get("/v1/graphs/{graph}/history", summary="Observed steps of a graph, downsampled for a chart")
async def history(
    graph: str,
    request: Request,
    service: ServiceHere,
    caller: CallerHere,
    metrics: Annotated[str | None, Query(description="Metrics, with commas; events if left out.")] = None,
    start: Annotated[str | None, Query(description="First step, included; ISO 8601.")] = None,
    end: Annotated[str | None, Query(description="Last step, excluded; ISO 8601.")] = None,
    points: Annotated[str | None, Query(description="Points at most.")] = None,
) -> Response:
    """Answer least, mean and largest value of each bucket of steps; the steps themselves where they are no more."""
    query(request, ("metrics", "start", "end", "points"))
    info = service.graph(caller, graph)
    names = ("events",) if metrics is None else metric_names("metrics", split(metrics))
    begin_us = None if start is None else time_us("start", start)
    end_us = None if end is None else time_us("end", end)
    most = DEFAULT_POINTS
    if points is not None:
        most = whole_number("points", points, MIN_POINTS, MAX_POINTS, example=DEFAULT_POINTS)
    # The facts of the graph are part of the key: a snapshot more, or a revised one, is another answer.
    key = (graph, "history", info, names, begin_us, end_us, most)
    kept = service.computing.cache.get(key)
    if kept is None:
        body = await service.store.ask(
            lambda reader: _body(
                info,
                downsample(reader.snapshots(graph, start_us=begin_us, end_us=end_us, metrics=names), most),
                names,
            )
        )
        kept = Answer(body, entity_tag(body))
        service.computing.cache.put(key, kept)
    return await tagged(request.headers, kept, kept=(service.computing.cache, graph))


def _body(info: GraphInfo, buckets: Buckets, names: tuple[str, ...]) -> bytes:
    return encode(
        {
            "graph": info.name,
            "step": format_duration(info.step_us),
            "steps_per_point": buckets.steps_per_bucket,
            "exact": buckets.steps_per_bucket == 1,
            "step_start": [format_time(us) for us in buckets.start_us.tolist()],
            "steps": buckets.steps,
            "series": [_series(name, buckets, index) for index, name in enumerate(names)],
        }
    )


def _series(name: str, buckets: Buckets, index: int) -> dict[str, Any]:
    is_share = METRICS[METRIC_INDEX[name]].kind is Kind.SHARE

    def column(values: FloatArray) -> object:
        found = np.ascontiguousarray(values[:, index])
        return found if is_share else found.astype(np.int64)

    # The mean of counts is no count.
    mean = np.ascontiguousarray(buckets.mean[:, index])
    return {"name": name, "min": column(buckets.least), "mean": mean, "max": column(buckets.largest)}
