"""`/v1/alerts`: what fires and what did, seen, silenced, and told to whom."""

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from forecasting.alerts.machine import State
from forecasting.alerts.messages import sentence
from forecasting.alerts.records import AlertRow, Transition
from forecasting.api.parameters import json_object, query, split, whole_number
from forecasting.api.problems import Problem, parameter_problem, unavailable
from forecasting.api.reports import MAX_LISTED, answer, delivery_document, reading, shown_time
from forecasting.api.service import CallerHere, Service, ServiceHere, require
from forecasting.keys import Key, Scope
from forecasting.service_file import now_us
from infra.errors import StoreError, UsageError
from infra.steps import DAY_US, format_time, parse_duration_us

router = APIRouter(tags=["alerts"])
_STATES = tuple(state.value for state in State)
_SHOWN = f"{State.FIRING},{State.RESOLVED}"
_LONGEST_SILENCE_US = 365 * DAY_US
_EXAMPLE = {"for": "8h"}
_BODY_SCHEMA = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["for"],
                    "additionalProperties": False,
                    "properties": {"for": {"type": "string", "pattern": "^[1-9][0-9]{0,3}(s|m|h|d)$", "example": "8h"}},
                },
                "example": _EXAMPLE,
            }
        },
    }
}


@router.get("/v1/alerts", summary="Alerts that fire, and those that did")
async def list_alerts(
    request: Request,
    service: ServiceHere,
    caller: CallerHere,
    graph: Annotated[str | None, Query(description="Alerts of this graph alone.")] = None,
    state: Annotated[str | None, Query(description="ok, firing, resolved, with commas.")] = None,
    limit: Annotated[str | None, Query(description="Alerts at most.")] = None,
) -> Response:
    """Answer alerts of the graphs that the caller may see: those that fire first, then the latest that are over."""
    query(request, ("graph", "state", "limit"))
    most = whole_number("limit", "100" if limit is None else limit, 1, MAX_LISTED, example=100)
    states = split(_SHOWN if state is None else state)
    for one in states or [""]:
        if one not in _STATES:
            raise parameter_problem("state", one, f"some of {', '.join(_STATES)}", "firing")
    if graph is not None:
        service.graph(caller, graph)

    def found() -> list[AlertRow]:
        graphs = [name for name in service.alerts.graphs() if caller.sees(name) and graph in (None, name)]
        return service.alerts.newest(graphs, states, limit=most)

    return answer({"alerts": [document(row) for row in await reading(found)]})


@router.get("/v1/alerts/{alert}", summary="An alert")
async def get_alert(alert: str, request: Request, service: ServiceHere, caller: CallerHere) -> Response:
    """Answer an alert with what has changed, the latest first, and who was told of that."""
    query(request, ())
    row = await _alert(service, caller, alert)

    def changes() -> list[dict[str, Any]]:
        return [_change(service, row, one) for one in service.alerts.transitions(row.id)]

    return answer(document(row) | {"transitions": await reading(changes)})


@router.post("/v1/alerts/{alert}/acknowledge", summary="Say that an alert was seen")
async def acknowledge(alert: str, request: Request, service: ServiceHere, caller: CallerHere) -> Response:
    """Note that somebody looks after an alert that fires; it stays until it is over."""
    query(request, ())
    row = await _alert(service, caller, alert)
    require(caller, Scope.WRITE)
    if not await _writing(lambda: service.alerts.acknowledge(row.id, caller.name)):
        raise Problem(409, "not-firing", f"the alert is {row.state}: there is nothing to look after")
    return answer(document(await _alert(service, caller, alert)))


@router.post(
    "/v1/alerts/{alert}/silence", summary="Deliver nothing of an alert for a while", openapi_extra=_BODY_SCHEMA
)
async def silence(alert: str, request: Request, service: ServiceHere, caller: CallerHere) -> Response:
    """Deliver nothing for so long; what has changed by then and is still news is delivered at the end."""
    query(request, ())
    row = await _alert(service, caller, alert)
    require(caller, Scope.WRITE)
    given = json_object(await request.body(), ("for",), _EXAMPLE).get("for")
    try:
        duration_us = parse_duration_us(given) if isinstance(given, str) else 0
    except UsageError:
        duration_us = 0
    if not 0 < duration_us <= _LONGEST_SILENCE_US:
        raise parameter_problem("for", given, "a duration up to 365d", "8h")
    await _writing(lambda: service.alerts.silence(row.id, service.file.now_us() + duration_us))
    return answer(document(await _alert(service, caller, alert)))


@router.delete("/v1/alerts/{alert}/silence", summary="Deliver an alert's changes again")
async def end_silence(alert: str, request: Request, service: ServiceHere, caller: CallerHere) -> Response:
    """End a silence."""
    query(request, ())
    row = await _alert(service, caller, alert)
    require(caller, Scope.WRITE)
    await _writing(lambda: service.alerts.silence(row.id, None))
    return answer(document(await _alert(service, caller, alert)))


def document(row: AlertRow) -> dict[str, Any]:
    """Return an alert as the service shows it."""
    until_us = row.silenced_until_us
    return {
        "id": row.id,
        "rule": row.rule,
        "graph": row.graph,
        "metric": row.metric or None,
        "state": row.state,
        "since": shown_time(row.since_us),
        "judged": shown_time(row.judged_us),
        "summary": sentence(row.graph, row.metric, row.state, row.facts) if row.facts else None,
        "facts": row.facts,
        "acknowledged": shown_time(row.acknowledged_us),
        "acknowledged_by": row.acknowledged_by,
        "silenced_until": None if until_us is None or until_us <= now_us() else format_time(until_us),
        "links": {
            "self": f"/v1/alerts/{row.id}",
            "page": f"/graphs/{row.graph}",
            "rule": f"/v1/alert-rules/{row.rule}",
        },
    }


def _change(service: Service, row: AlertRow, one: Transition) -> dict[str, Any]:
    return {
        "id": one.id,
        "number": one.number,
        "state": one.state,
        "time": format_time(one.time_us),
        "summary": sentence(row.graph, row.metric, one.state, one.facts),
        "facts": one.facts,
        "deliveries": [delivery_document(each) for each in service.alert_deliveries.of(one.id)],
        "log": [{"time": format_time(at), "line": line} for at, line in service.alerts.log(one.id)],
    }


async def _alert(service: Service, caller: Key, wanted: str) -> AlertRow:
    row: AlertRow | None = await reading(lambda: service.alerts.get(wanted))
    if row is None or not caller.sees(row.graph):
        raise Problem(404, "unknown-alert", "there is no such alert, or its time is over")
    return row


async def _writing(change: Callable[[], bool]) -> bool:
    try:
        return await asyncio.to_thread(change)
    except StoreError:
        raise unavailable("service-unavailable", "the alert could not be changed") from None
