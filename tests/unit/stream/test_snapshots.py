"""The step metrics against NetworkX, field by field, and the invariants that do not depend on it."""

from collections import Counter

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.schema import METRICS, ORDER_CONSTRAINTS, Kind
from stream import snapshots
from stream.snapshots import STEP_METRICS, step_metrics

Edges = list[tuple[int, int]]


def gini(values: list[int]) -> float:
    """Return the Gini coefficient as half the mean absolute difference over the mean, from all pairs."""
    total = sum(values)
    if total == 0:
        return 0.0
    pairs = sum(abs(x - y) for x in values for y in values)
    return pairs / (2 * len(values) * total)


def reference(events: Edges) -> dict[str, float]:
    """Compute the metrics of one step with NetworkX, straight from the design's definitions."""
    if not events:
        return dict.fromkeys(STEP_METRICS, 0.0)
    directed = nx.DiGraph(events)
    unique_edges = directed.number_of_edges()
    simple = directed.copy()
    simple.remove_edges_from(list(nx.selfloop_edges(directed)))
    undirected = simple.to_undirected()
    n = directed.number_of_nodes()
    components = [len(part) for part in nx.weakly_connected_components(simple)]
    in_degrees = [degree for _, degree in simple.in_degree()]
    out_degrees = [degree for _, degree in simple.out_degree()]
    return {
        "events": len(events),
        "active_nodes": n,
        "unique_edges": unique_edges,
        "self_loops": sum(src == dst for src, dst in events),
        "reciprocity": nx.overall_reciprocity(simple) if simple.number_of_edges() else 0.0,
        "max_in_degree": max(in_degrees),
        "max_out_degree": max(out_degrees),
        "in_degree_gini": gini(in_degrees),
        "out_degree_gini": gini(out_degrees),
        "components": len(components),
        "giant_component_share": max(components) / n,
        "triangles": sum(nx.triangles(undirected).values()) // 3,
        "transitivity": nx.transitivity(undirected),
        "degeneracy": max(nx.core_number(undirected).values()),
    }


def compute(steps: list[Edges], *, scale: int = 1) -> dict[str, np.ndarray]:
    """Hand the distinct edges of each step to `step_metrics`, node ids multiplied by `scale`."""
    rows = [
        (step, src * scale, dst * scale, count)
        for step, events in enumerate(steps)
        for (src, dst), count in Counter(events).items()
    ]
    step, src, dst, count = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    return step_metrics(step, src, dst, count, len(steps))


def assert_equals_networkx(steps: list[Edges], *, scale: int = 1) -> None:
    got = compute(steps, scale=scale)
    assert tuple(got) == STEP_METRICS
    for index, events in enumerate(steps):
        want = reference(events)
        for name in STEP_METRICS:
            assert got[name].dtype == np.float64
            assert got[name][index] == pytest.approx(want[name], rel=1e-12, abs=1e-15), (name, index, events)


def edge_lists(n_nodes: int, max_size: int) -> st.SearchStrategy[Edges]:
    node = st.integers(0, n_nodes - 1)
    return st.lists(st.tuples(node, node), max_size=max_size)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.one_of(edge_lists(4, 14), edge_lists(12, 60)), min_size=1, max_size=5))
