"""The gate before every route: request ids, keys, limits, security headers, meters, audit; and the last resort."""

import logging
import secrets
import time
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from forecasting.api.open_mode import refuse_strangers
from forecasting.api.problems import Problem, too_large, unavailable
from forecasting.api.security_headers import SECURITY_HEADERS
from forecasting.api.service import Service
from forecasting.keys import ANYONE, Key
from forecasting.tracing import NO_TRACING, Span
from infra.errors import StoreError

# What anyone may ask; all else needs a key as soon as one exists.
OPEN_PATHS = frozenset({"/", "/livez", "/readyz", "/health"})
# The shells of the dashboard and their files, which hold no data: a browser sends no key with a page that it opens.
_OPEN_PREFIXES = ("/graphs/", "/assets/")
_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_log = logging.getLogger(__name__)
_audit = logging.getLogger("graphtide.audit")


class Gate:
    """ASGI middleware around the whole application.

    Args:
        app: the application, whose `state.service` is set once it has started.
        state: where the service will be.
        max_body_bytes: longer bodies are refused.
        max_events_bytes: of bodies that hold events.
    """

    def __init__(self, app: ASGIApp, *, state: Any, max_body_bytes: int, max_events_bytes: int) -> None:
        self._app = app
        self._state = state
        self._max_body_bytes = max_body_bytes
        self._max_events_bytes = max_events_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass on what is none."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, request_id = Headers(scope=scope), secrets.token_hex(8)
        service = getattr(self._state, "service", None)
        tracing = NO_TRACING if service is None else service.tracing
        with tracing.request(scope["method"], headers) as span:
            span.set("graphtide.request_id", request_id)
            await self._answer(scope, receive, send, headers, request_id, span)

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, headers: Headers, request_id: str, span: Span
    ) -> None:
        begin = time.perf_counter()
        status, is_answered = 0, False

        async def sending(message: Message) -> None:
            nonlocal status, is_answered
            if message["type"] == "http.response.start":
                status = message["status"]
                given = message.get("headers", ())
                # A page has a policy of its own.
                named = {name for name, _ in given}
                added = [header for header in SECURITY_HEADERS if header[0] not in named]
                message = {**message, "headers": [*given, (b"x-request-id", request_id.encode()), *added]}
            await send(message)
            is_answered = message["type"] == "http.response.body" and not message.get("more_body", False)

        try:
            response = await self._refusal(scope, headers)
            if response is not None:
                await response(scope, receive, sending)
            else:
                await self._app(scope, _Bounded(receive, self._most(scope)), sending)
        except Exception:
            # Once the answer has begun, all that can be said is that it ends here: the connection breaks.
            _log.exception("request %s failed", request_id)
            if not is_answered:
                raise
        finally:
            self._account(scope, status, request_id, time.perf_counter() - begin)
            span.name(f"{scope['method']} {_route(scope)}")
            span.set("http.request.method", scope["method"])
            span.set("http.route", _route(scope))
            span.set("http.response.status_code", status)

    async def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        """Return the answer to a request that goes no further; else put the caller where routes find it."""
        try:
            length, most = headers.get("content-length", "0"), self._most(scope)
            if not (length.isascii() and length.isdigit() and len(length) < 16 and int(length) <= most):
                raise too_large(most)
            if scope["path"] not in OPEN_PATHS and not scope["path"].startswith(_OPEN_PREFIXES):
                scope["graphtide.caller"] = await self._admitted(headers)
        except Problem as problem:
            return problem.response()
        return None

    async def _admitted(self, headers: Headers) -> Key:
        """Return whose request this is.

        Raises:
            Problem: it may not be asked, not from there, or not that often.
        """
        service: Service = self._state.service
        try:
            caller = await service.keyring.caller(_token(headers))
        except StoreError as error:
            _log.warning("API keys cannot be read: %s", error.message)
            raise unavailable("service-unavailable", "API keys cannot be checked at the moment") from None
        if caller is None:
            detail = "send a valid key: Authorization: Bearer gt_…; keys are made by graphtide keys create"
            raise Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})
        if caller is ANYONE:
            refuse_strangers(headers, only_loopback=not service.settings.api.allow_open)
        wait_s = service.rates.wait_s(caller.id)
        if wait_s:
            service.telemetry.shed.labels("rate").inc()
            detail = f"{service.settings.api.rate_per_s:g} requests a second of a key are answered"
            raise Problem(429, "too-many-requests", detail, headers={"Retry-After": str(wait_s)})
        return caller

    def _most(self, scope: Scope) -> int:
        """Return how many bytes the body of a request may have."""
        takes_events = scope["method"] == "POST" and scope["path"].endswith("/events")
        return self._max_events_bytes if takes_events else self._max_body_bytes

    def _account(self, scope: Scope, status: int, request_id: str, elapsed_s: float) -> None:
        service = getattr(self._state, "service", None)
        route = _route(scope)
        method = scope["method"] if scope["method"] in _READS | {"POST", "PUT", "DELETE", "PATCH"} else "other"
        if service is not None:
            service.telemetry.answered(route, method, str(status), elapsed_s)
        if scope["method"] not in _READS:
            caller = scope.get("graphtide.caller")
            who = f"{caller.id or '-'} ({caller.name})" if caller is not None else "nobody"
            # %r: a path is the caller's text, and must not begin a line of its own.
            _audit.info("%s %r by %s: %d, request %s", method, scope["path"][:300], who, status, request_id)


def _route(scope: Scope) -> str:
    return getattr(scope.get("route"), "path", "unmatched")


def _token(headers: Headers) -> str | None:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key")


class _Bounded:
    """What is received, up to a limit: a body may come without its length."""

    def __init__(self, receive: Receive, max_bytes: int) -> None:
        self._receive = receive
        self._max_bytes = self._left = max_bytes

    async def __call__(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise too_large(self._max_bytes)
        return message
