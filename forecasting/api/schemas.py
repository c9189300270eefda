"""JSON Schemas of what the service answers, for its OpenAPI document; answers themselves are written as bytes."""

from typing import Any

from forecasting.jobs import Status
from forecasting.resolving import CalibratedOn
from infra.schema import MAX_HORIZON_STEPS, MAX_PATHS, METRIC_NAMES, METRICS, QUANTILE_LEVELS, Kind
from infra.settings import MAX_SEED

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
FLAG: Schema = {"type": "boolean"}
TIME: Schema = {"type": "string", "format": "date-time", "example": "2026-03-06T12:00:00Z"}
NUMBERS: Schema = {"type": "array", "items": {"type": "number"}}
METRIC: Schema = {"type": "string", "enum": list(METRIC_NAMES)}
LEVEL: Schema = {"type": "number", "enum": list(QUANTILE_LEVELS)}


def maybe(schema: Schema) -> Schema:
    """Return the schema of a value that may be null."""
    return {"anyOf": [schema, {"type": "null"}]}


def array(items: Schema) -> Schema:
    """Return the schema of an array."""
    return {"type": "array", "items": items}


def record(members: dict[str, Schema], *, optional: dict[str, Schema] | None = None) -> Schema:
    """Return the schema of an object that has these members, perhaps the optional ones, and no others."""
    properties = members | (optional or {})
    return {"type": "object", "required": list(members), "properties": properties, "additionalProperties": False}


def ref(name: str) -> Schema:
    """Return a reference to one of `COMPONENTS`."""
    return {"$ref": f"#/components/schemas/{name}"}


_GRAPH = {
    "graph": TEXT,
    "step": {"type": "string", "example": "1h"},
    "snapshots": COUNT,
    "events": COUNT,
    "late": COUNT,
    "first_step": maybe(TIME),
    "last_step": maybe(TIME),
}
_SNAPSHOT_METRICS: dict[str, Schema] = {
    metric.name: (
        {"type": "number", "minimum": 0, "maximum": 1, "description": metric.meaning}
        if metric.kind is Kind.SHARE
        else {**COUNT, "description": metric.meaning}
    )
    for metric in METRICS
}
_SNAPSHOT = {"step_start": TIME, "revision": COUNT}
_PROVENANCE = {
    "model": TEXT,
    "model_digest": maybe(TEXT),
    "metric_schema": COUNT,
    "state_step": TIME,
    "observed_until": TIME,
    "snapshots": COUNT,
    "snapshot_digest": TEXT,
    "degraded": FLAG,
    "degraded_reason": maybe(TEXT),
    "calibrated_until_step": maybe(COUNT),
    "skill_until_step": maybe(COUNT),
    "seed": COUNT,
}
# Jobs keep what they rest on as it was written: those from before it was told do not have it.
_CALIBRATED_ON: dict[str, Schema] = {
    "calibrated_on": {
        **maybe({"type": "string", "enum": [str(found) for found in CalibratedOn]}),
        "description": "On which graphs `calibrated_until_step` and `skill_until_step` were found: this one where the "
        "model is its own, others where the general model answers; null where both are.",
    }
}
_SERIES = record(
    {
        "type": {"const": "time_series_forecast"},
        "name": METRIC,
        "start_timestamp": TIME,
        "frequency": TEXT,
        "mean_forecast": NUMBERS,
        "quantiles": {"type": "object", "additionalProperties": NUMBERS},
    }
)
_LONG_ROW = record(
    {"unique_id": {"type": "string", "example": "town/events"}, "ds": TIME, "mean": {"type": "number"}},
    optional={f"q{level:g}": {"type": "number"} for level in QUANTILE_LEVELS},
) | {"patternProperties": {"^path_[0-9]+$": {"type": "number"}}}
# By metric: a list a path, a number a step.
_PATHS = {
    "paths": {
        "type": "object",
        "properties": {name: array(NUMBERS) for name in METRIC_NAMES},
        "additionalProperties": False,
    }
}
_FORECAST_HEAD = {"graph": TEXT, "horizon": COUNT, "provenance": ref("Provenance")}
_STATUS = {"type": "string", "enum": [status.value for status in Status]}
_PROBLEM = {
    "type": {"type": "string", "pattern": "^urn:graphtide:problem:[a-z-]+$"},
    "title": TEXT,
    "status": {"type": "integer", "minimum": 400, "maximum": 599},
    "detail": TEXT,
}

