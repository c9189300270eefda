"""`GET /v1/graphs`: which graphs there are."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from forecasting.api.bodies import encode
from forecasting.api.cache import Answer
from forecasting.api.computing import entity_tag
from forecasting.api.parameters import query
from forecasting.api.problems import unavailable
from forecasting.api.responses import tagged
from forecasting.api.service import CallerHere, ServiceHere
from infra.schema import METRICS
from infra.steps import format_duration, format_time
from stream.store.base import GraphInfo

router = APIRouter(tags=["graphs"])


def graph_document(info: GraphInfo) -> dict[str, Any]:
    """Return a graph as the service shows it."""
    first, last = (None if us is None else format_time(us) for us in (info.first_step_us, info.last_step_us))
    return {
        "graph": info.name,
        "step": format_duration(info.step_us),
        "snapshots": info.snapshots,
        "events": info.events,
        "late": info.late,
        "first_step": first,
        "last_step": last,
    }


@router.get("/v1/graphs", summary="All graphs that the key may read")
async def list_graphs(request: Request, service: ServiceHere, caller: CallerHere) -> Response:
    """Answer every graph that the caller may read, by name."""
    query(request, ())
    if service.following.store_error is not None and not service.following.graphs:
        raise unavailable("store-unavailable", "the store cannot be read yet")
    found = [graph_document(info) for name, info in sorted(service.following.graphs.items()) if caller.sees(name)]
    body = encode({"graphs": found})
    return await tagged(request.headers, Answer(body, entity_tag(body)))


@router.get("/v1/graphs/{graph}", summary="One graph, its metrics and the model that answers for it")
async def one_graph(graph: str, request: Request, service: ServiceHere, caller: CallerHere) -> Response:
    """Answer a graph with the metrics of its snapshots and, where its state is kept, the model."""
    query(request, ())
    info = service.graph(caller, graph)
    live = service.following.live(graph)
    model = None
    if live is not None:
        model = {"name": live.model.name, "digest": live.model_digest, "degraded_reason": live.degraded_reason}
    metrics = [{"name": metric.name, "kind": metric.kind, "meaning": metric.meaning} for metric in METRICS]
    body = encode({**graph_document(info), "model": model, "metrics": metrics})
    return await tagged(request.headers, Answer(body, entity_tag(body)))
