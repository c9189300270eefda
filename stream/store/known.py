"""Bounded caches of integer keys, as sorted arrays: 8 to 16 bytes a key, looked up a whole batch at a time.

`complete` says whether a cache holds every key that the store has; None where its user has not found out yet.
"""

import numpy as np
import numpy.typing as npt

from stream.events import IntArray

BoolArray = npt.NDArray[np.bool_]


class KeySet:
    """A set of int64 keys that forgets everything when it grows beyond `limit`.

    Forgetting is safe where a miss is looked up in the store.
    """

    __slots__ = ("_keys", "_limit", "complete")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.complete: bool | None = None
        self._keys: IntArray = np.zeros(0, dtype=np.int64)

    def contains(self, keys: IntArray) -> BoolArray:
        """Return which of `keys` [n] are held."""
        return _found(self._keys, keys)[1]

    def add(self, keys: IntArray) -> None:
        """Hold `keys` [n] too; they are distinct and not held yet."""
        if len(self._keys) + len(keys) > self._limit:
            self.clear()
        if len(keys):
            # Stable sorting merges sorted runs in about linear time.
            self._keys = np.sort(np.concatenate((self._keys, keys)), kind="stable")

    def clear(self) -> None:
        """Forget all keys."""
        self.complete = None
        self._keys = np.zeros(0, dtype=np.int64)


class KeyMap:
    """A map from int64 keys to int64 values that forgets everything when it grows beyond `limit`."""

    __slots__ = ("_keys", "_limit", "_values", "complete")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.complete: bool | None = None
        self._keys: IntArray = np.zeros(0, dtype=np.int64)
        self._values: IntArray = np.zeros(0, dtype=np.int64)

    def get(self, keys: IntArray) -> tuple[IntArray, BoolArray]:
        """Return the values of `keys` [n], and which of them are held (the others' values mean nothing)."""
        place, found = _found(self._keys, keys)
        if not len(self._values):
            return np.zeros(len(keys), dtype=np.int64), found
        return self._values[place], found

    def add(self, keys: IntArray, values: IntArray) -> None:
        """Hold `values` [n] under `keys` [n]; the keys are distinct and not held yet."""
        if len(self._keys) + len(keys) > self._limit:
            self.clear()
        if len(keys):
            merged = np.concatenate((self._keys, keys))
            order = np.argsort(merged, kind="stable")
            self._keys = merged[order]
            self._values = np.concatenate((self._values, values))[order]

    def clear(self) -> None:
        """Forget all keys."""
        self.complete = None
        self._keys = np.zeros(0, dtype=np.int64)
        self._values = np.zeros(0, dtype=np.int64)


def _found(held: IntArray, keys: IntArray) -> tuple[IntArray, BoolArray]:
    if not len(held):
        return np.zeros(len(keys), dtype=np.int64), np.zeros(len(keys), dtype=np.bool_)
    place = np.minimum(np.searchsorted(held, keys), len(held) - 1)
    return place, held[place] == keys
