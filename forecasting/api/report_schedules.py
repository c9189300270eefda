"""`/v1/report-schedules`: when reports are made, and what became of each time."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from forecasting.api.parameters import json_number, json_object, query, whole_number
from forecasting.api.problems import Problem, parameter_problem, unavailable
from forecasting.api.reports import MAX_LISTED, answer, delivery_document, document, reading, shown_time
from forecasting.api.service import CallerHere, Service, ServiceHere, require
from forecasting.keys import Key, Scope
from forecasting.reports.contents import ReportRequest
from forecasting.reports.schedules import Schedule, ScheduleRow, WrongScheduleError
from forecasting.service_file import now_us
from infra.errors import StoreError
from infra.schema import MAX_HORIZON_STEPS
from infra.settings import MAX_SEED
from infra.steps import format_time

router = APIRouter(tags=["report schedules"])
_MEMBERS = ("graph", "cron", "timezone", "horizon", "seed", "deliver", "missed", "paused")
_EXAMPLE = {"graph": "town", "cron": "0 7 * * 1", "timezone": "Europe/Berlin"}
_MISSED = ("latest", "all", "skip")
_BODY_SCHEMA = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["graph", "cron"],
                    "additionalProperties": False,
                    "properties": {
                        "graph": {"type": "string"},
                        "cron": {"type": "string"},
                        "timezone": {"type": "string"},
                        "horizon": {"type": "integer", "minimum": 1, "maximum": MAX_HORIZON_STEPS},
                        "seed": {"type": "integer", "minimum": 0, "maximum": MAX_SEED},
                        "deliver": {"type": "array", "items": {"type": "string"}},
                        "missed": {"enum": list(_MISSED)},
                        "paused": {"type": "boolean"},
                    },
                },
                "example": _EXAMPLE,
            }
        },
    }
}


@router.get("/v1/report-schedules", summary="All schedules")
async def list_schedules(request: Request, service: ServiceHere, caller: CallerHere) -> Response:
    """Answer the schedules of the graphs that the caller may see."""
    query(request, ())
    rows = await reading(service.schedules.all)
    return answer({"schedules": [schedule_document(row) for row in rows if caller.sees(row.schedule.graph)]})


@router.get("/v1/report-schedules/{name}", summary="A schedule")
async def get_schedule(name: str, request: Request, service: ServiceHere, caller: CallerHere) -> Response:
    """Answer a schedule and when it is due next."""
    query(request, ())
    return answer(schedule_document(await _schedule(service, caller, name)))


@router.put("/v1/report-schedules/{name}", summary="Set a schedule", openapi_extra=_BODY_SCHEMA)
async def put_schedule(name: str, request: Request, service: ServiceHere, caller: CallerHere) -> Response:
    """Set a schedule: 201 where there was none of its name. Its slots begin now."""
    query(request, ())
    given = json_object(await request.body(), _MEMBERS, _EXAMPLE)
    schedule = _given_schedule(name, given, service)
    service.graph(caller, schedule.graph, Scope.WRITE)

    def guard(known: ScheduleRow) -> None:
        if known.origin == "config" or not caller.sees(known.schedule.graph):
            raise Problem(409, "name-taken", f"there is a schedule {name[:100]!r} that this key cannot change")

    try:
        row, is_new = await asyncio.to_thread(service.schedules.put, schedule, owner=caller.id, guard=guard)
    except WrongScheduleError as error:
        wrong = {"field": error.field, "given": str(given.get(error.field, name))[:100], "allowed": error.fix}
        raise Problem(422, "invalid-parameter", f"{error.message}: {error.fix}", errors=[wrong]) from None
    except StoreError:
        raise unavailable("service-unavailable", "the schedule could not be kept") from None
    return answer(schedule_document(row), 201 if is_new else 200, {"Location": f"/v1/report-schedules/{name}"})


@router.delete("/v1/report-schedules/{name}", status_code=204, summary="Remove a schedule")
async def delete_schedule(name: str, request: Request, service: ServiceHere, caller: CallerHere) -> Response:
    """Remove a schedule; its reports stay."""
    query(request, ())

    def guard(known: ScheduleRow) -> None:
        if not caller.sees(known.schedule.graph):
            raise _unknown()
        require(caller, Scope.WRITE)
        if known.origin == "config":
            raise Problem(409, "name-taken", f"{name!r} stands in the settings: remove it there")

    try:
        if not await asyncio.to_thread(service.schedules.remove, name, guard):
            raise _unknown()
    except StoreError:
        raise unavailable("service-unavailable", "the schedule could not be removed") from None
    return Response(status_code=204, headers={"Cache-Control": "no-store"})


@router.get("/v1/report-schedules/{name}/runs", summary="What became of its times")
async def runs(
    name: str,
    request: Request,
    service: ServiceHere,
    caller: CallerHere,
    limit: Annotated[str | None, Query(description="Slots at most.")] = None,
) -> Response:
    """Answer the latest slots of a schedule: its reports, their deliveries and logs."""
    query(request, ("limit",))
    most = whole_number("limit", "20" if limit is None else limit, 1, MAX_LISTED, example=20)
    await _schedule(service, caller, name)

    def found() -> list[dict[str, Any]]:
        return [
            document(row)
            | {
                "deliveries": [delivery_document(one) for one in service.deliveries.of(row.id)],
                "log": [{"time": format_time(at), "line": line} for at, line in service.reports.log(row.id)],
            }
            for row in service.reports.newest(schedule=name, limit=most)
            # A schedule may once have been of another graph.
            if caller.sees(row.graph)
        ]

    return answer({"runs": await reading(found)})


def schedule_document(row: ScheduleRow) -> dict[str, Any]:
    """Return a schedule as the service shows it."""
    schedule = row.schedule
    here = f"/v1/report-schedules/{schedule.name}"
    return {
        "name": schedule.name,
        "graph": schedule.graph,
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "horizon": schedule.request.horizon,
        "seed": schedule.request.seed,
        "deliver": list(schedule.deliver),
        "missed": schedule.missed,
        "paused": schedule.paused,
        "origin": row.origin,
        "created": format_time(row.created_us),
        "next": None if schedule.paused else shown_time(schedule.next_us(now_us())),
        "links": {"self": here, "runs": f"{here}/runs"},
    }


async def _schedule(service: Service, caller: Key, name: str) -> ScheduleRow:
    row: ScheduleRow | None = await reading(lambda: service.schedules.get(name))
    if row is None or not caller.sees(row.schedule.graph):
        raise _unknown()
    return row


def _unknown() -> Problem:
    return Problem(404, "unknown-schedule", "there is no such schedule")


def _given_schedule(name: str, given: dict[str, Any], service: Service) -> Schedule:
    texts = {"graph": None, "cron": None, "timezone": "UTC", "missed": "latest"}
    for field, default in texts.items():
        value = given.get(field, default)
        if not isinstance(value, str):
            raise parameter_problem(field, value, "a text", _EXAMPLE.get(field, "latest"))
        texts[field] = value
    if texts["missed"] not in _MISSED:
        raise parameter_problem("missed", texts["missed"], f"one of {', '.join(_MISSED)}", "latest")
    deliver = given.get("deliver", [])
    if not isinstance(deliver, list) or not all(isinstance(target, str) for target in deliver):
        raise parameter_problem("deliver", deliver, "a list of names of targets", ["archive"])
    paused = given.get("paused", False)
    if not isinstance(paused, bool):
        raise parameter_problem("paused", paused, "true or false", False)
    settings = service.settings
    request = ReportRequest(
        json_number("horizon", given.get("horizon", settings.reports.horizon), 1, MAX_HORIZON_STEPS, 8760),
        json_number("seed", given.get("seed", settings.forecast.seed), 0, MAX_SEED, 0),
        settings.reports.paths,
    )
    targets = tuple(dict.fromkeys(deliver))
    return Schedule(name=name, request=request, deliver=targets, paused=paused, **texts)  # type: ignore[arg-type]
