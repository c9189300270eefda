"""`GET /v1/graphs/{graph}/snapshots`: what was observed, page by page."""

import base64
import binascii
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from forecasting.api.bodies import encode, snapshot_rows
from forecasting.api.cache import Answer
from forecasting.api.computing import entity_tag
from forecasting.api.parameters import metric_names, query, split, time_us, whole_number
from forecasting.api.problems import parameter_problem
from forecasting.api.responses import tagged
from forecasting.api.service import CallerHere, ServiceHere
from infra.schema import METRIC_NAMES
from infra.steps import format_duration

router = APIRouter(tags=["graphs"])
DEFAULT_ROWS = 1000
_MAX_US = 1 << 62
Text = Annotated[str | None, Query()]


@router.get("/v1/graphs/{graph}/snapshots", summary="Observed steps of a graph, oldest first")
async def snapshots(
    graph: str,
    request: Request,
    service: ServiceHere,
    caller: CallerHere,
    start: Annotated[str | None, Query(description="First step, included; ISO 8601.")] = None,
    end: Annotated[str | None, Query(description="Last step, excluded; ISO 8601.")] = None,
    metrics: Annotated[str | None, Query(description="Metrics, with commas; all if left out.")] = None,
    limit: Annotated[str | None, Query(description="Steps in a page.")] = None,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.")] = None,
) -> Response:
    """Answer one page of snapshots; `next_cursor` leads to the next one and is null on the last."""
    query(request, ("start", "end", "metrics", "limit", "cursor"))
    info = service.graph(caller, graph)
    most = service.settings.api.max_page_rows
    rows = min(DEFAULT_ROWS, most) if limit is None else whole_number("limit", limit, 1, most, example=min(168, most))
    names = METRIC_NAMES if metrics is None else metric_names("metrics", split(metrics))
    begin_us = -_MAX_US if start is None else time_us("start", start)
    end_us = _MAX_US if end is None else time_us("end", end)
    if cursor is not None:
        begin_us = max(begin_us, _read_cursor(cursor))
    if info.first_step_us is None or info.last_step_us is None:
        page_end_us = begin_us
    else:
        # Steps have no gap, so a page is a range of times: no page costs more than its rows.
        origin_us, step_us = info.first_step_us, info.step_us
        begin_us = max(begin_us, origin_us)
        begin_us = origin_us - (origin_us - begin_us) // step_us * step_us
        end_us = min(end_us, info.last_step_us + step_us)
        page_end_us = max(begin_us, min(end_us, begin_us + rows * step_us))
    table = await service.store.ask(
        lambda reader: reader.snapshots(graph, start_us=begin_us, end_us=page_end_us, metrics=names)
    )
    has_more = page_end_us < end_us and len(table) > 0
    document = {
        "graph": graph,
        "step": format_duration(info.step_us),
        "rows": snapshot_rows(table),
        "next_cursor": _write_cursor(page_end_us) if has_more else None,
    }
    body = encode(document)
    return await tagged(request.headers, Answer(body, entity_tag(body)))


def _write_cursor(step_us: int) -> str:
    return base64.urlsafe_b64encode(f"1:{step_us}".encode()).decode().rstrip("=")


def _read_cursor(text: str) -> int:
    try:
        padded = text + "=" * (-len(text) % 4)
        version, _, step = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii").partition(":")
        if version == "1" and len(step) < 20 and -_MAX_US <= int(step) <= _MAX_US:
            return int(step)
    except (binascii.Error, UnicodeError, ValueError):
        pass
    raise parameter_problem("cursor", text, "the next_cursor of the page before", _write_cursor(0))
