"""What stands before Ray Serve's own HTTP proxy, on every node: Ray takes orders from headers, keeps bodies of any
length in memory, and says what went wrong in its own words.

It runs in the proxy's process, which imports neither torch nor the service. `middlewares` is named to Ray by the
environment of `environment`.
"""

import asyncio
import json
import logging
import os
import secrets
from collections.abc import Iterable
from typing import Any

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from forecasting.api.problems import Problem, too_large, unavailable
from forecasting.api.security_headers import SECURITY_HEADERS

# The graph that a request is about, for the router: requests for a graph go to the replica that has its state.
GRAPH_HEADER = "x-graphtide-graph"
# Ray's own pages, `/-/healthz` and `/-/routes`.
_RAYS = "/-/"
_GRAPHS = "/v1/graphs/"
# What Ray Serve would take from a client: where to send the request, under which name, how long to wait, whether to go
# on without the client.
_ORDERS = frozenset(
    {
        GRAPH_HEADER,
        "serve-multiplexed-model-id",
        "x-request-disconnect-disabled",
        "x-request-id",
        "x-request-timeout-seconds",
        "x-session-id",
    }
)
_VARIABLE = "GRAPHTIDE_RAY_EDGE"
# Every answer of the service has it, and none of Ray's own.
_OURS = SECURITY_HEADERS[0][0]
_log = logging.getLogger(__name__)


def environment(*, max_body_bytes: int, send_timeout_s: float) -> dict[str, str]:
    """Return the variables with which Ray's proxies put an `Edge` before themselves."""
    return {
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": f"{__name__}:{middlewares.__name__}",
        "RAY_SERVE_SESSION_ID_HEADER_KEY": GRAPH_HEADER,
        _VARIABLE: json.dumps({"max_body_bytes": max_body_bytes, "send_timeout_s": send_timeout_s}),
    }


def middlewares() -> list[Middleware]:
    """Return what a proxy puts before itself."""
    return [Middleware(Edge, **json.loads(os.environ[_VARIABLE]))]


class Edge:
    """ASGI middleware around Ray Serve's proxy.

    Args:
        app: the proxy.
        max_body_bytes: of a request; longer ones are refused by the service, and ended here at the latest.
        send_timeout_s: seconds that a reader may take for a part of an answer; then the connection is ended.
    """

    def __init__(self, app: ASGIApp, *, max_body_bytes: int, send_timeout_s: float) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._send_timeout_s = send_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http" or scope["path"].startswith(_RAYS):
            await self._app(scope, receive, send)
            return
        answer = _Answer(send, self._send_timeout_s)
        body = _Body(receive, self._max_body_bytes)
        failure: Exception | None = None
        try:
            await self._app({**scope, "headers": _headers(scope)}, body.receive, answer.send)
        except Exception as error:
            if answer.is_begun:
                raise
            failure = error
        if answer.is_begun or body.is_left:
            return
        problem = too_large(self._max_body_bytes) if body.is_too_long else _away()
        request_id = secrets.token_hex(8)
        said = answer.rays if failure is None else f"{type(failure).__name__}: {failure}"
        _log.warning("request %s: %d, %s", request_id, problem.status, said or "the replica was lost")
        response = problem.response()
        response.raw_headers += [(b"x-request-id", request_id.encode()), *SECURITY_HEADERS]
        await response(scope, receive, send)


def _headers(scope: Scope) -> list[tuple[bytes, bytes]]:
    """Return the headers of a request without orders for Ray, and with the graph that it is about."""
    kept = [(name, value) for name, value in scope["headers"] if _normal(name) not in _ORDERS]
    path: str = scope["path"]
    if path.startswith(_GRAPHS) and (graph := path.removeprefix(_GRAPHS).partition("/")[0]):
        kept.append((GRAPH_HEADER.encode(), graph.encode()))
    return kept


def _normal(name: bytes) -> str:
    return name.decode("latin-1").lower().replace("_", "-")


def _away() -> Problem:
    return unavailable("service-unavailable", "the service could not answer; ask once more")


class _Body:
    """What is received, up to a limit.

    Attributes:
        is_too_long: the limit was passed.
        is_left: the client is gone.
    """

    def __init__(self, receive: Receive, max_bytes: int) -> None:
        self._receive = receive
        self._left = max_bytes
        self.is_too_long = self.is_left = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.is_left = True
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            # The proxy would keep all that comes, until the answer ends.
            self.is_too_long = True
            return {"type": "http.disconnect"}
        return message


class _Answer:
    """What is sent, if it is the service's.

    Attributes:
        is_begun: something was sent.
        rays: what Ray said instead; '' if nothing.
    """

    def __init__(self, send: Send, timeout_s: float) -> None:
        self._send = send
        self._timeout_s = timeout_s
        self.is_begun = False
        self.rays = ""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers: list[tuple[bytes, bytes]] = list(message.get("headers", ()))
            if all(name != _OURS for name, _ in headers):
                self.rays = f"Ray answered {message['status']}"
                return
            message = {**message, "headers": list(_once(headers))}
        elif self.rays:
            return
        self.is_begun = True
        async with asyncio.timeout(self._timeout_s):
            await self._send(message)


def _once(headers: Iterable[tuple[bytes, bytes]]) -> Iterable[tuple[bytes, Any]]:
    """Yield headers with the service's own request id alone: Ray adds its own behind it."""
    has_id = False
    for name, value in headers:
        is_id = name.lower() == b"x-request-id"
        if not (is_id and has_id):
            yield name, value
        has_id = has_id or is_id
