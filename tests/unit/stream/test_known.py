import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.store.known import KeyMap, KeySet

BATCHES = st.lists(st.lists(st.integers(-5, 2**62), unique=True, max_size=20), max_size=8)


@given(BATCHES)
def test_a_set_holds_what_was_added(batches: list[list[int]]) -> None:
    keys, model = KeySet(limit=10_000), set[int]()
    for batch in batches:
        asked = np.array(batch, dtype=np.int64)
        found = keys.contains(asked)
        assert found.tolist() == [key in model for key in batch]
        keys.add(asked[~found])
        model.update(batch)


@given(BATCHES)
def test_a_map_holds_what_was_added(batches: list[list[int]]) -> None:
    known, model = KeyMap(limit=10_000), dict[int, int]()
    for batch in batches:
        asked = np.array(batch, dtype=np.int64)
        values, found = known.get(asked)
        assert found.tolist() == [key in model for key in batch]
        assert values[found].tolist() == [model[key] for key in batch if key in model]
        new = asked[~found]
        known.add(new, new // 3)
        model.update({key: key // 3 for key in new.tolist()})


@pytest.mark.parametrize("limit", [0, 1, 5])
def test_beyond_the_limit_everything_older_is_forgotten(limit: int) -> None:
    keys = KeySet(limit)
    keys.add(np.arange(3))
    keys.add(np.arange(10, 14))
    assert not keys.contains(np.arange(3)).any()
    assert keys.contains(np.arange(10, 14)).all()
