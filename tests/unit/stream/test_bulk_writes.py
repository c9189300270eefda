"""What the store does in bulk is what it would do one by one: ids of names, first steps, the order of edges."""

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.store import open_writer, records
from stream.store.records import EdgeRows
from stream.store.sql import dictionary
from stream.windows import NEVER_US

NAMES = [f"n{number}" for number in range(12)]
# One or two graphs, and the codes of names in them; -1 forgets what codes mean.
BATCHES = st.lists(
    st.one_of(
        st.just((-1, [])),
        st.tuples(st.integers(0, 2), st.lists(st.integers(0, 11), min_size=1, max_size=8)),
        st.tuples(st.just(3), st.lists(st.integers(0, 11), min_size=2, max_size=8)),
    ),
    max_size=8,
)


@given(batches=BATCHES, limit=st.sampled_from([3, 1000]))
def test_node_ids_follow_the_log_whatever_is_remembered(tmp_path_factory, batches, limit):
    path = tmp_path_factory.mktemp("store") / "store.db"
    expected: dict[tuple[int, int], int] = {}
    with pytest.MonkeyPatch.context() as patch, open_writer(f"sqlite:///{path}") as writer:
        patch.setattr(dictionary, "KNOWN_NAMES", limit)
        for kind, codes in batches:
            if kind < 0:
                writer.forget_codes()
                continue
            code = np.array(codes)
            graph_id = np.arange(len(codes)) % 2 + 1 if kind == 3 else np.full(len(codes), kind + 1)
            with writer.transaction():
                found = writer.node_ids(graph_id, code, NAMES).tolist()
            for graph, each in zip(graph_id.tolist(), codes, strict=True):
                expected.setdefault((graph, each), len(expected) + 1)
            assert found == [expected[pair] for pair in zip(graph_id.tolist(), codes, strict=True)]


def test_first_steps_of_many_edges_are_those_that_were_set(tmp_path):
    chance = np.random.default_rng(3)
    pairs = chance.permutation(50_000)[:20_000] + (1 << 33)
    steps_us = chance.integers(0, 4, len(pairs)) * 60_000_000
    none = np.zeros(0, dtype=np.int64)
    with open_writer(f"sqlite:///{tmp_path}/store.db") as writer:
        with writer.transaction():
            writer.set_first_steps(none, none, pairs[:15_000], steps_us[:15_000])
        with writer.transaction():
            # Some of them again, with other steps, as a revision does.
            writer.set_first_steps(none, none, pairs[10_000:], steps_us[10_000:] + 1)
        found = writer.first_steps(nodes=none, pairs=np.append(pairs, 7))[1]
        assert not writer.new_edges(np.sort(pairs)).any()
    steps_us[10_000:] += 1
    np.testing.assert_array_equal(found, np.append(steps_us, NEVER_US))


@given(
    st.lists(st.tuples(st.integers(1, 2), st.integers(0, 40), st.integers(0, 5), st.integers(1, 3)), max_size=60),
    st.booleans(),
    st.sampled_from([0, 1000]),
)
def test_merged_edges_are_in_order_and_added_up(rows, one_graph, many_rows):
    counts: dict[tuple[int, int, int], int] = {}
    rows = [(1 if one_graph else graph, step, pair, events) for graph, step, pair, events in rows]
    for graph, step, pair, events in rows:
        counts[graph, step, pair] = counts.get((graph, step, pair), 0) + events
    columns = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    with patch.object(records, "_MANY_ROWS", many_rows):
        merged = EdgeRows.merge([EdgeRows(*columns[:, :10]), EdgeRows(*columns[:, 10:])])
    found = zip(merged.graph_id, merged.step_start_us, merged.pair, merged.events, strict=True)
    assert [tuple(map(int, row)) for row in found] == [(*key, counts[key]) for key in sorted(counts)]
