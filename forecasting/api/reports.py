"""`/v1/reports`: reports asked for, listed and read."""

import asyncio
import re
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from forecasting.api import results
from forecasting.api.bodies import encode
from forecasting.api.finished import finished_headers, is_known
from forecasting.api.parameters import check_reach, json_number, json_object, query, whole_number
from forecasting.api.problems import Problem, unavailable
from forecasting.api.service import CallerHere, Service, ServiceHere, require
from forecasting.jobs import Status, TooManyJobsError
from forecasting.keys import Key, Scope
from forecasting.reports.contents import ReportRequest
from forecasting.reports.deliveries import Delivery
from forecasting.reports.records import BUNDLE, FACTS, HTML, ReportRow
from infra.errors import StoreError
from infra.schema import MAX_HORIZON_STEPS
from infra.settings import MAX_SEED
from infra.steps import format_time

router = APIRouter(tags=["reports"])
_REPORT_ID = re.compile(r"[0-9a-f]{32}")
_MEMBERS = ("horizon", "seed")
_EXAMPLE = {"horizon": 8760}
_JSON, _HTML, _ZIP, _PDF = "application/json", "text/html", "application/zip", "application/pdf"
_FILES = {_HTML: HTML, _ZIP: BUNDLE}
MAX_LISTED = 1000
# A report is drawn by its own scripts; it may ask nothing from any host, and is no part of the service's origin.
_PAGE_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline';"
    " img-src data: blob:; frame-ancestors 'self'"
)
_BODY_SCHEMA = {
    "requestBody": {
        "required": False,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "horizon": {"type": "integer", "minimum": 1, "maximum": MAX_HORIZON_STEPS},
                        "seed": {"type": "integer", "minimum": 0, "maximum": MAX_SEED},
                    },
                },
                "example": _EXAMPLE,
            }
        },
    }
}


@router.post("/v1/graphs/{graph}/reports", status_code=202, summary="Ask for a report", openapi_extra=_BODY_SCHEMA)
async def ask(graph: str, request: Request, service: ServiceHere, caller: CallerHere) -> Response:
    """Queue a report and answer where it is."""
    query(request, ())
    info = service.graph(caller, graph, Scope.WRITE)
    if info.snapshots == 0:
        raise Problem(409, "no-snapshots", f"no step of {graph!r} is closed yet: ingest more events")
    wanted = report_request(await request.body(), service)
    check_reach(info, wanted.horizon)
    try:
        report = await asyncio.to_thread(service.reports.create, caller.id, graph, wanted)
    except TooManyJobsError as error:
        service.telemetry.shed.labels("quota" if error.of_caller else "jobs").inc()
        detail = error.message.replace("forecasts", "reports")
        if error.of_caller:
            raise Problem(429, "too-many-jobs", detail, headers={"Retry-After": "10"}) from None
        raise unavailable("overloaded", detail, retry_after_s=10) from None
    except StoreError:
        raise unavailable("service-unavailable", "the report could not be kept") from None
    return answer(document(report), 202, {"Location": f"/v1/reports/{report.id}", "Retry-After": "1"})


@router.get("/v1/reports", summary="The newest reports")
async def list_reports(
    request: Request,
    service: ServiceHere,
    caller: CallerHere,
    graph: Annotated[str | None, Query(description="Reports of this graph alone.")] = None,
    limit: Annotated[str | None, Query(description="Reports at most.")] = None,
) -> Response:
    """Answer the newest reports of the graphs that the caller may see, or of one of them."""
    query(request, ("graph", "limit"))
    most = whole_number("limit", "100" if limit is None else limit, 1, MAX_LISTED, example=100)
    if graph is not None:
        service.graph(caller, graph)

    def found() -> list[ReportRow]:
        graphs = [name for name in service.reports.graphs() if caller.sees(name)]
        if graph is not None:
            graphs = [name for name in graphs if name == graph]
        return service.reports.newest(graphs, limit=most)

    rows = await reading(found)
    return answer({"reports": [document(row) for row in rows]})


