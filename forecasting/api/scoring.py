"""How the forecast of the next step came out, once the step has closed: what the service measures of its own quality.

The state that stood before a step closed is rolled out by one step and compared with what was observed then. The
numbers are those of every graph that is asked for, of the model that answers for it, and of the steps as they first
closed: what a revision changes later is not counted again.
"""

import logging

import numpy as np

from forecasting.api.telemetry import Telemetry
from forecasting.live import LiveState
from infra.errors import ModelError
from infra.schema import METRIC_INDEX, QUANTILE_LEVELS
from models.contract import FloatArray

_LOW, _MEDIAN, _HIGH = (QUANTILE_LEVELS.index(level) for level in (0.1, 0.5, 0.9))
_EVENTS = METRIC_INDEX["events"]
_log = logging.getLogger(__name__)


class Scoring:
    """Counts how forecasts one step ahead came out.

    Args:
        telemetry: where they are counted.
        seed: of the sample paths, as for the answers.
    """

    def __init__(self, telemetry: Telemetry, *, seed: int) -> None:
        self._telemetry = telemetry
        self._seed = seed

    def score(self, before: LiveState, observed: FloatArray) -> None:
        """Compare the forecast from a state with the step that came.

        Args:
            before: the state when the step had not closed.
            observed: [M] float64, the metrics of the step at `before.next_step_us`.
        """
        try:
            (chunk,) = before.model.rollout(before.state, 1, chunk_steps=1, seed=self._seed)
        except ModelError as error:
            _log.info("the forecast of %s was not scored: %s", before.graph, error.message)
            return
        quantiles = chunk.quantiles[0]
        inside = (quantiles[:, _LOW] <= observed) & (observed <= quantiles[:, _HIGH])
        meters = self._telemetry
        meters.scored.labels(before.graph).inc(len(observed))
        meters.inside.labels(before.graph).inc(int(np.count_nonzero(inside)))
        meters.event_error.labels(before.graph).inc(abs(float(quantiles[_EVENTS, _MEDIAN] - observed[_EVENTS])))
        meters.events_scored.labels(before.graph).inc(float(observed[_EVENTS]))
