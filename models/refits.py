"""When a floor that is dear to fit is fitted anew, and what is kept of the fits in between.

A fit is a pure function of the steps before its refit point, so that it does not matter whether it was kept.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from models.contract import FloatArray
from models.floor import FloorState

Fit = TypeVar("Fit")


def refit_point(observed: int, season: int, every_seasons: int) -> int:
    """Return after how many observed steps the fit is made that serves now.

    It moves on once in `every_seasons`; as long as less was observed, with each season, and at each step of a first.
    """
    every = every_seasons * season if observed >= every_seasons * season else season
    return observed if observed < every else observed - observed % every


def fit_window(state: FloorState, season: int, *, every_seasons: int, steps: int) -> tuple[FloatArray, int]:
    """Return the `steps` rows before the refit point, or as many as the tail holds, and when the first starts [us]."""
    missing = state.observed - len(state.tail_TM)
    end = max(1, refit_point(state.observed, season, every_seasons) - missing)
    begin = max(0, end - steps)
    start_us = state.next_us - (len(state.tail_TM) - begin) * state.step_us
    return state.tail_TM[begin:end], start_us


class FitCache(Generic[Fit]):
    """The last few fits, by what they were made of."""

    SIZE = 4

    def __init__(self) -> None:
        self._fits: OrderedDict[str, Fit] = OrderedDict()

    def get(self, window_TM: FloatArray, key: tuple[int, ...], make: Callable[[], Fit]) -> Fit:
        """Return the fit to `window_TM` with whatever else `key` says, made only if it is not among the kept."""
        name = f"{key} {hashlib.sha256(window_TM.tobytes()).hexdigest()}"
        if name not in self._fits:
            self._fits[name] = make()
        self._fits.move_to_end(name)
        while len(self._fits) > self.SIZE:
            self._fits.popitem(last=False)
        return self._fits[name]