_PROGRESS = record({"steps_done": COUNT, "steps": COUNT})
_REPORT = {
    "id": TEXT,
    "graph": TEXT,
    "status": {"type": "string", "enum": [str(status) for status in Status]},
    "horizon": COUNT,
    "seed": COUNT,
    "schedule": maybe(TEXT),
    "slot": maybe(TIME),
    "progress": _PROGRESS,
    "attempts": COUNT,
    "created": maybe(TIME),
    "started": maybe(TIME),
    "finished": maybe(TIME),
    "observed_until": maybe(TIME),
    "problem": maybe(TEXT),
    "summary": array(TEXT),
    "links": record({"self": TEXT, "page": TEXT, "data": TEXT}),
}
_DELIVERY = record(
    {
        "target": TEXT,
        "status": TEXT,
        "attempts": COUNT,
        "next": maybe(TIME),
        "finished": maybe(TIME),
        "problem": maybe(TEXT),
        "idempotency_key": TEXT,
    }
)
DELIVERED = {"deliveries": array(_DELIVERY), "log": array(record({"time": TIME, "line": TEXT}))}
_SCHEDULE = {
    "name": TEXT,
    "graph": TEXT,
    "cron": TEXT,
    "timezone": TEXT,
    "horizon": COUNT,
    "seed": COUNT,
    "deliver": array(TEXT),
    "missed": {"type": "string", "enum": ["latest", "all", "skip"]},
    "paused": FLAG,
    "origin": TEXT,
    "created": TIME,
    "next": maybe(TIME),
    "links": record({"self": TEXT, "runs": TEXT}),
}
COMPONENTS: dict[str, Schema] = {
    "Report": record(_REPORT),
    "Reports": record({"reports": array(ref("Report"))}),
    # The facts are those of the data bundle; docs/reports.md says what they hold.
    "WholeReport": record(_REPORT | DELIVERED | {"facts": maybe({"type": "object"})}),
    "ReportRuns": record({"runs": array(record(_REPORT | DELIVERED))}),
    "Schedule": record(_SCHEDULE),
    "Targets": record({"targets": array(record({"name": TEXT, "kind": TEXT}))}),
    "Schedules": record({"schedules": array(ref("Schedule"))}),
    # Problems have further members, by their type.
    "Problem": record(_PROBLEM) | {"additionalProperties": True},
    "Graphs": record({"graphs": array(ref("Graph"))}),
    "Graph": record(_GRAPH),
    "GraphWithModel": record(
        _GRAPH
        | {
            "model": maybe(record({"name": TEXT, "digest": maybe(TEXT), "degraded_reason": maybe(TEXT)})),
            "metrics": array(record({"name": METRIC, "kind": TEXT, "meaning": TEXT})),
        }
    ),
    "Snapshot": record(_SNAPSHOT, optional=_SNAPSHOT_METRICS),
    "Snapshots": record(
        {"graph": TEXT, "step": TEXT, "rows": array(ref("Snapshot")), "next_cursor": maybe(TEXT)},
    ),
    "History": record(
        {
            "graph": TEXT,
            "step": TEXT,
            "steps_per_point": COUNT,
            "exact": FLAG,
            "step_start": array(TIME),
            "steps": array(COUNT),
            "series": array(record({"name": METRIC, "min": NUMBERS, "mean": NUMBERS, "max": NUMBERS})),
        }
    ),
    "Quality": record(
        {
            "graph": TEXT,
            "observed_until": maybe(TIME),
            "final_until": maybe(TIME),
            "late": COUNT,
            "watermark": maybe(TIME),
            "newest_event": maybe(TIME),
            "sources": maybe(
                record(
                    {
                        "partitions": array(
                            record(
                                {
                                    "source": TEXT,
                                    "partition": TEXT,
                                    "watermark": maybe(TIME),
                                    "newest_event": maybe(TIME),
                                    "events": COUNT,
                                    "late": COUNT,
                                    "duplicates": COUNT,
                                    "rejected": COUNT,
                                    "idle": FLAG,
                                }
                            )
                        ),
                        "dead_letters": record(
                            {"count": COUNT, "has_more": FLAG, "delivered": COUNT, "replayed": COUNT}
                        ),
                    }
                )
            ),
        }
    ),
    # The card is what training wrote down; its members differ by model.
    "ModelCard": record({"graph": TEXT, "card": maybe({"type": "object"}), "general": maybe({"type": "object"})}),
    "Provenance": record(_PROVENANCE, optional=_CALIBRATED_ON),
    "Forecast": {
        "oneOf": [
            record({**_FORECAST_HEAD, "outputs": array(_SERIES)}, optional=_PATHS),
            record({**_FORECAST_HEAD, "rows": array(_LONG_ROW)}),
        ]
    },
    "ForecastRequest": record(
        {"horizon": {"type": "integer", "minimum": 1, "maximum": MAX_HORIZON_STEPS}},
        optional={
            "metrics": {"anyOf": [{**array(METRIC), "minItems": 1}, {**TEXT, "description": "names with commas"}]},
            "quantiles": {"anyOf": [{**array(LEVEL), "minItems": 1}, {**TEXT, "description": "levels with commas"}]},
            "seed": {"type": "integer", "minimum": 0, "maximum": MAX_SEED},
            "paths": {"type": "integer", "minimum": 0, "maximum": MAX_PATHS},
        },
    ),
    "Job": record(
        {
            "id": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
            "graph": TEXT,
            "status": _STATUS,
            "horizon": COUNT,
            "metrics": array(METRIC),
            "quantiles": array(LEVEL),
            "paths": COUNT,
            "progress": record({"steps_done": COUNT, "steps": COUNT, "eta_s": maybe({"type": "number"})}),
            "created": maybe(TIME),
            "started": maybe(TIME),
            "finished": maybe(TIME),
            "expires": maybe(TIME),
            "problem": maybe(TEXT),
            "provenance": maybe(ref("Provenance")),
            "links": record({"self": TEXT, "stream": TEXT, "result": TEXT}),
        }
    ),
    "Result": record(
        {"id": TEXT, "graph": TEXT, "horizon": COUNT, "provenance": ref("Provenance"), "outputs": array(_SERIES)},
        optional=_PATHS,
    ),
    "Taken": record(
        {
            "graph": TEXT,
            "accepted": COUNT,
            "rejected": COUNT,
            "errors": array(record({"record": {"type": "integer", "minimum": 1}, "detail": TEXT})),
        }
    ),
    "Health": record(
        {
            "status": {"enum": ["ok", "degraded", "failing"]},
            "checks": {"type": "object", "additionalProperties": FLAG},
            "failed": array(TEXT),
        }
    ),
    "Readiness": record(
        {"status": {"enum": ["ready", "not ready"]}, "failed": array(TEXT)}, optional={"redis_connected": FLAG}
    ),
    "Liveness": record({"status": {"const": "ok"}}),
}
