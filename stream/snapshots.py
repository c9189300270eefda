"""The metrics of a snapshot that depend on its step alone (schema 1), for many steps at once.

Many small steps cost as little as a few large ones because all of them are treated as one graph: the disjoint union
whose nodes are the pairs (step, node). Every formula works on integers and divides once at the end, so that a step has
the same metrics, bit for bit, whatever other steps it is computed with.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import rustworkx as rx
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from stream.events import FloatArray, IntArray

STEP_METRICS: tuple[str, ...] = (
    "events",
    "active_nodes",
    "unique_edges",
    "self_loops",
    "reciprocity",
    "max_in_degree",
    "max_out_degree",
    "in_degree_gini",
    "out_degree_gini",
    "components",
    "giant_component_share",
    "triangles",
    "transitivity",
    "degeneracy",
)

# Bounds of working memory: rows of one union (a larger single step is still computed whole), and products of one
# block of the triangle count.
_MAX_UNION_ROWS = 1 << 18
_MAX_TRIANGLE_PRODUCTS = 1 << 22
_PEEL_ROUNDS, _STRIP_ROUNDS = 8, 60
_MAX_TABLE_PER_ROW = 32
# Up to so many edges a loop takes less time than making matrices of them.
_FEW_EDGES = 500


def step_metrics(step: IntArray, src: IntArray, dst: IntArray, count: IntArray, n_steps: int) -> dict[str, FloatArray]:
    """Return the metrics `STEP_METRICS` of steps 0 … n_steps − 1, each an array of shape [n_steps].

    Row i says that edge (src[i], dst[i]) occurs count[i] times in step number step[i]. Rows may come in any order;
    rows that name the same edge of the same step add up. A step without rows is all zeros.

    Args:
        step: [E], in 0 … n_steps − 1.
        src: [E] node ids, 0 … 2**40 − 1.
        dst: [E] node ids, 0 … 2**40 − 1.
        count: [E] events, positive.
        n_steps: how many steps to report.

    Raises:
        ValueError: a step lies outside 0 … n_steps − 1.
    """
    out = {name: np.zeros(n_steps, dtype=np.float64) for name in STEP_METRICS}
    if len(step) == 0:
        return out
    if step.min() < 0 or step.max() >= n_steps:
        raise ValueError(f"steps {step.min()} … {step.max()} do not fit 0 … {n_steps - 1}")
    if np.any(step[1:] < step[:-1]):
        order = np.argsort(step, kind="stable")
        step, src, dst, count = step[order], src[order], dst[order], count[order]
    # From here on only steps that have rows are numbered, so that empty ones cost nothing.
    is_first = np.ones(len(step), dtype=bool)
    is_first[1:] = step[1:] != step[:-1]
    present, number = step[is_first], np.cumsum(is_first) - 1
    for begin, end in _whole_step_ranges(number):
        first, last = int(number[begin]), int(number[end - 1])
        union = _Union.of(number[begin:end] - first, src[begin:end], dst[begin:end], count[begin:end])
        for metrics in (_size_metrics(union), _degree_metrics(union), _component_metrics(union), _cohesion(union)):
            for name, values in metrics.items():
                out[name][present[first : last + 1]] = values
    return out


def _whole_step_ranges(step: IntArray) -> Iterator[tuple[int, int]]:
    """Cut rows in step order into ranges of at most `_MAX_UNION_ROWS`, never inside a step."""
    begin = 0
    while begin < len(step):
        end = begin + _MAX_UNION_ROWS
        if end >= len(step):
            end = len(step)
        else:
            cut = int(np.searchsorted(step, step[end], side="left"))
            end = cut if cut > begin else int(np.searchsorted(step, step[end], side="right"))
        yield begin, end
        begin = end


@dataclass(frozen=True, slots=True)
class _Union:
    """Steps as one graph. Nodes are the pairs (step, node) in sorted order, so that each step's nodes are neighbours.

    Attributes:
        n_steps: how many steps; each has a node.
        events, self_loops, unique_edges: [n_steps].
        node_step: [N] the step of each node.
        active: [n_steps] how many nodes each step has.
        src, dst: [E] distinct directed edges without loops.
        low, high: [P] distinct undirected edges without loops, low < high.
        mutual: [P] whether both directions of the undirected edge are there.
    """

    n_steps: int
    events: FloatArray
    self_loops: FloatArray
    unique_edges: IntArray
    node_step: IntArray
    active: IntArray
    src: IntArray
    dst: IntArray
    low: IntArray
    high: IntArray
    mutual: IntArray

    @classmethod
    def of(cls, step: IntArray, src: IntArray, dst: IntArray, count: IntArray) -> "_Union":
        """Build the union from rows in step order, steps numbered without a gap."""
        n_steps = int(step[-1]) + 1
        node_step, a, b = _numbered(step, src, dst)

        # Undirected pair and direction in one sortable number: both directions of a pair lie side by side.
        bits = len(node_step).bit_length()
        directed = _distinct((np.minimum(a, b) << (bits + 1)) | (np.maximum(a, b) << 1) | (a > b))
        pair = directed >> 1
        low = pair >> bits
        high = pair & ((1 << bits) - 1)
        unique_edges = np.bincount(node_step[low], minlength=n_steps)
        proper = low != high
        low, high, pair, backward = low[proper], high[proper], pair[proper], (directed[proper] & 1).astype(bool)
        is_first = np.ones(len(pair), dtype=bool)
        is_first[1:] = pair[1:] != pair[:-1]
        mutual = np.zeros(len(pair), dtype=np.int64)
        mutual[:-1] = ~is_first[1:]
        return cls(
            n_steps=n_steps,
            events=_weighted_count(step, count, n_steps),
            self_loops=_weighted_count(step, np.where(a == b, count, 0), n_steps),
            unique_edges=unique_edges,
            node_step=node_step,
            active=np.bincount(node_step, minlength=n_steps),
            src=np.where(backward, high, low),
            dst=np.where(backward, low, high),
            low=low[is_first],
            high=high[is_first],
            mutual=mutual[is_first],
        )

    def sum_by_step(self, node_values: IntArray) -> IntArray:
        """Sum values of nodes [N] over each step [n_steps], in exact integers."""
        return np.add.reduceat(node_values, self.first_node())

    def max_by_step(self, node_values: IntArray) -> IntArray:
        """Return the largest value of nodes [N] in each step [n_steps]."""
        return np.maximum.reduceat(node_values, self.first_node())

    def first_node(self) -> IntArray:
        """Return [n_steps] the number of the first node of each step."""
        return np.cumsum(self.active) - self.active


def _numbered(step: IntArray, src: IntArray, dst: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Return the step [N] of each distinct pair (step, node), in order, and the numbers of the pairs of src and dst."""
    n_ids = int(max(src.max(), dst.max())) + 1
    size = (int(step[-1]) + 1) * n_ids
    src, dst = step * n_ids + src, step * n_ids + dst
    if size > _MAX_TABLE_PER_ROW * len(step):
        keys, node = np.unique(np.concatenate([src, dst]), return_inverse=True)
        return keys // n_ids, node[: len(step)], node[len(step) :]
    # A table of all pairs that could be is cheaper than sorting those that are.
    present = np.zeros(size, dtype=np.bool_)
    present[src] = present[dst] = True
    keys = np.flatnonzero(present)
    number = np.empty(size, dtype=np.int64)
    number[keys] = np.arange(len(keys))
    return keys // n_ids, number[src], number[dst]


