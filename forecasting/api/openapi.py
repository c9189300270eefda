"""The OpenAPI document: FastAPI's list of routes, with what each takes and answers written down.

Routes read their parameters and write their answers themselves, which is faster and lets every mistake be told in the
same words; so the document says beside them what they do, and a test sends requests by it and compares the answers.
"""

from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from forecasting.api import history, problems, results, streams, telemetry
from forecasting.api.alert_schemas import ALERT_COMPONENTS
from forecasting.api.reports import MAX_LISTED
from forecasting.api.schemas import COMPONENTS, LEVEL, METRIC, TEXT, Schema, array, ref
from forecasting.api.short_forecasts import most_paths
from infra.settings import MAX_SEED, Settings

JSON = "application/json"
_OPEN = frozenset({"/livez", "/readyz", "/health"})
_GRAPH_NAME: Schema = {"type": "string", "pattern": "^[a-z0-9][a-z0-9._:-]{0,127}$", "example": "town"}
_JOB_ID: Schema = {"type": "string", "pattern": "^[0-9a-f]{32}$"}
_IDEMPOTENCY_KEY: Schema = {"type": "string", "pattern": "^[!-~]{1,255}$", "example": "2026-03-06"}
_MOMENT: Schema = {
    "anyOf": [{"type": "string", "format": "date-time"}, {"type": "string", "format": "date"}],
    "example": "2026-03-06T12:00:00Z",
}
_PROBLEMS = {
    401: "There is no valid API key.",
    403: "The key's scope is too small, or a page of another origin asks a service without keys.",
    404: "There is no such thing, or the key is not for it.",
    406: "None of the media types in Accept is offered.",
    409: "It is too early for that.",
    413: "The body is too large.",
    415: "The body is of a kind that is not read.",
    421: "The name in Host is none of this machine, and the service has no keys.",
    422: "A parameter or the body cannot be used; errors says which, and what is allowed.",
    429: "This key asks too often or has too much open; Retry-After says when to come again.",
    500: "Something went wrong that should not.",
    503: "The service cannot do this now; Retry-After says when to come again.",
    507: "There is no room on the disk; nothing was kept.",
}
_ALWAYS = (413, 422, 500, 503)
_WITH_KEY = (401, 403, 421, 429)


@dataclass(frozen=True, slots=True)
class _Route:
    """What a route answers.

    Attributes:
        says: when it succeeds.
        bodies: media type to schema.
        problems: statuses beside those of every route.
        status: of success.
        headers: of success, with what they say.
        not_modified: whether `If-None-Match` is heeded.
        created: when the same answer comes with 201; empty where it never does.
    """

    says: str
    bodies: dict[str, Schema]
    problems: tuple[int, ...] = ()
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    not_modified: bool = False
    created: str = ""


