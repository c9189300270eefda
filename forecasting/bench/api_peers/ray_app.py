"""Ray Serve: one replica with batches, and a response that is bytes already."""

import os
import signal

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from forecasting.bench.api_peers.work import BATCH_WAIT_S, MAX_BATCH, PORT, Work


@serve.deployment(num_replicas=1, max_ongoing_requests=4 * MAX_BATCH, ray_actor_options={"num_cpus": 1})
class Forecasts:
    """The forecasts of a graph."""

    def __init__(self) -> None:
        self.work = Work()

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=BATCH_WAIT_S)
    async def bodies(self, horizons: list[int]) -> list[bytes]:
        """Answer a batch."""
        return self.work.bodies(len(horizons))

    async def __call__(self, request: Request) -> Response:
        """Answer one request."""
        asked = await request.json()
        return Response(await self.bodies(int(asked["horizon"])), media_type="application/json")


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20)
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ[PORT])})
    serve.run(Forecasts.bind(), route_prefix="/")  # type: ignore[attr-defined]
    signal.pause()
