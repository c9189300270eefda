"""BentoML: a service of one worker whose answer is bytes already; its batches cannot answer with such."""

from typing import Annotated

import bentoml
from bentoml.validators import ContentType

from forecasting.bench.api_peers.work import Work


@bentoml.service(workers=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})  # type: ignore[misc]
class Forecasts:
    """The forecasts of a graph."""

    def __init__(self) -> None:
        self.work = Work()

    @bentoml.api  # type: ignore[misc]
    def forecast(self, horizon: int) -> Annotated[bytes, ContentType("application/json")]:
        """Answer one request."""
        del horizon
        return self.work.bodies(1)[0]