@router.get(
    "/v1/reports/{report}",
    summary="A report",
    responses={200: {"content": {_JSON: {}, _HTML: {}, _ZIP: {}, _PDF: {}}}},
)
async def get_report(report: str, request: Request, service: ServiceHere, caller: CallerHere) -> Response:
    """Answer how it stands and what it says (JSON), the page (HTML or PDF), or its data (zip), by `Accept`."""
    query(request, ())
    row = await _report_row(report, service, caller)
    media_type = results.accepted(request.headers.get("accept"), (_JSON, _HTML, _ZIP, _PDF))
    if media_type == _JSON:
        facts, deliveries, log = await reading(
            lambda: (
                service.reports.body(row.id, FACTS),
                service.deliveries.of(row.id),
                service.reports.log(row.id),
            )
        )
        body = document(row) | {
            "deliveries": [delivery_document(one) for one in deliveries],
            "log": [{"time": format_time(time_us), "line": line} for time_us, line in log],
            "facts": None if facts is None else orjson.loads(facts),
        }
        return answer(body, headers={} if is_final(row) else {"Retry-After": "1"})
    if row.status != Status.DONE:
        headers = {} if is_final(row) else {"Retry-After": "1"}
        raise Problem(409, "no-result", f"the report is {row.status}; JSON says how it stands", headers=headers)
    tag = f"{row.id}-{media_type.rpartition('/')[2]}"
    headers = finished_headers(caller, tag, "Accept, Authorization, X-API-Key", None)
    if is_known(request, tag):
        return Response(status_code=304, headers=headers)
    if media_type == _PDF:
        try:
            content = await service.printing.pdf(row.id)
        except StoreError:
            raise unavailable("service-unavailable", "the report cannot be read at the moment") from None
    else:
        content = await reading(lambda: service.reports.body(row.id, _FILES[media_type]))
    if content is None:
        raise Problem(404, "unknown-report", "there is no such report, or its time is over")
    if media_type in (_ZIP, _PDF):
        name = f"report-{row.graph.replace(':', '-')}.{'zip' if media_type == _ZIP else 'pdf'}"
        headers["Content-Disposition"] = f'{"attachment" if media_type == _ZIP else "inline"}; filename="{name}"'
    else:
        headers["Content-Security-Policy"] = _PAGE_POLICY
        headers["X-Frame-Options"] = "SAMEORIGIN"
    return Response(content, headers=headers, media_type=media_type)


@router.delete("/v1/reports/{report}", status_code=204, summary="Delete a report")
async def delete_report(report: str, request: Request, service: ServiceHere, caller: CallerHere) -> Response:
    """Delete a report with its files and its log; what was not delivered yet is not delivered any more."""
    query(request, ())
    row = await _report_row(report, service, caller)
    require(caller, Scope.WRITE)
    try:
        await asyncio.to_thread(service.reports.delete, row.id)
    except StoreError:
        raise unavailable("service-unavailable", "the report could not be deleted") from None
    return Response(status_code=204, headers={"Cache-Control": "no-store"})


async def _report_row(report: str, service: Service, caller: Key) -> ReportRow:
    row: ReportRow | None = await reading(lambda: service.reports.get(report) if _REPORT_ID.fullmatch(report) else None)
    if row is None or not caller.sees(row.graph):
        raise Problem(404, "unknown-report", "there is no such report, or its time is over")
    return row


def is_final(row: ReportRow) -> bool:
    """Tell whether nothing more will happen to a report."""
    return row.status not in (Status.QUEUED, Status.RUNNING)


def document(row: ReportRow) -> dict[str, Any]:
    """Return a report as the service shows it."""
    here = f"/v1/reports/{row.id}"
    return {
        "id": row.id,
        "graph": row.graph,
        "status": row.status,
        "horizon": row.request.horizon,
        "seed": row.request.seed,
        "schedule": row.schedule,
        "slot": shown_time(row.slot_us),
        "progress": {"steps_done": row.steps_done, "steps": row.request.horizon},
        "attempts": row.attempts,
        "created": shown_time(row.created_us),
        "started": shown_time(row.started_us),
        "finished": shown_time(row.finished_us),
        "observed_until": shown_time(row.observed_until_us),
        "problem": row.problem,
        "summary": list(row.summary),
        "links": {"self": here, "page": here, "data": here},
    }


def delivery_document(delivery: Delivery) -> dict[str, Any]:
    """Return a delivery as the service shows it."""
    return {
        "target": delivery.target,
        "status": delivery.status,
        "attempts": delivery.attempts,
        "next": shown_time(delivery.next_us) if delivery.status == "waiting" else None,
        "finished": shown_time(delivery.finished_us),
        "problem": delivery.problem,
        "idempotency_key": delivery.id,
    }


def shown_time(time_us: int | None) -> str | None:
    """Return a time as text; None for none."""
    return None if time_us is None else format_time(time_us)


def report_request(body: bytes, service: Service) -> ReportRequest:
    """Return what a body asks for; an empty one asks for what the settings say.

    Raises:
        Problem: it is no such object, or a member is wrong.
    """
    given = json_object(body or b"{}", _MEMBERS, _EXAMPLE)
    settings = service.settings
    return ReportRequest(
        json_number("horizon", given.get("horizon", settings.reports.horizon), 1, MAX_HORIZON_STEPS, 8760),
        json_number("seed", given.get("seed", settings.forecast.seed), 0, MAX_SEED, 0),
        settings.reports.paths,
    )


async def reading(question: Any) -> Any:
    """Return what a question to the service's file returns, asked beside the event loop.

    Raises:
        Problem: 503, the file cannot be read.
    """
    try:
        return await asyncio.to_thread(question)
    except StoreError:
        raise unavailable("service-unavailable", "the reports cannot be read at the moment") from None


def answer(body: dict[str, Any], status_code: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a document that changes from one moment to the next."""
    return Response(encode(body), status_code, {"Cache-Control": "no-store", **(headers or {})}, _JSON)