def _distinct(values: IntArray) -> IntArray:
    """Return the distinct values in order; with numbers as regular as ours, sorting beats the hashing of np.unique."""
    ordered = np.sort(values)
    is_first = np.ones(len(ordered), dtype=np.bool_)
    is_first[1:] = ordered[1:] != ordered[:-1]
    return ordered[is_first]


def _weighted_count(step: IntArray, count: IntArray, n_steps: int) -> FloatArray:
    """Sum counts over steps; exact below 2**53."""
    return np.bincount(step, weights=count, minlength=n_steps).astype(np.float64, copy=False)


def _share(part: IntArray, whole: IntArray) -> FloatArray:
    """Divide, with 0 where the whole is 0."""
    return np.divide(part, whole, out=np.zeros(len(part), dtype=np.float64), where=whole != 0)


def _size_metrics(union: _Union) -> dict[str, FloatArray | IntArray]:
    edges = np.bincount(union.node_step[union.src], minlength=union.n_steps)
    mutual_pairs = np.bincount(union.node_step[union.low[union.mutual == 1]], minlength=union.n_steps)
    return {
        "events": union.events,
        "active_nodes": union.active,
        "unique_edges": union.unique_edges,
        "self_loops": union.self_loops,
        "reciprocity": _share(2 * mutual_pairs, edges),
    }


