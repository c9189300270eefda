"""HEAD wherever there is GET (RFC 9110, 9.3.2), and which methods a resource has."""

from typing import Any

import anyio
from fastapi import Request
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def allowed(request: Request) -> str:
    """Return the methods of the resource that was asked for, as `Allow` lists them."""
    found = [method for method in _METHODS if _has_route({**request.scope, "method": method})]
    if "GET" in found:
        found.insert(1, "HEAD")
    return ", ".join(found)


def _has_route(scope: dict[str, Any]) -> bool:
    return any(route.matches(scope)[0] is Match.FULL for route in scope["app"].routes)


class HeadAsGet:
    """ASGI middleware that answers HEAD with the head of what GET answers, and passes on everything else.

    Args:
        app: what answers GET.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        # A server that finds GET in the scope it gave would send the body.
        asked = {**scope, "method": "GET"}

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body"})
                # A stream would go on for ever, into the void.
                answering.cancel()

        try:
            with anyio.CancelScope() as answering:
                await self._app(asked, receive, send_head)
        finally:
            if "route" in asked:
                scope["route"] = asked["route"]
