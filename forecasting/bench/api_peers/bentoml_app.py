"""BentoML: a service of one worker whose answer is bytes already; its batches cannot answer with such."""

from typing import Annotated

import bentoml
from bentoml.validators import ContentType

from forecasting.bench.api_peers.work import Work


@bentoml.service(workers=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Forecasts:
    """The forecasts of a graph."""

    def __init__(self) -> None:
        self.work = Work()

    @bentoml.api  # type: ignore[untyped-decorator]
    def forecast(self, horizon: int) -> Annotated[bytes, ContentType("application/json")]:
        """Answer one request."""
        del horizon
        return self.work.bodies(1)[0]
