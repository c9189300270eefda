"""`/v1/alert-rules`: what is watched, and how the judging of it goes."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from pydantic import ValidationError
from starlette.responses import Response

from forecasting.alerts.rulebook import RuleRow, TooManyRulesError
from forecasting.alerts.rules import Rule, RuleError, checked, covers, describe, narrowed, rule_document
from forecasting.api.parameters import json_object, query
from forecasting.api.problems import Problem, parameter_problem, unavailable
from forecasting.api.reports import answer, reading
from forecasting.api.service import CallerHere, Service, ServiceHere, require
from forecasting.keys import ALL_GRAPHS, Key, Scope
from infra.configuration import allowed_words
from infra.errors import StoreError
from infra.settings import AlertRuleSettings
from infra.steps import format_time

router = APIRouter(tags=["alerts"])
_MEMBERS = tuple(AlertRuleSettings.model_fields)
_EXAMPLE: dict[str, Any] = {
    "kind": "forecast",
    "graph": "town",
    "metric": "active_nodes",
    "below": 50,
    "probability": 0.8,
    "within": "24h",
}
_EXAMPLES = _EXAMPLE | {
    "above": 500,
    "resolve_probability": 0.5,
    "aggregate": "step",
    "metrics": ["events", "active_nodes"],
    "leads": [1, 24],
    "false_discovery_rate": 0.1,
    "after": "3h",
    "for_steps": 1,
    "deliver": ["archive"],
}
_BODY_SCHEMA = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/AlertRuleRequest"},
                "example": _EXAMPLE,
            }
        },
    }
}


@router.get("/v1/alert-rules", summary="All alert rules")
async def list_rules(request: Request, service: ServiceHere, caller: CallerHere) -> Response:
    """Answer the rules whose graphs the caller may see, all of them."""
    query(request, ())
    rows = await reading(service.rules.all)
    return answer({"rules": [document(row) for row in rows if _sees(caller, row.rule)]})


@router.get("/v1/alert-rules/{name}", summary="An alert rule")
async def get_rule(name: str, request: Request, service: ServiceHere, caller: CallerHere) -> Response:
    """Answer a rule, how often it was judged, and why it could not be."""
    query(request, ())
    return answer(document(await _rule(service, caller, name)))


@router.put("/v1/alert-rules/{name}", summary="Set an alert rule", openapi_extra=_BODY_SCHEMA)
async def put_rule(name: str, request: Request, service: ServiceHere, caller: CallerHere) -> Response:
    """Set a rule: 201 where there was none of its name. Its alerts begin anew where it says something else."""
    query(request, ())
    given = json_object(await request.body(), _MEMBERS, _EXAMPLE)
    rule = _given_rule(name, given, service, caller)

    def guard(known: RuleRow) -> None:
        if known.origin == "config" or not _sees(caller, known.rule):
            raise Problem(409, "name-taken", f"there is an alert rule {name[:100]!r} that this key cannot change")

    try:
        most = service.settings.alerts.max_rules_per_key
        row, is_new = await asyncio.to_thread(service.rules.put, rule, owner=caller.id, most=most, guard=guard)
    except TooManyRulesError as error:
        raise Problem(429, "too-many-jobs", error.message, headers={"Retry-After": "60"}) from None
    except StoreError:
        raise unavailable("service-unavailable", "the alert rule could not be kept") from None
    return answer(document(row), 201 if is_new else 200, {"Location": f"/v1/alert-rules/{name}"})


@router.delete("/v1/alert-rules/{name}", status_code=204, summary="Remove an alert rule")
async def delete_rule(name: str, request: Request, service: ServiceHere, caller: CallerHere) -> Response:
    """Remove a rule; its alerts that fire are over."""
    query(request, ())

    def guard(known: RuleRow) -> None:
        if not _sees(caller, known.rule):
            raise _unknown()
        require(caller, Scope.WRITE)
        if known.origin == "config":
            raise Problem(409, "name-taken", f"{name!r} stands in the settings: remove it there")

    try:
        if not await asyncio.to_thread(service.rules.remove, name, guard):
            raise _unknown()
    except StoreError:
        raise unavailable("service-unavailable", "the alert rule could not be removed") from None
    return Response(status_code=204, headers={"Cache-Control": "no-store"})


def document(row: RuleRow) -> dict[str, Any]:
    """Return a rule as the service shows it."""
    return {
        "name": row.rule.name,
        **rule_document(row.rule),
        "says": describe(row.rule),
        "origin": row.origin,
        "created": format_time(row.created_us),
        "evaluations": row.evaluations,
        "failures": row.failures,
        "problem": row.problem,
        "links": {"self": f"/v1/alert-rules/{row.rule.name}", "alerts": "/v1/alerts"},
    }


def _sees(caller: Key, rule: Rule) -> bool:
    """Tell whether a key is for all that a rule watches."""
    return all(any(covers(own, watched) for own in caller.graphs) for watched in rule.patterns)


async def _rule(service: Service, caller: Key, name: str) -> RuleRow:
    row: RuleRow | None = await reading(lambda: service.rules.get(name))
    if row is None or not _sees(caller, row.rule):
        raise _unknown()
    return row


def _unknown() -> Problem:
    return Problem(404, "unknown-rule", "there is no such alert rule")


def _given_rule(name: str, given: dict[str, Any], service: Service, caller: Key) -> Rule:
    """Return the rule that a body describes, over what the caller may see of it."""
    try:
        spec = AlertRuleSettings.model_validate(given)
        rule = checked(name, spec, service.settings.reports.targets)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0])
        said = first.get("ctx", {}).get("error")
        allowed = str(said) if said is not None else allowed_words(AlertRuleSettings.model_fields[field])
        shown = None if first["type"] == "missing" else first["input"]
        raise parameter_problem(field, shown, allowed, _EXAMPLES[field]) from None
    except RuleError as error:
        raise parameter_problem(error.field, error.given, error.allowed, error.example) from None
    require(caller, Scope.WRITE)
    if ALL_GRAPHS not in spec.graph:
        service.graph(caller, spec.graph, Scope.WRITE)
    seen = narrowed(rule, caller.graphs)
    if seen is None:
        raise Problem(404, "unknown-graph", f"there is no graph {spec.graph[:200]!r} that this key may see")
    # Targets are the operator's: one that is not for all that the rule watches would be told of other graphs.
    for target in spec.deliver:
        patterns = service.settings.reports.targets[target].graphs
        if not all(any(covers(pattern, watched) for pattern in patterns) for watched in seen.patterns):
            raise parameter_problem("deliver", target, "names of targets whose graphs hold those of the rule", [])
    return seen