def _degree_metrics(union: _Union) -> dict[str, FloatArray | IntArray]:
    metrics: dict[str, FloatArray | IntArray] = {}
    for direction, ends in (("in", union.dst), ("out", union.src)):
        degree = np.bincount(ends, minlength=len(union.node_step))
        metrics[f"max_{direction}_degree"] = union.max_by_step(degree)
        metrics[f"{direction}_degree_gini"] = _gini(union, degree)
    return metrics


def _gini(union: _Union, degree: IntArray) -> FloatArray:
    """Return Σ(2i − n − 1)xᵢ / (nΣx) over the sorted degrees x₁ ≤ … ≤ xₙ of each step's active nodes."""
    stride = int(degree.max()) + 1
    ascending = np.sort(union.node_step * stride + degree) - union.node_step * stride
    rank = np.arange(1, len(degree) + 1) - union.first_node()[union.node_step]
    spread = union.sum_by_step((2 * rank - union.active[union.node_step] - 1) * ascending)
    return _share(spread, union.active * union.sum_by_step(ascending))


def _component_metrics(union: _Union) -> dict[str, FloatArray | IntArray]:
    n_components, label = _components(union)
    component_step = np.empty(n_components, dtype=np.int64)
    component_step[label] = union.node_step
    largest = np.zeros(union.n_steps, dtype=np.int64)
    np.maximum.at(largest, component_step, np.bincount(label, minlength=n_components))
    return {
        "components": np.bincount(component_step, minlength=union.n_steps),
        "giant_component_share": _share(largest, union.active),
    }


def _components(union: _Union) -> tuple[int, IntArray]:
    """Return how many connected components there are, and the number of that of each node [N]."""
    n_nodes = len(union.node_step)
    if len(union.low) > _FEW_EDGES:
        links = coo_array((np.ones(len(union.low), dtype=np.int8), (union.low, union.high)), shape=(n_nodes, n_nodes))
        n_components, label = connected_components(links, directed=False)
        return int(n_components), label
    # Each node leads to a smaller one of its component, or is the smallest.
    up = list(range(n_nodes))
    for low, high in zip(union.low.tolist(), union.high.tolist(), strict=True):
        one, other = low, high
        while up[one] != one:
            up[one] = one = up[up[one]]
        while up[other] != other:
            up[other] = other = up[up[other]]
        up[max(one, other)] = min(one, other)
    for node, smaller in enumerate(up):
        up[node] = up[smaller]
    root = np.array(up, dtype=np.int64)
    number = np.cumsum(root == np.arange(n_nodes)) - 1
    return int(number[-1]) + 1, number[root]


