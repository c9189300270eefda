"""Histories that tests of models share."""

import numpy as np

from infra.schema import METRIC_INDEX, METRIC_NAMES
from infra.steps import DAY_US
from models.contract import History

SHARES = ("reciprocity", "transitivity", "in_degree_gini", "out_degree_gini", "giant_component_share")


def weekly_history(days: int, seed: int = 0) -> History:
    """Return days with a weekly rhythm and noise: every count follows the events, every share is noise."""
    generator = np.random.default_rng(seed)
    rhythm = np.array([30, 32, 31, 30, 25, 8, 6])[np.arange(days) % 7]
    events = generator.poisson(rhythm).astype(np.float64)
    values = np.repeat(events[:, None], len(METRIC_NAMES), axis=1)
    for name in SHARES:
        values[:, METRIC_INDEX[name]] = generator.random(days)
    for total, new in (("total_nodes", "new_nodes"), ("total_edges", "new_edges")):
        values[:, METRIC_INDEX[total]] = np.cumsum(values[:, METRIC_INDEX[new]])
    return History(step_us=DAY_US, start_us=4 * DAY_US, values=values)
