"""Training sees what a live forecast would: the tokens ahead of an origin are those of the statistics there."""

import numpy as np
import pytest

from infra.steps import DAY_US, HOUR_US, WEEK_US
from models.columns import IS_COUNT, MODELLED
from models.contract import History
from models.features import CausalStatistics
from models.samples import SampleSource
from tests.unit.models.test_features import START_US, with_raids

REACH = 100


def a_history(step_us: int, steps: int) -> History:
    """Noise with raids, which enter profiles and levels bounded; all metrics that are not modelled are zero."""
    values = np.zeros((steps, int(MODELLED.max()) + 1))
    values[:, MODELLED] = with_raids(steps)
    return History(step_us, START_US, values)


@pytest.mark.parametrize("step_us", [HOUR_US, 6 * HOUR_US, DAY_US, WEEK_US])
def test_tokens_ahead_are_those_of_a_live_forecast(step_us: int) -> None:
    history = a_history(step_us, 700)
    source = SampleSource(history, reach_steps=REACH)
    assert len(source) == 700
    # The first steps, both sides of where seasons begin, behind the raids, and the last step.
    for origin in (1, 2, 6, 7, 96, 97, 98, 167, 168, 169, 351, 352, 640, 643, 699):
        live, _ = CausalStatistics.start(step_us, START_US).observe(history.values[:origin, MODELLED])
        expected, found = live.ahead(1, 50, REACH), source.ahead(origin, 50)
        np.testing.assert_allclose(found.features, expected.features, rtol=1e-5, atol=1e-5, err_msg=str(origin))
        np.testing.assert_allclose(found.anchor, expected.anchor, rtol=1e-6, atol=1e-6, err_msg=str(origin))
        np.testing.assert_allclose(found.scale, expected.scale, rtol=1e-6, err_msg=str(origin))


def test_raids_are_in_the_test_at_all() -> None:
    history = a_history(HOUR_US, 700)
    entered = [
        block.values for _, block in CausalStatistics.start(HOUR_US, START_US).blocks(history.values[:, MODELLED])
    ]
    assert np.any(np.concatenate(entered)[:, IS_COUNT] < history.values[:, MODELLED][:, IS_COUNT])