def test_random_multigraphs_equal_networkx(steps: list[Edges]) -> None:
    assert_equals_networkx(steps)


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_nodes=st.integers(20, 120),
    n_events=st.integers(50, 900),
    skew=st.floats(0.5, 4),
)
def test_larger_skewed_graphs_equal_networkx(seed: int, n_nodes: int, n_events: int, skew: float) -> None:
    rng = np.random.default_rng(seed)
    ends = (n_nodes * rng.random((n_events, 2)) ** skew).astype(int)
    assert_equals_networkx([[(int(src), int(dst)) for src, dst in ends], [], [(0, 1)]])


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([(0, 0)], id="only-a-loop"),
        pytest.param([(0, 0), (0, 0), (1, 2)], id="repeated-loop-beside-an-edge"),
        pytest.param([(0, 1), (1, 0)], id="mutual"),
        pytest.param([(0, 1)] * 5, id="repeats"),
        pytest.param([(0, 1), (1, 2), (2, 0)], id="directed-triangle"),
        pytest.param([(0, 1), (1, 0), (1, 2), (2, 1), (0, 2), (2, 2)], id="triangle-with-everything"),
        pytest.param([(i, j) for i in range(9) for j in range(9)], id="complete-with-loops"),
        pytest.param([(i, i + 1) for i in range(40)], id="path-longer-than-the-peeling"),
        pytest.param([(i, (i + 1) % 30) for i in range(30)], id="cycle"),
        pytest.param([(0, i) for i in range(1, 50)] + [(i, 0) for i in range(1, 20)], id="star"),
        pytest.param([(i, j) for i in range(5) for j in range(5, 12)], id="bipartite"),
    ],
)
def test_shapes_equal_networkx(events: Edges) -> None:
    assert_equals_networkx([[], events, []])


def test_ids_up_to_the_limit_are_told_apart() -> None:
    triangle = [(0, 1), (1, 2), (2, 0), (3, 3)]
    assert_equals_networkx([triangle] * 3, scale=2**38)


def test_steps_far_apart_with_large_ids() -> None:
    n_steps = 2**20
    step = np.array([0, 0, 0, n_steps - 1])
    src = np.array([2**40 - 1, 5, 7, 2**40 - 1])
    dst = np.array([5, 7, 2**40 - 1, 2**40 - 2])
    got = step_metrics(step, src, dst, np.ones(4, dtype=np.int64), n_steps)
    assert got["triangles"][[0, -1]].tolist() == [1, 0]
    assert got["active_nodes"][[0, -1]].tolist() == [3, 2]
    assert got["active_nodes"].sum() == 5


def test_no_rows_and_no_steps() -> None:
    none = np.array([], dtype=np.int64)
    for n_steps in (0, 3):
        got = step_metrics(none, none, none, none, n_steps)
        assert tuple(got) == STEP_METRICS
        assert all(values.tolist() == [0.0] * n_steps for values in got.values())


@pytest.mark.parametrize("step", [-1, 2])
def test_a_step_outside_the_range_is_refused(step: int) -> None:
    one = np.array([1])
    with pytest.raises(ValueError, match=r"do not fit 0 … 1"):
        step_metrics(np.array([step]), one, one, one, 2)


