"""`/livez`, `/readyz`, `/health`, `/metrics`: what an orchestrator and a monitoring system ask."""

import asyncio

import torch
from fastapi import APIRouter, Request
from starlette.responses import Response

from forecasting.api.bodies import encode
from forecasting.api.parameters import query
from forecasting.api.service import CallerHere, Service, ServiceHere, require
from forecasting.api.telemetry import CONTENT_TYPE
from forecasting.keys import ALL_GRAPHS, Scope
from infra.errors import StoreError
from models import general_folder
from models.checkpoint import CARD_NAME

router = APIRouter(tags=["operation"])


async def checks(service: Service) -> tuple[dict[str, bool], list[str]]:
    """Return what was looked at, and the names of what is required and fails."""
    try:
        # Beside the event loop: a file whose lock is waited for, or a database that hangs, would hold up every answer.
        await asyncio.to_thread(service.file.rows, "SELECT 1")
        has_file = True
    except StoreError:
        has_file = False
    found = {
        # Without the general one, graphs that have none of their own cannot be answered for.
        "model_loaded": (general_folder() / CARD_NAME).is_file(),
        "gpu_available": torch.cuda.is_available(),
        "database_connected": service.following.store_error is None and not service.patience.is_away,
        "service_file_open": has_file,
        "store_followed": service.following.is_alive(),
    }
    if service.computing.shared is not None:
        # Not required: without it each process keeps its own answers.
        found["redis_connected"] = await service.computing.shared.look()
    required = ["database_connected", "service_file_open", "store_followed"]
    if service.settings.api.require_gpu:
        required.append("gpu_available")
    return found, [name for name in required if not found[name]]


def _answer(document: dict[str, object], is_well: bool) -> Response:
    headers = {"Cache-Control": "no-store"} | ({} if is_well else {"Retry-After": "1"})
    return Response(encode(document), 200 if is_well else 503, headers, "application/json")


@router.get("/livez", summary="Whether the process answers")
async def livez(request: Request) -> Response:
    """Answer; a process that cannot is to be started anew."""
    query(request, ())
    return _answer({"status": "ok"}, True)


@router.get("/readyz", summary="Whether requests should be sent here")
async def readyz(request: Request, service: ServiceHere) -> Response:
    """Answer 503 with the names of what fails, until forecasts can be answered."""
    query(request, ())
    found, failed = await checks(service)
    told = {name: found[name] for name in ("redis_connected",) if name in found}
    return _answer({"status": "ready" if not failed else "not ready", "failed": failed, **told}, not failed)


@router.get("/health", summary="What works and what does not")
async def health(request: Request, service: ServiceHere) -> Response:
    """Answer every check; 503 when a required one fails."""
    query(request, ())
    found, failed = await checks(service)
    degraded = not found["model_loaded"] or not found.get("redis_connected", True)
    status = "failing" if failed else "degraded" if degraded else "ok"
    return _answer({"status": status, "checks": found, "failed": failed}, not failed)


@router.get("/metrics", summary="Meters in Prometheus' text format")
async def metrics(request: Request, service: ServiceHere, caller: CallerHere) -> Response:
    """Answer this process's meters; they name graphs, so a key has to be for all of them."""
    query(request, ())
    require(caller, Scope.READ, ALL_GRAPHS)
    # Some of them are read from the service's file at that moment.
    meters = await asyncio.to_thread(service.telemetry.exposition)
    return Response(meters, headers={"Cache-Control": "no-store"}, media_type=CONTENT_TYPE)
