"""`…/forecasts`: long-range forecasts as jobs: asked for, followed, read, cancelled."""

import asyncio
import re
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from starlette.responses import Response, StreamingResponse

from forecasting.api import results, streams
from forecasting.api.bodies import encode
from forecasting.api.compression import accepted_coding, compressing
from forecasting.api.event_stream import EventStream
from forecasting.api.finished import finished_headers, is_known
from forecasting.api.parameters import (
    check_idempotency_key,
    check_reach,
    json_number,
    json_object,
    metric_names,
    quantile_levels,
    query,
    shown_null,
    split,
)
from forecasting.api.problems import Problem, parameter_problem, unavailable
from forecasting.api.responses import VARY
from forecasting.api.schemas import ref
from forecasting.api.service import CallerHere, Service, ServiceHere, require
from forecasting.jobs import Job, JobRequest, KeyReusedError, Status, TooManyJobsError
from forecasting.keys import Key, Scope
from forecasting.service_file import now_us
from infra.errors import StoreError
from infra.schema import MAX_HORIZON_STEPS, MAX_PATHS, METRIC_NAMES, QUANTILE_LEVELS
from infra.settings import MAX_SEED, Settings
from infra.steps import format_time

router = APIRouter(tags=["long-range forecasts"])
_MEMBERS = ("horizon", "metrics", "quantiles", "seed", "paths")
_EXAMPLE = {"horizon": 8760, "metrics": ["events"], "quantiles": [0.1, 0.5, 0.9]}
_JOB_ID = re.compile(r"[0-9a-f]{32}")
_BODY_SCHEMA = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": ref("ForecastRequest"),
                "example": _EXAMPLE,
            }
        },
    }
}


@router.post(
    "/v1/graphs/{graph}/forecasts",
    status_code=202,
    summary="Ask for a long-range forecast",
    openapi_extra=_BODY_SCHEMA,
)
async def ask(
    graph: str,
    request: Request,
    service: ServiceHere,
    caller: CallerHere,
    idempotency_key: Annotated[str | None, Header(description="The same key and body give the same job.")] = None,
) -> Response:
    """Queue a job and answer where it is; it starts from the state of the graph when its turn comes."""
    query(request, ())
    info = service.graph(caller, graph, Scope.WRITE)
    if info.snapshots == 0:
        raise Problem(409, "no-snapshots", f"no step of {graph!r} is closed yet: ingest more events")
    check_idempotency_key(idempotency_key, "2026-01-report")
    wanted = _job_request(await request.body(), service.settings)
    check_reach(info, wanted.horizon)
    try:
        job, is_new = await asyncio.to_thread(service.jobs.create, caller.id, graph, wanted, idempotency_key)
    except KeyReusedError:
        detail = f"the Idempotency-Key {idempotency_key!r} stands for a forecast that was asked for otherwise"
        raise Problem(422, "key-reused", detail) from None
    except TooManyJobsError as error:
        reason = "quota" if error.of_caller else "jobs"
        service.telemetry.shed.labels(reason).inc()
        if error.of_caller:
            raise Problem(429, "too-many-jobs", error.message, headers={"Retry-After": "10"}) from None
        raise unavailable("overloaded", error.message, retry_after_s=10) from None
    except StoreError:
        raise unavailable("service-unavailable", "the job could not be kept") from None
    headers = {"Location": f"/v1/forecasts/{job.id}", "Retry-After": "1"}
    if not is_new:
        headers["Idempotent-Replayed"] = "true"
    return _json(document(job, service), 202, headers)


@router.get("/v1/forecasts/{forecast}", summary="How far a long-range forecast is")
async def status(forecast: str, request: Request, service: ServiceHere, caller: CallerHere) -> Response:
    """Answer status, progress, the time that it will probably take, and links."""
    query(request, ())
    job = await _job(service, caller, forecast)
    return _json(document(job, service), 200, {} if job.status.is_final else {"Retry-After": "1"})


@router.get("/v1/forecasts/{forecast}/stream", summary="Its chunks as they are computed")
async def stream(
    forecast: str,
    request: Request,
    service: ServiceHere,
    caller: CallerHere,
    last_event_id: Annotated[str | None, Header(description="The last step that was received.")] = None,
) -> Response:
    """Stream server-sent events, or lines of JSON by `Accept: application/x-ndjson`, until the job has ended."""
    query(request, ())
    job = await _job(service, caller, forecast)
    media_type = results.accepted(request.headers.get("accept"), streams.MEDIA_TYPES)
    after = 0
    if last_event_id:
        most = job.request.horizon
        is_step = last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) < 7
        if not is_step or int(last_event_id) > most:
            raise parameter_problem("Last-Event-ID", last_event_id, f"a step from 0 to {most}", 0)
        after = int(last_event_id)

    async def is_over() -> bool:
        return service.subscriptions.draining or not await service.lets_stay(caller)

    events = streams.events(
        service.jobs,
        job.id,
        after,
        media_type,
        heartbeat_s=service.settings.api.heartbeat_s,
        is_over=is_over,
    )
    return EventStream(service, caller.id, events, media_type)


