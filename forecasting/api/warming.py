"""The general model loaded and tried once before the first request, which then pays for neither."""

import logging

import numpy as np

from forecasting.training import forecaster_of
from infra.schema import METRIC_NAMES
from infra.steps import HOUR_US
from models import checkpoint, general_folder
from models.futures import roll_out

# Of a history that nothing happened in; long enough to go through the kernels.
_OBSERVED_STEPS, _STEPS_AHEAD = 48, 24
_log = logging.getLogger(__name__)


def warm_up() -> None:
    """Forecast with the general model, and forget what came out.

    Where it cannot be loaded or makes no forecast, the log says so, and no more: the service answers what it can
    without it.
    """
    try:
        found = checkpoint.load(general_folder())
        if found is None:
            return
        model = forecaster_of(found)
        state = model.update(model.start(HOUR_US, 0), np.zeros((_OBSERVED_STEPS, len(METRIC_NAMES))))
        next(roll_out(model, state, _STEPS_AHEAD, n_paths=0, chunk_steps=_STEPS_AHEAD, seed=0))
    except Exception as error:  # noqa: BLE001 - snapshots and graphs with a model of their own are answered all the same
        _log.warning("the general model cannot be used: %s", error)