def _cohesion(union: _Union) -> dict[str, FloatArray | IntArray]:
    n_nodes = len(union.node_step)
    degree = np.bincount(union.low, minlength=n_nodes) + np.bincount(union.high, minlength=n_nodes)
    inner = _Inner.of(union, degree)
    triangles = np.bincount(inner.step, weights=_triangles(inner), minlength=union.n_steps).astype(np.int64)
    triples = union.sum_by_step(degree * (degree - 1) // 2)
    degeneracy = _degeneracy(inner, union.n_steps)
    # What was stripped before is part of a first core.
    degeneracy[union.node_step[union.low]] = np.maximum(degeneracy[union.node_step[union.low]], 1)
    return {"triangles": triangles, "transitivity": _share(3 * triangles, triples), "degeneracy": degeneracy}


@dataclass(frozen=True, slots=True)
class _Inner:
    """What is left of a union after its leaves were stripped for a few rounds: most of a sparse step is tree.

    Every triangle and every core above the first is in it.

    Attributes:
        step: [N] the step of each node that has an edge left.
        low, high: [P] undirected edges between these nodes.
        degree: [N].
    """

    step: IntArray
    low: IntArray
    high: IntArray
    degree: IntArray

    @classmethod
    def of(cls, union: _Union, degree: IntArray) -> "_Inner":
        low, high = union.low, union.high
        for _ in range(_PEEL_ROUNDS):
            kept = (degree[low] > 1) & (degree[high] > 1)
            if kept.all():
                break
            low, high = low[kept], high[kept]
            degree = np.bincount(low, minlength=len(degree)) + np.bincount(high, minlength=len(degree))
        nodes = np.flatnonzero(degree)
        number = np.zeros(len(degree), dtype=np.int64)
        number[nodes] = np.arange(len(nodes))
        return cls(union.node_step[nodes], number[low], number[high], degree[nodes])


def _triangles(inner: _Inner) -> IntArray:
    """Count triangles, each at one of its nodes: paths u → v → w that an edge u → w closes.

    Edges are directed from lower to higher degree, which bounds every out-degree by √(2E) (Chiba & Nishizeki 1985),
    hubs included, and finds each triangle exactly once.
    """
    n_nodes = len(inner.degree)
    closed = np.zeros(n_nodes, dtype=np.int64)
    if not n_nodes:
        return closed
    upward = inner.degree[inner.low] <= inner.degree[inner.high]
    tail = np.where(upward, inner.low, inner.high)
    head = np.where(upward, inner.high, inner.low)
    if len(tail) <= _FEW_EDGES:
        heads: dict[int, set[int]] = {}
        for one, other in zip(tail.tolist(), head.tolist(), strict=True):
            heads.setdefault(one, set()).add(other)
        for one, others in heads.items():
            closed[one] = sum(len(others & heads[other]) for other in others if other in heads)
        return closed
    links = csr_array((np.ones(len(tail), dtype=np.int64), (tail, head)), shape=(n_nodes, n_nodes))
    out_degree = np.bincount(tail, minlength=n_nodes)
    products = np.cumsum(np.bincount(tail, weights=out_degree[head], minlength=n_nodes))
    begin, done = 0, 0.0
    while begin < n_nodes and products[-1] > done:
        end = max(begin + 1, int(np.searchsorted(products, done + _MAX_TRIANGLE_PRODUCTS, side="right")))
        rows = links[begin:end]
        closed[begin:end] = np.asarray((rows @ links).multiply(rows).sum(axis=1)).ravel()
        begin, done = end, products[end - 1]
    return closed


def _degeneracy(inner: _Inner, n_steps: int) -> IntArray:
    """Return the largest core number of each step [n_steps], 0 where no edge is left.

    Nodes whose degree is too low for the next core are stripped all at once, for as long as that is likely to be faster
    than one by one.
    """
    largest = np.zeros(n_steps, dtype=np.int64)
    low, high, degree, core = inner.low, inner.high, inner.degree, 0
    for _ in range(_STRIP_ROUNDS if len(low) > _FEW_EDGES else 0):
        strong = degree > core
        kept = strong[low] & strong[high]
        if kept.all():
            if not len(low):
                break
            core = int(degree[strong].min())
            largest[inner.step[strong]] = core
        else:
            low, high = low[kept], high[kept]
            degree = np.bincount(low, minlength=len(degree)) + np.bincount(high, minlength=len(degree))
    np.maximum.at(largest, inner.step, _core_numbers(low, high, len(degree)))
    return largest


def _core_numbers(low: IntArray, high: IntArray, n_nodes: int) -> IntArray:
    """Return the core number of each node (Batagelj & Zaveršnik 2003)."""
    core = np.zeros(n_nodes, dtype=np.int64)
    if len(low):
        graph = rx.PyGraph()
        graph.extend_from_edge_list(list(zip(low.tolist(), high.tolist(), strict=True)))
        cores = cast("dict[int, int]", rx.graph_core_number(graph))  # its stub says int
        core[np.fromiter(cores.keys(), dtype=np.int64, count=len(cores))] = list(cores.values())
    return core