def random_rows(seed: int, n_steps: int, n_rows: int, n_nodes: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    step = rng.integers(0, n_steps, n_rows)
    ends = (n_nodes * rng.random((2, n_rows)) ** 2).astype(np.int64)
    return step, ends[0], ends[1], rng.integers(1, 4, n_rows)


def test_a_batch_equals_step_by_step_to_the_bit() -> None:
    n_steps = 60
    step, src, dst, count = random_rows(1, n_steps, 3000, 40)
    batch = step_metrics(step, src, dst, count, n_steps)
    for index in range(n_steps):
        here = step == index
        single = step_metrics(step[here] - index, src[here], dst[here], count[here], 1)
        for name in STEP_METRICS:
            assert single[name][0] == batch[name][index], (name, index)


@pytest.mark.parametrize("rows", [1, 7, 64, 3000])
def test_cutting_the_union_changes_nothing(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = (*random_rows(2, 50, 2000, 30), 55)
    whole = step_metrics(*arguments)
    monkeypatch.setattr(snapshots, "_MAX_UNION_ROWS", rows)
    monkeypatch.setattr(snapshots, "_MAX_TRIANGLE_PRODUCTS", rows)
    cut = step_metrics(*arguments)
    for name in STEP_METRICS:
        np.testing.assert_array_equal(cut[name], whole[name], err_msg=name)


@pytest.mark.parametrize("seed", range(20))
def test_a_loop_over_few_edges_counts_what_matrices_count(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    n_rows = 1 + seed * 37
    arguments = (*random_rows(seed, 1 + seed % 7, n_rows, 3 + seed * 5), 8)
    found = []
    for few in (-1, n_rows):
        monkeypatch.setattr(snapshots, "_FEW_EDGES", few)
        found.append(step_metrics(*arguments))
    for name in STEP_METRICS:
        np.testing.assert_array_equal(found[0][name], found[1][name], err_msg=name)


@pytest.mark.parametrize("rounds", [0, 1, 3, 1000])
@pytest.mark.parametrize("seed", range(5))
def test_cores_are_the_same_however_far_nodes_are_stripped_at_once(
    seed: int, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A dense middle, tails that are stripped from one end only, and a step of nothing but tails.
    draw = np.random.default_rng(seed)
    middle = [(int(a), int(b)) for a, b in draw.integers(0, 12, (60, 2))]
    tails = [(100 * tail + n, 100 * tail + n + 1) for tail in range(1, 4) for n in range(30)]
    steps: list[Edges] = [middle + tails + [(0, 100), (1, 200)], tails, [(5, 5)], [*middle, (0, 300), *tails]]
    monkeypatch.setattr(snapshots, "_FEW_EDGES", -1)
    monkeypatch.setattr(snapshots, "_PEEL_ROUNDS", 1)
    monkeypatch.setattr(snapshots, "_STRIP_ROUNDS", rounds)
    assert_equals_networkx(steps)


def test_row_order_and_repeated_rows_do_not_matter() -> None:
    step, src, dst, count = random_rows(3, 20, 1500, 25)
    shuffled = np.random.default_rng(4).permutation(len(step))
    split = np.repeat(np.arange(len(step)), count)
    whole = step_metrics(step, src, dst, count, 20)
    for rows, counts in ((shuffled, count[shuffled]), (split, np.ones(len(split), dtype=np.int64))):
        again = step_metrics(step[rows], src[rows], dst[rows], counts, 20)
        for name in STEP_METRICS:
            np.testing.assert_array_equal(again[name], whole[name], err_msg=name)


def test_hubs_of_100k_neighbours() -> None:
    n_leaves = 100_000
    leaves = np.arange(2, n_leaves + 2)
    # Two hubs that are linked and share every leaf: one triangle a leaf.
    src = np.concatenate([[0], np.zeros(n_leaves, dtype=np.int64), leaves])
    dst = np.concatenate([[1], leaves, np.ones(n_leaves, dtype=np.int64)])
    got = step_metrics(np.zeros_like(src), src, dst, np.ones_like(src), 1)
    assert got["triangles"][0] == n_leaves
    assert got["max_out_degree"][0] == got["max_in_degree"][0] == n_leaves + 1
    assert got["degeneracy"][0] == 2
    assert got["components"][0] == 1
    assert got["giant_component_share"][0] == 1
    triples = 2 * (n_leaves + 1) * n_leaves // 2 + n_leaves
    assert got["transitivity"][0] == 3 * n_leaves / triples


@settings(deadline=None, max_examples=40)
@given(st.lists(edge_lists(9, 40), min_size=1, max_size=4))
def test_the_invariants_of_the_schema_hold(steps: list[Edges]) -> None:
    got = compute(steps)
    for metric in METRICS:
        if metric.name in got:
            values = got[metric.name]
            assert np.all(values >= 0)
            if metric.kind is Kind.SHARE:
                assert np.all(values <= 1)
            else:
                assert np.all(values == np.round(values))
    for smaller, larger in ORDER_CONSTRAINTS:
        if smaller in got and larger in got:
            assert np.all(got[smaller] <= got[larger])


def test_every_metric_of_the_schema_is_a_step_metric_or_needs_the_past() -> None:
    past = {"new_nodes", "new_edges", "total_nodes", "total_edges"}
    assert [metric.name for metric in METRICS if metric.name not in past] == list(STEP_METRICS)
