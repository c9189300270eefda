"""Metric schema 1: the names, kinds and invariants of everything that a snapshot holds and a forecast predicts.

Standard library only, so that any part can import it.
"""

from dataclasses import dataclass
from enum import StrEnum

SCHEMA_VERSION = 1
MAX_HORIZON_STEPS = 36_500


class Kind(StrEnum):
    """What values a metric can take."""

    COUNT = "count"  # an integer >= 0 of one step
    SHARE = "share"  # a float in [0, 1]; 0 when undefined
    TOTAL = "total"  # an integer that never falls: distinct since the beginning


@dataclass(frozen=True, slots=True)
class Metric:
    """One column of a snapshot."""

    name: str
    kind: Kind
    meaning: str


METRICS: tuple[Metric, ...] = (
    Metric("events", Kind.COUNT, "interactions in the step, self-loops and repeats included"),
    Metric("active_nodes", Kind.COUNT, "distinct nodes that sent or received"),
    Metric("new_nodes", Kind.COUNT, "active nodes never seen before in this graph"),
    Metric("unique_edges", Kind.COUNT, "distinct ordered pairs (src, dst), self-loops included"),
    Metric("new_edges", Kind.COUNT, "unique edges never seen before in this graph"),
    Metric("self_loops", Kind.COUNT, "events whose src equals dst"),
    Metric("reciprocity", Kind.SHARE, "share of non-loop unique edges whose reverse is there too"),
    Metric("max_in_degree", Kind.COUNT, "largest number of distinct in-neighbours, loops ignored"),
    Metric("max_out_degree", Kind.COUNT, "largest number of distinct out-neighbours, loops ignored"),
    Metric("in_degree_gini", Kind.SHARE, "Gini coefficient of in-degrees over active nodes"),
    Metric("out_degree_gini", Kind.SHARE, "Gini coefficient of out-degrees over active nodes"),
    Metric("components", Kind.COUNT, "weakly connected components over active nodes"),
    Metric("giant_component_share", Kind.SHARE, "share of active nodes in the largest weak component"),
    Metric("triangles", Kind.COUNT, "triangles of the undirected simple graph"),
    Metric("transitivity", Kind.SHARE, "3 x triangles / connected triples of the undirected simple graph"),
    Metric("degeneracy", Kind.COUNT, "largest k with a non-empty k-core of the undirected simple graph"),
    Metric("total_nodes", Kind.TOTAL, "distinct nodes since the beginning, this step included"),
    Metric("total_edges", Kind.TOTAL, "distinct ordered pairs since the beginning, this step included"),
)
METRIC_NAMES: tuple[str, ...] = tuple(metric.name for metric in METRICS)
METRIC_INDEX: dict[str, int] = {name: index for index, name in enumerate(METRIC_NAMES)}

# (smaller, larger): holds in every snapshot, at every quantile level and in every sample path.
ORDER_CONSTRAINTS: tuple[tuple[str, str], ...] = (
    ("new_nodes", "active_nodes"),
    ("active_nodes", "total_nodes"),
    ("new_edges", "unique_edges"),
    ("unique_edges", "events"),
)
# (total, new): total[t] = total[t - 1] + new[t].
RUNNING_TOTALS: tuple[tuple[str, str], ...] = (("total_nodes", "new_nodes"), ("total_edges", "new_edges"))

# Sample paths in one answer.
MAX_PATHS = 100

QUANTILE_LEVELS: tuple[float, ...] = (0.025, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.975)