_TAG = {"ETag": "Digest of the answer; ask with If-None-Match."}
_AGE = {
    "Graphtide-Data-Age": "Seconds since the end of the last observed step.",
    "Graphtide-Degraded": "true where a floor answers.",
}
# Of server-sent events the schema is that of one event, as readers of OpenAPI take it.
_EVENT: Schema = {"type": "object", "required": ["event", "data"], "properties": {"event": TEXT, "data": TEXT}}
_EVENT_STREAM: dict[str, Schema] = {streams.SSE: _EVENT, streams.NDJSON: TEXT}
_BINARY: Schema = {"type": "string", "format": "binary"}
_FILES: dict[str, Schema] = {
    results.CSV: TEXT,
    results.PARQUET: {"type": "string", "format": "binary"},
    results.ARROW: {"type": "string", "format": "binary"},
}
_ROUTES = {
    ("get", "/v1/graphs"): _Route("The graphs.", {JSON: ref("Graphs")}, headers=_TAG, not_modified=True),
    ("get", "/v1/graphs/{graph}"): _Route(
        "The graph.", {JSON: ref("GraphWithModel")}, (404,), headers=_TAG, not_modified=True
    ),
    ("get", "/v1/graphs/{graph}/snapshots"): _Route(
        "One page.", {JSON: ref("Snapshots")}, (404,), headers=_TAG, not_modified=True
    ),
    ("get", "/v1/graphs/{graph}/history"): _Route(
        "The buckets.", {JSON: ref("History")}, (404,), headers=_TAG, not_modified=True
    ),
    ("get", "/v1/graphs/{graph}/quality"): _Route(
        "Where the sources are.", {JSON: ref("Quality")}, (404,), headers=_TAG, not_modified=True
    ),
    ("get", "/v1/graphs/{graph}/model"): _Route(
        "The card.", {JSON: ref("ModelCard")}, (404,), headers=_TAG, not_modified=True
    ),
    ("get", "/v1/graphs/{graph}/live"): _Route("Events: snapshot, forecast, history, end.", _EVENT_STREAM, (404, 406)),
    ("post", "/v1/graphs/{graph}/events"): _Route(
        "The events are kept.",
        {JSON: ref("Taken")},
        (404, 415, 507),
        202,
        {"Idempotent-Replayed": "true where the same request was taken before."},
    ),
    ("get", "/v1/graphs/{graph}/forecast"): _Route(
        "The forecast.", {JSON: ref("Forecast")}, (404, 409), headers=_TAG | _AGE, not_modified=True
    ),
    ("post", "/v1/graphs/{graph}/forecasts"): _Route(
        "The job waits.",
        {JSON: ref("Job")},
        (404, 409),
        202,
        {"Location": "Where the job is.", "Idempotent-Replayed": "true where it was asked for before."},
    ),
    ("get", "/v1/forecasts/{forecast}"): _Route("The job.", {JSON: ref("Job")}, (404,)),
    ("get", "/v1/forecasts/{forecast}/stream"): _Route("Events: chunk, end.", _EVENT_STREAM, (404, 406)),
    ("get", "/v1/forecasts/{forecast}/result"): _Route(
        "The forecast.", {JSON: ref("Result"), **_FILES}, (404, 406, 409), headers=_TAG, not_modified=True
    ),
    ("delete", "/v1/forecasts/{forecast}"): _Route("The job as it stands now.", {JSON: ref("Job")}, (404,)),
    ("post", "/v1/graphs/{graph}/reports"): _Route(
        "The report waits.", {JSON: ref("Report")}, (404, 409), 202, {"Location": "Where the report is."}
    ),
    ("get", "/v1/reports"): _Route("The newest first.", {JSON: ref("Reports")}, (404,)),
    ("get", "/v1/reports/{report}"): _Route(
        "The report.",
        {JSON: ref("WholeReport"), "text/html": TEXT, "application/zip": _BINARY, "application/pdf": _BINARY},
        (404, 406, 409),
        not_modified=True,
    ),
    ("delete", "/v1/reports/{report}"): _Route("It is deleted.", {}, (404,), 204),
    ("get", "/v1/report-targets"): _Route("The targets.", {JSON: ref("Targets")}, (404,)),
    ("get", "/v1/report-schedules"): _Route("The schedules.", {JSON: ref("Schedules")}),
    ("get", "/v1/report-schedules/{name}"): _Route("The schedule.", {JSON: ref("Schedule")}, (404,)),
    ("put", "/v1/report-schedules/{name}"): _Route(
        "It was changed.",
        {JSON: ref("Schedule")},
        (404, 409),
        headers={"Location": "Where the schedule is."},
        created="There was none of this name.",
    ),
    ("delete", "/v1/report-schedules/{name}"): _Route("It is removed.", {}, (404, 409), 204),
    ("get", "/v1/report-schedules/{name}/runs"): _Route("The latest slots.", {JSON: ref("ReportRuns")}, (404,)),
    ("get", "/v1/alert-rules"): _Route("The rules.", {JSON: ref("AlertRules")}),
    ("get", "/v1/alert-rules/{name}"): _Route("The rule.", {JSON: ref("AlertRule")}, (404,)),
    ("put", "/v1/alert-rules/{name}"): _Route(
        "It was changed.",
        {JSON: ref("AlertRule")},
        (404, 409),
        headers={"Location": "Where the rule is."},
        created="There was none of this name.",
    ),
    ("delete", "/v1/alert-rules/{name}"): _Route("It is removed.", {}, (404, 409), 204),
    ("get", "/v1/alerts"): _Route("Those that fire first.", {JSON: ref("Alerts")}, (404,)),
    ("get", "/v1/alerts/{alert}"): _Route("The alert.", {JSON: ref("WholeAlert")}, (404,)),
    ("post", "/v1/alerts/{alert}/acknowledge"): _Route("It is noted.", {JSON: ref("Alert")}, (404, 409)),
    ("post", "/v1/alerts/{alert}/silence"): _Route("It is silenced.", {JSON: ref("Alert")}, (404,)),
    ("delete", "/v1/alerts/{alert}/silence"): _Route("It is heard of again.", {JSON: ref("Alert")}, (404,)),
    ("get", "/livez"): _Route("The process answers.", {JSON: ref("Liveness")}),
    ("get", "/readyz"): _Route("Send requests here.", {JSON: ref("Readiness")}),
    ("get", "/health"): _Route("All that is required works.", {JSON: ref("Health")}),
    ("get", "/metrics"): _Route("The meters.", {telemetry.CONTENT_TYPE.partition(";")[0]: TEXT}),
}
# Where the answer to a failure has the shape of the answer to success.
_SAME_SHAPE = frozenset({"/readyz", "/health"})


