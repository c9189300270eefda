"""One replica of the forecast service on Ray Serve: the same application as that of `graphtide serve`."""

import asyncio
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

from starlette.types import ASGIApp

from forecasting.api.app import application, gated
from forecasting.api.server import begin_process
from forecasting.api.service import Service
from forecasting.scaleout.ground import Ground
from forecasting.scaleout.scaling import STREAMS
from infra.errors import UsageError

HEALTH_PERIOD_S = 1.0
# Ray asks a replica for its health until it stops it, and says nothing then: after so long without a question, streams
# end, so that their readers go elsewhere. Where it was the controller that was away, new streams begin as it is back.
UNASKED_S = 3.0


class Replica:
    """What Ray Serve makes on a node; it runs the application's lifespan, and calls the methods below.

    Args:
        ground: what all replicas stand on.
        log_level: of the `logging` module.

    Raises:
        GraphtideError: this node cannot serve as the others do.
    """

    def __init__(self, ground: Ground, log_level: int) -> None:
        ground.check()
        _listen_here_alone()
        begin_process(log_level)
        self._app = application(ground.settings)
        self._settings = ground.settings
        self._asked_s: float | None = None
        self._watching: asyncio.Task[None] | None = None

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Return what answers requests."""
        return gated(self._app, self._settings)

    async def check_health(self) -> None:
        """Raise where a new process would do better; a store that is away is none of that."""
        self._asked_s = time.monotonic()
        self._service.subscriptions.draining = False
        if self._watching is None:
            self._watching = asyncio.create_task(self._end_streams_with_the_questions())
        if not self._service.following.is_alive():
            raise RuntimeError("the store is not followed any more")

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Return how many streams are open, which Ray counts as requests."""
        return {STREAMS: float(self._service.subscriptions.count)}

    @property
    def _service(self) -> Service:
        service: Service = self._app.state.service
        return service

    async def _end_streams_with_the_questions(self) -> None:
        while True:
            await asyncio.sleep(HEALTH_PERIOD_S)
            if self._asked_s is not None and time.monotonic() - self._asked_s > UNASKED_S:
                self._service.subscriptions.drain()


def _listen_here_alone() -> None:
    """Have Ray Serve open on the loopback address what it would open on all.

    Each replica listens for gRPC calls of other deployments, on all addresses of its node and without a setting for it,
    although there are none: requests come as calls of the actor. To be called before the replica counts as made.

    Raises:
        UsageError: this version of Ray does it in another way.
    """
    from ray import __version__  # noqa: PLC0415 - an extra

    replica: Any = import_module("ray.serve._private.replica")
    listen: Callable[[Any, str], int] | None = getattr(replica, "add_port_to_grpc_server", None)
    if listen is None:
        raise UsageError(
            f"replicas of Ray {__version__} may listen on all addresses of their node",
            fix="install the version of Ray that requirements.lock names",
        )
    replica.add_port_to_grpc_server = lambda server, address: listen(server, address.replace("[::]", "127.0.0.1"))
