"""LitServe: batches, and a response that is bytes already."""

import os
from typing import Any

import litserve
from starlette.responses import Response

from forecasting.bench.api_peers.work import BATCH_WAIT_S, MAX_BATCH, PORT, Work


class Forecasts(litserve.LitAPI):  # type: ignore[misc]
    """The forecasts of a graph."""

    def setup(self, _device: str) -> None:
        """Load the state of the graph."""
        self.work = Work()

    def decode_request(self, request: dict[str, Any]) -> int:
        """Return the horizon."""
        return int(request["horizon"])

    def batch(self, inputs: list[int]) -> list[int]:
        """Leave them as they are."""
        return inputs

    def predict(self, horizons: list[int]) -> list[bytes]:
        """Answer a batch."""
        return self.work.bodies(len(horizons))

    def unbatch(self, outputs: list[bytes]) -> list[bytes]:
        """Leave them as they are."""
        return outputs

    def encode_response(self, body: bytes) -> Response:
        """Return the bytes."""
        return Response(body, media_type="application/json")


if __name__ == "__main__":
    api = Forecasts(max_batch_size=MAX_BATCH, batch_timeout=BATCH_WAIT_S)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=int(os.environ[PORT]),
        num_api_servers=1,
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
