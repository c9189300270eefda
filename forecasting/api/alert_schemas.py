"""JSON Schemas of alerts and their rules, beside those in `schemas`."""

from forecasting.api.schemas import COUNT, DELIVERED, METRIC, TEXT, TIME, Schema, array, maybe, record, ref
from infra.schema import MAX_HORIZON_STEPS

_SHARE: Schema = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
_DURATION: Schema = {"type": "string", "pattern": "^[1-9][0-9]{0,3}(s|m|h|d|w)$", "example": "24h"}
_KIND: Schema = {"type": "string", "enum": ["forecast", "surprise", "stale"]}
_NUMBER: Schema = {"type": "number"}
_STEPS: Schema = {"type": "integer", "minimum": 1, "maximum": MAX_HORIZON_STEPS}
_LEADS: Schema = {**array({"type": "integer", "minimum": 1, "maximum": 168}), "minItems": 1, "maxItems": 8}
_OF_KINDS: dict[str, Schema] = {
    "metric": METRIC,
    "below": maybe(_NUMBER),
    "above": maybe(_NUMBER),
    "probability": _SHARE,
    "resolve_probability": maybe(_SHARE),
    "within": {"anyOf": [_STEPS, _DURATION]},
    "aggregate": {"type": "string", "enum": ["step", "day", "week"]},
    "metrics": array(METRIC),
    "leads": _LEADS,
    "false_discovery_rate": maybe(_SHARE),
    "after": maybe(_DURATION),
    "for_steps": {"type": "integer", "minimum": 1, "maximum": 1000},
}
_ALERT = {
    "id": TEXT,
    "rule": TEXT,
    "graph": TEXT,
    "metric": maybe(METRIC),
    "state": {"type": "string", "enum": ["ok", "firing", "resolved"]},
    "since": TIME,
    "judged": TIME,
    "summary": maybe(TEXT),
    # What the last judgement rests on; docs/alerts.md says what each kind has.
    "facts": {"type": "object"},
    "acknowledged": maybe(TIME),
    "acknowledged_by": maybe(TEXT),
    "silenced_until": maybe(TIME),
    "links": record({"self": TEXT, "page": TEXT, "rule": TEXT}),
}
_TRANSITION = record(
    {"id": TEXT, "number": COUNT, "state": TEXT, "time": TIME, "summary": TEXT, "facts": {"type": "object"}} | DELIVERED
)
ALERT_COMPONENTS: dict[str, Schema] = {
    "Alert": record(_ALERT),
    "Alerts": record({"alerts": array(ref("Alert"))}),
    "WholeAlert": record(_ALERT | {"transitions": array(_TRANSITION)}),
    "AlertRuleRequest": record(
        {"kind": _KIND, "graph": {"type": "string", "minLength": 1, "maxLength": 128}},
        optional=_OF_KINDS | {"deliver": array(TEXT)},
    ),
    "AlertRule": record(
        {
            "name": TEXT,
            "kind": _KIND,
            "graph": TEXT,
            "deliver": array(TEXT),
            "says": TEXT,
            "origin": TEXT,
            "created": TIME,
            "evaluations": COUNT,
            "failures": COUNT,
            "problem": maybe(TEXT),
            "links": record({"self": TEXT, "alerts": TEXT}),
        },
        optional=_OF_KINDS,
    ),
    "AlertRules": record({"rules": array(ref("AlertRule"))}),
}
