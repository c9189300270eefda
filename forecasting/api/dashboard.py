"""`/`, `/graphs/{graph}` and `/assets/…`: the dashboard. Its data come from the other resources."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from forecasting.api.parameters import query
from forecasting.api.problems import Problem
from forecasting.dashboard.assets import Assets
from forecasting.dashboard.pages import Pages
from infra.settings import ApiSettings

# A file never changes under its name: the fingerprint in it does.
FOREVER = "public, max-age=31536000, immutable"


def dashboard_router(settings: ApiSettings, routes: list[str]) -> APIRouter:
    """Return the routes of the dashboard.

    Args:
        settings: of the service.
        routes: paths of the service's other routes; pages show what these offer.
    """
    router = APIRouter(include_in_schema=False)
    assets = Assets()
    pages = Pages(assets, routes=routes, short_max_steps=settings.short_max_steps)

    @router.get("/")
    async def overview() -> Response:
        page, headers = pages.render("overview.html")
        return Response(page, headers=headers, media_type="text/html")

    @router.get("/graphs/{graph}")
    async def one_graph(graph: str) -> Response:
        page, headers = pages.render("graph.html", graph=graph)
        return Response(page, headers=headers, media_type="text/html")

    @router.get("/assets/{fingerprint}/{name}")
    async def asset(fingerprint: str, name: str, request: Request) -> Response:
        query(request, ())
        found = assets.get(name) if fingerprint == assets.fingerprint else None
        if found is None:
            raise Problem(404, "not-found", f"there is no file {name[:100]!r} in this version of the dashboard")
        headers = {"Cache-Control": FOREVER, "Vary": "Accept-Encoding"}
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(
                found.compressed, headers={**headers, "Content-Encoding": "gzip"}, media_type=found.media_type
            )
        return Response(found.body, headers=headers, media_type=found.media_type)

    return router