def describe(app: FastAPI, settings: Settings) -> None:
    """Let an application whose routes are all included answer with the document."""
    document = _document(app, settings)
    # FastAPI's documented way: https://fastapi.tiangolo.com/how-to/extending-openapi/
    app.openapi = lambda: document  # type: ignore[method-assign]


def _document(app: FastAPI, settings: Settings) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    parameters = _parameters(settings)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            operation["responses"] = _responses(path, _ROUTES[method, path])
            operation["security"] = [] if path in _OPEN else [{"bearer": []}, {"key": []}, {}]
            for one in operation.get("parameters", ()):
                one["schema"] = parameters[one["name"].lower()]
                if one["name"] == "limit" and not path.endswith("/snapshots"):
                    # Of a list, not of steps.
                    one["schema"] = {"type": "integer", "minimum": 1, "maximum": MAX_LISTED, "example": 100}
                if one["schema"].get("type") == "array":
                    one |= {"style": "form", "explode": False}
    document["components"] = {
        "schemas": COMPONENTS | ALERT_COMPONENTS,
        "securitySchemes": {
            "bearer": {"type": "http", "scheme": "bearer", "description": "Authorization: Bearer gt_…"},
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        },
    }
    return document


def _parameters(settings: Settings) -> dict[str, Schema]:
    api = settings.api
    return {
        "graph": _GRAPH_NAME,
        "forecast": _JOB_ID,
        "report": _JOB_ID,
        "alert": _JOB_ID,
        "state": {**array({"type": "string", "enum": ["ok", "firing", "resolved"]}), "minItems": 1},
        "name": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,63}$", "example": "monday"},
        "horizon": {"type": "integer", "minimum": 1, "maximum": api.short_max_steps, "example": 24},
        "metrics": {**array(METRIC), "minItems": 1, "example": ["events", "new_nodes"]},
        "quantiles": {**array(LEVEL), "minItems": 1, "example": [0.1, 0.5, 0.9]},
        "format": {"type": "string", "enum": ["series", "long"]},
        "paths": {"type": "integer", "minimum": 1, "maximum": most_paths(api), "example": 20},
        "seed": {"type": "integer", "minimum": 0, "maximum": MAX_SEED},
        "limit": {"type": "integer", "minimum": 1, "maximum": api.max_page_rows, "example": 168},
        "points": {"type": "integer", "minimum": history.MIN_POINTS, "maximum": history.MAX_POINTS, "example": 400},
        "start": _MOMENT,
        "end": _MOMENT,
        "cursor": TEXT,
        "last-event-id": TEXT,
        "idempotency-key": _IDEMPOTENCY_KEY,
    }


def _responses(path: str, route: _Route) -> dict[str, Any]:
    success: dict[str, Any] = {
        "description": route.says,
        **({"content": {kind: {"schema": schema} for kind, schema in route.bodies.items()}} if route.bodies else {}),
    }
    if route.headers:
        success["headers"] = {name: {"description": says, "schema": TEXT} for name, says in route.headers.items()}
    found: dict[str, Any] = {str(route.status): success}
    if route.created:
        found["201"] = success | {"description": route.created}
    if route.not_modified:
        found["304"] = {"description": "The client has the same answer already."}
    codes = {*_ALWAYS, *route.problems, *(() if path in _OPEN else _WITH_KEY)}
    for code in sorted(codes):
        content = {problems.MEDIA_TYPE: {"schema": ref("Problem")}}
        if path in _SAME_SHAPE and code == 503:
            content = {JSON: success["content"][JSON]}
        found[str(code)] = {"description": _PROBLEMS[code], "content": content}
        if code in {429, 503}:
            found[str(code)]["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
    return found
