"""Cycles of dead objects are searched for rarely inside the block, and as before after it."""

import gc
import weakref

import pytest

from infra.garbage import rare_collections


@pytest.fixture
def collections():
    seen = []
    gc.callbacks.append(lambda phase, info: seen.append(info["generation"]) if phase == "start" else None)
    yield seen
    gc.callbacks.pop()


def test_many_living_objects_are_not_searched_through(collections):
    before = gc.get_threshold()
    with rare_collections(50_000):
        collections.clear()
        kept = [[] for _ in range(40_000)]
        assert collections == []
        assert gc.get_freeze_count() > 0
        kept += [[] for _ in range(20_000)]
        assert collections
    assert gc.get_threshold() == before


def test_an_error_puts_everything_back():
    before = gc.get_threshold()
    with pytest.raises(ValueError, match="inside"), rare_collections():
        raise ValueError("inside")
    assert (gc.get_threshold(), gc.get_freeze_count()) == (before, 0)


def test_cycles_made_inside_are_still_found():
    class Node:
        itself: "Node"

    freed = []
    with rare_collections(1_000):
        node = Node()
        node.itself = node
        weakref.finalize(node, freed.append, True)
        del node
        kept = [[] for _ in range(5_000)]
    assert freed == [True]
    assert len(kept) == 5_000
