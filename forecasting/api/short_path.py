"""The way of short forecasts past the routes: they are most of what is asked, and finding a route takes longer than a
kept answer.

It stands behind the gate, so that keys, rates, limits and meters hold as for every route, and calls what the route
calls.
"""

from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from forecasting.api import forecast
from forecasting.api.problems import Problem, failed

_BEFORE, _BEHIND = forecast.PATH.split("{graph}")


class ShortPath:
    """ASGI middleware that answers `GET …/forecast` and passes on everything else.

    Args:
        app: the application.
        state: where the service will be.
    """

    def __init__(self, app: ASGIApp, *, state: Any) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        path = scope.get("path", "")
        graph = path[len(_BEFORE) : -len(_BEHIND)]
        is_ours = scope["type"] == "http" and scope["method"] == "GET" and path == f"{_BEFORE}{graph}{_BEHIND}"
        if not is_ours or not graph or "/" in graph:
            await self._app(scope, receive, send)
            return
        scope["route"] = _ROUTE
        query = scope["query_string"].decode("latin-1")
        try:
            response = await forecast.answer_forecast(
                self._state.service, scope["graphtide.caller"], graph, query, Headers(scope=scope)
            )
        except Problem as problem:
            response = problem.response()
        except Exception:
            await failed().response()(scope, receive, send)
            raise
        await response(scope, receive, send)


(_ROUTE,) = (route for route in forecast.router.routes if getattr(route, "path", "") == forecast.PATH)
