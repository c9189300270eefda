"""`GET /v1/graphs/{graph}/quality` and `…/model`: what the snapshots and the forecasts of a graph rest on."""

import asyncio
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
from forecasting.keys import ALL_GRAPHS, Key
from forecasting.training import checkpoint_folder
from infra.errors import ModelError
from infra.steps import format_time
from models import checkpoint, general_folder
from stream.store.quality import Quality, read_quality

router = APIRouter(tags=["graphs"])
# Its calibration is long, and no one reads it.
_GENERAL = ("name", "digest", "architecture", "data", "scores")


@router.get("/v1/graphs/{graph}/quality", summary="How far the sources of a graph are, and what was not counted")
async def quality(graph: str, request: Request, service: ServiceHere, caller: CallerHere) -> Response:
    """Answer watermark, lateness and, to keys for all graphs, the partitions and dead letters of the sources."""
    query(request, ())
    info = service.graph(caller, graph)
    found = await service.store.ask(lambda reader: read_quality(reader, graph))
    document = {
        "graph": graph,
        "observed_until": None if info.last_step_us is None else format_time(info.last_step_us + info.step_us),
        "final_until": _text(info.final_us),
        "late": info.late,
        **_times(found),
        # A source may feed graphs of others, so what it did is for those who may see them all.
        "sources": None if found is None or not caller.sees(ALL_GRAPHS) else _sources(found),
    }
    body = encode(document)
    return await tagged(request.headers, Answer(body, entity_tag(body)))


@router.get("/v1/graphs/{graph}/model", summary="The card of the model that is kept for a graph")
async def model(graph: str, request: Request, service: ServiceHere, caller: CallerHere) -> Response:
    """Answer the card, without the data of graphs that the key is not for; `null` where no model was trained.

    Beside it stands the general model, which answers for graphs that have none.
    """
    query(request, ())
    service.graph(caller, graph)
    folder = checkpoint_folder(service.settings.models.directory, graph)
    try:
        card = await asyncio.to_thread(checkpoint.read_card, folder)
        general = await asyncio.to_thread(checkpoint.read_card, general_folder())
    except ModelError:
        raise unavailable("service-unavailable", f"the model card of {graph!r} cannot be read") from None
    shown = None if card is None else _visible(card, caller)
    about = None if general is None else {name: general[name] for name in _GENERAL}
    body = encode({"graph": graph, "card": shown, "general": about})
    return await tagged(request.headers, Answer(body, entity_tag(body)))


def _visible(card: dict[str, Any], caller: Key) -> dict[str, Any]:
    return {**card, "data": [data for data in card.get("data", []) if caller.sees(str(data.get("graph")))]}


def _times(found: Quality | None) -> dict[str, str | None]:
    """Return the watermark of the slowest partition that steps wait for, and the newest event time."""
    partitions = () if found is None else found.partitions
    waited_for = [one for one in partitions if not one.idle] or list(partitions)
    watermarks = [one.watermark_us for one in waited_for if one.watermark_us is not None]
    newest = [one.newest_us for one in partitions if one.newest_us is not None]
    return {
        "watermark": format_time(min(watermarks)) if len(watermarks) == len(waited_for) and watermarks else None,
        "newest_event": format_time(max(newest)) if newest else None,
    }


def _sources(found: Quality) -> dict[str, Any]:
    partitions = [
        {
            "source": one.source,
            "partition": one.partition,
            "watermark": _text(one.watermark_us),
            "newest_event": _text(one.newest_us),
            "events": one.events,
            "late": one.late,
            "duplicates": one.duplicates,
            "rejected": one.rejected,
            "idle": one.idle,
        }
        for one in found.partitions
    ]
    letters = {
        "count": found.dead_letters,
        "has_more": found.has_more,
        "delivered": found.delivered,
        "replayed": found.replayed,
    }
    return {"partitions": partitions, "dead_letters": letters}


def _text(us: int | None) -> str | None:
    return None if us is None else format_time(us)
