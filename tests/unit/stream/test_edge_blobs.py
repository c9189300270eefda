import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.store.edge_blobs import EdgeBlobs
from stream.store.records import MAX_NODE_ID, PAIR_BITS

NODES = st.one_of(st.integers(0, 5), st.integers(0, MAX_NODE_ID), st.just(MAX_NODE_ID))
COUNTS = st.one_of(st.just(1), st.integers(1, 300), st.integers(1, 2**62))
STEPS = st.dictionaries(st.tuples(NODES, NODES), COUNTS, min_size=1, max_size=60)


def packed(steps: list[dict[tuple[int, int], int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ordered = [sorted((src << PAIR_BITS | dst, events) for (src, dst), events in step.items()) for step in steps]
    flat = np.array([row for step in ordered for row in step], dtype=np.int64).reshape(-1, 2)
    lengths = np.array([len(step) for step in ordered], dtype=np.int64)
    return flat[:, 0], flat[:, 1], np.cumsum(lengths) - lengths


@given(st.lists(STEPS, max_size=5), st.sampled_from([0, 3]))
def test_what_is_encoded_is_decoded(steps: list[dict[tuple[int, int], int]], level: int) -> None:
    pairs, events, starts = packed(steps)
    blobs = EdgeBlobs(level).encode(pairs, events, starts)
    assert len(blobs) == len(steps)
    again_pairs, again_events, lengths = EdgeBlobs().decode(blobs)
    assert np.array_equal(again_pairs, pairs)
    assert np.array_equal(again_events, events)
    assert lengths.tolist() == [len(step) for step in steps]


@given(STEPS, st.data())
def test_damage_is_told_or_harmless(step: dict[tuple[int, int], int], data: st.DataObject) -> None:
    blob = bytearray(EdgeBlobs().encode(*packed([step]))[0])
    at = data.draw(st.integers(0, len(blob) - 1))
    blob = blob[:at] if data.draw(st.booleans()) else blob[:at] + bytes([blob[at] ^ 0x41]) + blob[at + 1 :]
    if int.from_bytes(blob[3:7], "little") < 10_000:  # a huge count of nothing is only slow
        try:
            pairs, events, _ = EdgeBlobs().decode([bytes(blob)])
        except ValueError as error:
            assert "damaged" in str(error)
        else:
            assert len(pairs) == len(events)


def test_a_large_step_takes_few_bytes_an_edge() -> None:
    draw = np.random.default_rng(1)
    pairs = np.unique(draw.integers(0, 50_000, 100_000) << PAIR_BITS | draw.integers(0, 50_000, 100_000))
    (blob,) = EdgeBlobs().encode(pairs, np.ones(len(pairs), dtype=np.int64), np.zeros(1, dtype=np.int64))
    assert len(blob) < 2.6 * len(pairs)  # of 16


@pytest.mark.parametrize("pairs", [[5, 4], [1 << PAIR_BITS, 7]])
def test_edges_out_of_order_are_refused(pairs: list[int]) -> None:
    with pytest.raises(ValueError, match="not in order"):
        EdgeBlobs().encode(np.array(pairs), np.ones(2, dtype=np.int64), np.zeros(1, dtype=np.int64))
