"""`POST /v1/graphs/{graph}/events`: events, acknowledged once they are in the spool that ingestion drains."""

import asyncio
import hashlib
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Header, Request
from starlette.responses import Response

from forecasting.api.parameters import check_idempotency_key, query
from forecasting.api.problems import Problem, parameter_problem, unavailable
from forecasting.api.service import CallerHere, Service, ServiceHere, require
from forecasting.keys import Key, Scope
from infra.errors import StoreError
from infra.settings import SpoolSettings
from stream.decoders.records.detect import media_type
from stream.events import EventRules, Interner, InvalidEventError
from stream.spool.file import KeyReusedError, Receipt, Spool, SpoolFullError
from stream.spool.records import Request as Spooled
from stream.spool.records import SpoolDecoder, split_records

router = APIRouter(tags=["events"])
SHOWN_ERRORS = 100
_RETRY_FULL_S = 30
# The last two are what clients say that say nothing.
MEDIA_TYPES = (
    *("application/json", "application/x-ndjson", "application/ndjson", "application/jsonl"),
    *("application/cloudevents-batch+json", "application/cloudevents+json"),
    *("application/octet-stream", "application/x-www-form-urlencoded"),
)
_EXAMPLE = [{"src": "ada", "dst": "ben", "ts": "2026-03-06T12:00:00Z", "type": "reply", "id": "e-1"}]
_EVENTS = {"type": "array", "items": {"type": "object"}, "minItems": 1}
_BODY_SCHEMA = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": _EVENTS, "example": _EXAMPLE},
            "application/cloudevents-batch+json": {"schema": _EVENTS},
            "application/x-ndjson": {"schema": {"type": "string"}, "example": orjson.dumps(_EXAMPLE[0]).decode()},
        },
    }
}


@dataclass(frozen=True, slots=True)
class _Checked:
    """A body that can be kept: its records, how many are events, and what is wrong with the others."""

    records: list[bytes]
    accepted: int
    errors: list[dict[str, Any]]
    rejected: int


@router.post("/v1/graphs/{graph}/events", status_code=202, summary="Take events of a graph", openapi_extra=_BODY_SCHEMA)
async def take(
    graph: str,
    request: Request,
    service: ServiceHere,
    caller: CallerHere,
    idempotency_key: Annotated[str | None, Header(description="The same key and body are taken once.")] = None,
) -> Response:
    """Keep a JSON array, one JSON object, NDJSON or a batch of CloudEvents durably, and answer how many are events.

    The graph may be new. What is no event is named in the answer, and goes to the dead letters with its place.
    """
    query(request, ())
    _check_graph(graph, caller)
    spool = service.spool
    if spool is None:
        raise Problem(404, "not-found", "events are not taken over HTTP here: [api] ingestion is off")
    kind = media_type(request.headers.get("content-type", ""))
    if kind and kind not in MEDIA_TYPES:
        offered = ", ".join(MEDIA_TYPES[:6])
        raise Problem(415, "unsupported-type", f"{kind[:100]!r} is not read; send one of {offered}", offered=offered)
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        raise Problem(
            415, "unsupported-type", f"a body in Content-Encoding {encoding[:100]!r} is not read; send it plain"
        )
    check_idempotency_key(idempotency_key, "batch-17")
    body = await request.body()
    receipt = await asyncio.to_thread(_keep, service, spool, graph, body, caller.id, idempotency_key)
    headers = {"Cache-Control": "no-store"} | ({} if receipt.is_new else {"Idempotent-Replayed": "true"})
    return Response(receipt.reply, 202, headers, "application/json")


def _check_graph(graph: str, caller: Key) -> None:
    """Refuse a graph that the caller may not write; it need not exist.

    Raises:
        Problem: 404, 403 or 422.
    """
    if not caller.sees(graph):
        detail = f"there is no graph {graph[:200]!r}; GET /v1/graphs lists those there are"
        raise Problem(404, "unknown-graph", detail)
    require(caller, Scope.WRITE)
    try:
        is_name = EventRules().graph(graph) == graph
    except InvalidEventError:
        is_name = False
    if not is_name:
        raise parameter_problem("graph", graph, "a-z, 0-9, then also . _ -, at most 64 characters", "town")


def _keep(service: Service, spool: Spool, graph: str, body: bytes, owner: str, key: str | None) -> Receipt:
    settings = service.settings.spool
    checked = _check(graph, body, settings)
    reply = {"graph": graph, "accepted": checked.accepted, "rejected": checked.rejected, "errors": checked.errors}
    try:
        receipt = spool.append(
            graph,
            checked.records,
            orjson.dumps(reply),
            owner=owner,
            idempotency_key=key,
            digest=hashlib.blake2b(graph.encode() + b"\n" + body, digest_size=32).digest(),
            max_bytes=settings.max_mb << 20,
        )
    except KeyReusedError:
        detail = f"the Idempotency-Key {key!r} stands for other events"
        raise Problem(422, "key-reused", detail) from None
    except SpoolFullError as error:
        service.telemetry.shed.labels("spool").inc()
        if error.on_disk:
            detail = "the disk of the spool is full; nothing was kept"
            raise Problem(507, "no-space", detail, headers={"Retry-After": str(_RETRY_FULL_S)}) from None
        detail = f"{settings.max_mb} MB wait for graphtide ingest spool already; nothing was kept"
        raise unavailable("overloaded", detail, retry_after_s=_RETRY_FULL_S) from None
    except StoreError:
        raise unavailable("service-unavailable", "the events could not be kept") from None
    if receipt.is_new:
        service.telemetry.taken.labels("accepted").inc(checked.accepted)
        service.telemetry.taken.labels("rejected").inc(checked.rejected)
    return receipt


def _check(graph: str, body: bytes, settings: SpoolSettings) -> _Checked:
    """Return what a body holds.

    Raises:
        Problem: it holds no event at all, or too much.
    """
    try:
        records = split_records(body)
    except ValueError as error:
        raise Problem(422, "invalid-body", str(error)[:500], example=_EXAMPLE) from None
    if not records:
        raise Problem(422, "invalid-body", "the body holds no record; send for example the one here", example=_EXAMPLE)
    if len(records) > settings.max_records:
        detail = f"a body has at most {settings.max_records} records, not {len(records)}"
        raise Problem(413, "too-large", detail, maximum_records=settings.max_records)
    _, decoded = SpoolDecoder(Interner()).decode([Spooled(0, graph, tuple(records), 0)])
    errors = [{"record": bad.record + 1, "detail": bad.reason} for bad in decoded.bad[:SHOWN_ERRORS]]
    if not len(decoded.events) and decoded.bad:
        detail = f"none of the records is an event; record {errors[0]['record']}: {errors[0]['detail']}"
        raise Problem(422, "invalid-body", detail, errors=errors, rejected=len(decoded.bad), example=_EXAMPLE)
    return _Checked(records, len(decoded.events), errors, len(decoded.bad))
