"""Problem documents (RFC 9457): the one shape of every answer that is not what was asked for."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from forecasting.api import methods

MEDIA_TYPE = "application/problem+json"
# As nginx counts requests whose client hung up before it had sent them.
CLIENT_CLOSED_REQUEST = 499
_PREFIX = "urn:graphtide:problem:"
TITLES = {
    "invalid-parameter": "A parameter cannot be used",
    "invalid-body": "The body cannot be used",
    "unauthorized": "An API key is needed",
    "forbidden": "The API key does not allow this",
    "misdirected": "The service does not answer for this name",
    "foreign-origin": "Pages of another origin may not use this service",
    "not-found": "There is nothing here",
    "unknown-graph": "There is no such graph",
    "unknown-forecast": "There is no such forecast",
    "unknown-report": "There is no such report",
    "unknown-schedule": "There is no such schedule",
    "unknown-alert": "There is no such alert",
    "unknown-rule": "There is no such alert rule",
    "not-firing": "The alert does not fire",
    "name-taken": "Another schedule or rule has this name",
    "method-not-allowed": "The resource has no such method",
    "not-acceptable": "None of the wanted media types is offered",
    "not-finished": "The forecast is not finished",
    "no-result": "There is no result",
    "key-reused": "The Idempotency-Key stands for another request",
    "too-large": "The body is too large",
    "unsupported-type": "The body is of a kind that is not read",
    "not-printed": "The report cannot be printed",
    "no-space": "There is no room on the disk",
    "too-many-jobs": "Too much that this key asked for waits or runs",
    "too-many-requests": "The API key asks too often",
    "too-many-subscribers": "Too many streams of this key are open",
    "overloaded": "The service has more to do than it can",
    "deadline": "The answer did not come in time",
    "no-snapshots": "The graph has no closed step yet",
    "store-unavailable": "The snapshots cannot be read at the moment",
    "service-unavailable": "The service cannot do this at the moment",
    "internal": "Something went wrong that should not",
}


class Problem(Exception):  # noqa: N818 - the word of RFC 9457
    """An answer that says what is wrong and what to do.

    Args:
        status: HTTP status.
        kind: a key of the titles above; becomes the `type`.
        detail: what is wrong with this request, naming the input.
        headers: further headers of the answer.
        members: further members of the document.
    """

    def __init__(
        self, status: int, kind: str, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = dict(headers or {})
        self.document = {
            "type": _PREFIX + kind,
            "title": TITLES[kind],
            "status": status,
            "detail": detail,
            **members,
        }

    def response(self) -> Response:
        """Return the problem as a response."""
        headers = {"Cache-Control": "no-store", **self.headers}
        return Response(orjson.dumps(self.document), self.status, headers, MEDIA_TYPE)


def parameter_problem(field: str, given: object, allowed: str, example: object, **members: Any) -> Problem:
    """Return the problem of one parameter: what was given, what is allowed, and an example that works.

    None was given where it is missing; a null that stands where it must not is given as text.
    """
    if given is None:
        error = {"field": field, "allowed": allowed, "example": example}
        return Problem(422, "invalid-parameter", f"{field} is missing: give {allowed}", errors=[error], **members)
    shown = str(given)
    shown = shown if len(shown) <= 100 else shown[:97] + "..."
    error = {"field": field, "given": shown, "allowed": allowed, "example": example}
    return Problem(422, "invalid-parameter", f"{field} cannot be {shown!r}: give {allowed}", errors=[error], **members)


def unavailable(kind: str, detail: str, *, retry_after_s: int = 1) -> Problem:
    """Return a 503 that says when to try again."""
    return Problem(503, kind, detail, headers={"Retry-After": str(retry_after_s)}, retry_after_s=retry_after_s)


def too_large(max_bytes: int) -> Problem:
    """Return what is said of a body that is too long."""
    return Problem(413, "too-large", f"a body has at most {max_bytes} bytes", maximum_bytes=max_bytes)


def failed() -> Problem:
    """Return what is said of a failure of ours: nothing but where to look."""
    return Problem(500, "internal", "the service failed; its log has more under the X-Request-Id")


def near_names(name: str, known: Iterable[str]) -> list[str]:
    """Return up to three names that `name` may have meant."""
    return difflib.get_close_matches(name[:100], list(known), n=3, cutoff=0.5)


def install(app: FastAPI) -> None:
    """Answer everything that goes wrong in a route with a problem document."""

    async def of_problem(_request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return error.response()

    async def of_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path = request.url.path
        if error.status_code == 405:
            allowed = methods.allowed(request)
            detail = f"{request.method} is not a method of {path}; there is {allowed}"
            return Problem(405, "method-not-allowed", detail, headers={"Allow": allowed}).response()
        if error.status_code == 404:
            return Problem(404, "not-found", f"there is no resource {path}; /openapi.json lists them all").response()
        return Problem(error.status_code, "invalid-body", "the request cannot be read").response()

    async def of_validation(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        errors = [
            {"field": ".".join(str(part) for part in one["loc"][1:]) or str(one["loc"][0]), "allowed": one["msg"]}
            for one in error.errors()
        ]
        named = ", ".join(one["field"] for one in errors)
        return Problem(422, "invalid-parameter", f"cannot be used: {named}", errors=errors).response()

    async def of_hanging_up(_request: Request, _error: Exception) -> Response:
        # Nobody reads it; meters and logs tell it from a failure of ours by nginx's status.
        return Response(status_code=CLIENT_CLOSED_REQUEST)

    async def of_anything(_request: Request, _error: Exception) -> Response:
        # The gate logs it with the request's id, which stands in the headers.
        return failed().response()

    app.add_exception_handler(Exception, of_anything)
    app.add_exception_handler(ClientDisconnect, of_hanging_up)
    app.add_exception_handler(Problem, of_problem)
    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(RequestValidationError, of_validation)
