"""The REST interface, from the OpenAPI document of the service."""

import json
from typing import Any

from docs.site.text import block, code, table
from forecasting.api.app import application
from forecasting.api.problems import TITLES
from infra.settings import Settings

_METHODS = ("get", "post", "put", "delete")


def page() -> str:
    """Return the page of all routes."""
    document = application(Settings()).openapi()
    schemas = document["components"]["schemas"]
    parts = [
        "# REST\n",
        "Made from the OpenAPI document that the service answers with at `/openapi.json`, with the limits of the"
        " default settings. [The forecast service](../api.md) shows each call. With keys, a request carries"
        " `Authorization: Bearer gt_…` or `X-API-Key`.\n",
    ]
    for path, operations in document["paths"].items():
        for method in _METHODS:
            if method in operations:
                parts += _operation(method, path, operations[method])
    parts += [
        "## Problems\n",
        "Every other answer is a problem document (RFC 9457), `application/problem+json`. Its `type` is"
        " `urn:graphtide:problem:` and one of:\n",
        table(("type", "title"), [(code(kind), title) for kind, title in TITLES.items()]),
        "## Shapes\n",
    ]
    for name, schema in schemas.items():
        parts += [f"### {name}\n", _text(schema.get("description", "")), _members(schema)]
    return "\n".join(part for part in parts if part)


def _operation(method: str, path: str, operation: dict[str, Any]) -> list[str]:
    parameters = [
        (code(one["name"]), one["in"], _type(one["schema"]), _text(one.get("description", "")))
        for one in operation.get("parameters", ())
    ]
    answers = [
        (code(status), _text(answer["description"]), ", ".join(_content(answer)))
        for status, answer in operation["responses"].items()
    ]
    body = operation.get("requestBody", {}).get("content", {})
    taken = ", ".join(f"{code(kind)}: {_type(each.get('schema', {}))}" for kind, each in body.items())
    return [
        f"## {method.upper()} {path}\n",
        f"**{operation['summary']}.** {_text(operation.get('description', ''))}\n",
        table(("parameter", "in", "values", "meaning"), parameters),
        f"Body: {taken}\n" if taken else "",
        table(("status", "when", "body"), answers),
    ]


def _content(answer: dict[str, Any]) -> list[str]:
    return [f"{code(kind)} {_type(each.get('schema', {}))}".strip() for kind, each in answer.get("content", {}).items()]


def _members(schema: dict[str, Any]) -> str:
    properties = schema.get("properties")
    if not properties:
        return block("json", json.dumps(schema, indent=2))
    needed = set(schema.get("required", ()))
    rows = [
        (code(name), _type(each), "always" if name in needed else "", _text(each.get("description", "")))
        for name, each in properties.items()
    ]
    return table(("member", "values", "there", "meaning"), rows)


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for word in ("anyOf", "oneOf", "allOf"):
        if word in schema:
            return " or ".join(dict.fromkeys(_type(each) for each in schema[word]))
    if "const" in schema:
        return code(json.dumps(schema["const"]))
    if "enum" in schema:
        values = [code(str(value)) for value in schema["enum"]]
        return ", ".join(values) if len(values) <= 12 else f"{values[0]} … {values[-1]} ({len(values)} values)"
    kind = schema.get("type", "")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}".strip()
    if isinstance(kind, list):
        kind = " or ".join(kind)
    return kind + _limits(schema)


def _limits(schema: dict[str, Any]) -> str:
    said = ""
    if "minimum" in schema or "maximum" in schema:
        said += f", {schema.get('minimum', '')} to {schema.get('maximum', '')}".rstrip()
    if "format" in schema:
        said += f", {schema['format']}"
    if "pattern" in schema:
        said += f", {code(schema['pattern'])}"
    return said


def _text(text: str) -> str:
    return " ".join(text.split()).replace("<", "\\<")
