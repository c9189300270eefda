"""The application: its resources, its gate, and what starts and stops with it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from starlette.types import ASGIApp

from forecasting.api import (
    alert_rules,
    alerts,
    events,
    forecast,
    forecasts,
    graphs,
    health,
    history,
    live,
    openapi,
    problems,
    quality,
    report_schedules,
    report_targets,
    reports,
    snapshots,
)
from forecasting.api.dashboard import dashboard_router
from forecasting.api.gate import Gate
from forecasting.api.methods import HeadAsGet
from forecasting.api.service import Service
from forecasting.api.short_path import ShortPath
from infra.settings import Settings


def application(settings: Settings) -> FastAPI:
    """Return the routes of the forecast service, which know themselves (`openapi`), without the gate before them."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with Service.running(settings) as service:
            app.state.service = service
            yield

    # No pages of documentation: those of FastAPI load scripts from elsewhere.
    app = FastAPI(
        title="Graphtide",
        version=version("graphtide"),
        summary="Forecasts of how a social network evolves",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    problems.install(app)
    resources = (
        graphs,
        snapshots,
        history,
        quality,
        events,
        live,
        forecast,
        forecasts,
        reports,
        report_schedules,
        alert_rules,
        alerts,
        report_targets,
        health,
    )
    for resource in resources:
        app.include_router(resource.router)
    openapi.describe(app, settings)
    app.include_router(dashboard_router(settings.api, list(app.openapi()["paths"])))
    return app


def build(settings: Settings) -> ASGIApp:
    """Return the ASGI application of the forecast service."""
    return gated(application(settings), settings)


def gated(app: FastAPI, settings: Settings) -> ASGIApp:
    """Return an application with all that stands before its routes."""
    return Gate(
        HeadAsGet(ShortPath(app, state=app.state)),
        state=app.state,
        max_body_bytes=settings.api.max_body_bytes,
        max_events_bytes=settings.spool.max_body_bytes,
    )