@router.get("/v1/forecasts/{forecast}/result", summary="The whole forecast")
async def result(forecast: str, request: Request, service: ServiceHere, caller: CallerHere) -> Response:
    """Answer JSON, CSV, Parquet or Arrow by `Accept`; 409 while the job is not done."""
    query(request, ())
    job = await _job(service, caller, forecast)
    media_type = results.accepted(request.headers.get("accept"), results.MEDIA_TYPES)
    if not job.status.is_final:
        detail = f"{job.steps_done} of {job.request.horizon} steps are done; the stream has them already"
        raise Problem(409, "not-finished", detail, headers={"Retry-After": "1"})
    if job.status is not Status.DONE:
        raise Problem(409, "no-result", f"the forecast was {job.status}{f': {job.problem}' if job.problem else ''}")
    coding = accepted_coding(request.headers.get("accept-encoding")) if media_type in results.TEXTS else None
    tag = "-".join([job.id, media_type.rpartition("/")[2], *([] if coding is None else [coding])])
    expires_us = None if job.finished_us is None else job.finished_us + service.settings.jobs.keep_s * 1_000_000
    headers = finished_headers(caller, tag, f"Accept, {VARY}", expires_us)
    if is_known(request, tag):
        return Response(status_code=304, headers=headers)
    content = results.content(service.jobs, job, media_type)
    if coding is not None:
        content, headers["Content-Encoding"] = compressing(content, coding), coding
    return StreamingResponse(content, headers=headers, media_type=media_type)


@router.delete("/v1/forecasts/{forecast}", summary="Cancel a long-range forecast")
async def cancel(forecast: str, request: Request, service: ServiceHere, caller: CallerHere) -> Response:
    """Cancel a job that waits or runs, and answer how it stands now; one that has ended stays as it is."""
    query(request, ())
    job = await _job(service, caller, forecast)
    require(caller, Scope.WRITE)
    try:
        await asyncio.to_thread(service.jobs.cancel, job.id)
    except StoreError:
        raise unavailable("service-unavailable", "the job could not be changed") from None
    return _json(document(await _job(service, caller, forecast), service), 200, {})


def document(job: Job, service: Service) -> dict[str, Any]:
    """Return a job as the service shows it."""
    times = {"created": job.created_us, "started": job.started_us, "finished": job.finished_us}
    keep_us = service.settings.jobs.keep_s * 1_000_000
    times["expires"] = None if job.finished_us is None else job.finished_us + keep_us
    eta_s = None
    if job.status is Status.RUNNING and job.started_us is not None and job.steps_done > 0:
        # By this machine's clock, which may be behind that of the database.
        elapsed_s = max(0.0, (now_us() - job.started_us) / 1e6)
        eta_s = round(elapsed_s * (job.request.horizon - job.steps_done) / job.steps_done, 1)
    here = f"/v1/forecasts/{job.id}"
    return {
        "id": job.id,
        "graph": job.graph,
        "status": job.status,
        "horizon": job.request.horizon,
        "metrics": job.request.metrics,
        "quantiles": job.request.quantiles,
        "paths": job.request.paths,
        "progress": {"steps_done": job.steps_done, "steps": job.request.horizon, "eta_s": eta_s},
        **{name: None if us is None else format_time(us) for name, us in times.items()},
        "problem": job.problem,
        "provenance": results.public_ground(job),
        "links": {"self": here, "stream": f"{here}/stream", "result": f"{here}/result"},
    }


async def _job(service: Service, caller: Key, job_id: str) -> Job:
    """Return a job that the caller may see: one of a graph that its key is for."""
    try:
        job = await asyncio.to_thread(service.jobs.get, job_id) if _JOB_ID.fullmatch(job_id) else None
    except StoreError:
        raise unavailable("service-unavailable", "the jobs cannot be read at the moment") from None
    if job is None or not caller.sees(job.graph):
        raise Problem(404, "unknown-forecast", "there is no such forecast, or its time is over")
    return job


def _job_request(body: bytes, settings: Settings) -> JobRequest:
    given = json_object(body, _MEMBERS, _EXAMPLE)
    horizon = json_number("horizon", given.get("horizon"), 1, MAX_HORIZON_STEPS, 8760)
    metrics = metric_names("metrics", _texts("metrics", given["metrics"])) if "metrics" in given else METRIC_NAMES
    return JobRequest(
        horizon,
        metrics,
        quantile_levels("quantiles", _list("quantiles", given["quantiles"]))
        if "quantiles" in given
        else QUANTILE_LEVELS,
        json_number("seed", given.get("seed", settings.forecast.seed), 0, MAX_SEED, 0),
        _paths(given, horizon * len(metrics), settings.api.max_path_values),
    )


def _paths(given: Mapping[str, Any], values_each: int, most_values: int) -> int:
    """Return how many sample paths are asked for, of so many numbers each."""
    found = json_number("paths", given.get("paths", 0), 0, MAX_PATHS, 20)
    if found * values_each > most_values:
        most = most_values // values_each
        allowed = f"at most {most} of {values_each} numbers each (horizon times metrics): {most_values} in all"
        raise parameter_problem("paths", found, allowed, most, minimum=0, maximum=most)
    return found


def _list(field: str, value: object) -> list[object]:
    """Return a list, or the parts of a text with commas, as in a query."""
    if isinstance(value, str):
        return list(split(value))
    if not isinstance(value, list):
        raise parameter_problem(field, value, "a list", ["events"] if field == "metrics" else [0.1, 0.5, 0.9])
    return value


def _texts(field: str, value: object) -> list[str]:
    found = _list(field, value)
    for part in found:
        if not isinstance(part, str):
            raise parameter_problem(field, shown_null(part), "a list of names", ["events"])
    return [str(part) for part in found]


def _json(body: dict[str, Any], status_code: int, headers: dict[str, str]) -> Response:
    return Response(encode(body), status_code, {"Cache-Control": "no-store", **headers}, "application/json")
