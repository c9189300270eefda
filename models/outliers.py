"""How high a step may enter the statistics of a graph, so that one raid does not come back every week.

Profiles and levels are means of few values, in which a single hour at a thousand times the usual one would stand for
half a year. What enters them is therefore held to a few times what was seen before: at that position of the season the
last time, or several times anywhere. A second visit at such a height, or a level that stays, enters as it is.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.columns import IS_COUNT, N_MODELLED
from models.tokens import transform

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# So many steps make a height known, and so many times it is not yet extreme: in the 100,000 steps of the development
# logs before their test parts, 11 values after a first season are held.
CONFIRMING_STEPS, ORDINARY_RISE = 3, 4.0
# In a first season nothing is known beforehand. Looked back at, what is so many times higher than all but two of its
# steps is a bulk, such as an import, and no growth; no development log and no cut of one begins with such a step.
BULK_RISE = 100.0
# A height is forgotten as the long profile forgets.
_HEIGHT_SEASONS = 26.0


@dataclass(frozen=True, slots=True)
class Heights:
    """The heights that a graph has reached; a value. All in transformed units.

    Shapes: S positions of a season, M modelled metrics.

    Attributes:
        highest: [CONFIRMING_STEPS, M] the highest steps, faded, from the highest on.
        latest: [S, M] the last visit of each position.
    """

    highest: FloatArray
    latest: FloatArray

    @classmethod
    def start(cls, season: int) -> "Heights":
        """Return the heights before anything was observed."""
        return cls(np.zeros((CONFIRMING_STEPS, N_MODELLED)), np.zeros((season, N_MODELLED)))

    def hold(self, observed: int, position: IntArray, values: FloatArray) -> tuple[FloatArray, "Heights"]:
        """Return what of values [n, M] enters profiles and levels, and the heights after them.

        Values below their bound are themselves to the last bit. `position` [n] are the positions in the season, which
        all differ; `observed` steps came before them.
        """
        transformed = transform(values)
        known, after = self._known(position, transformed)
        # A graph that grows up surpasses itself; what is extreme is known from its second season on.
        grown = observed + np.arange(len(values)) >= len(self.latest)
        bound = np.maximum(known, 0.0) + np.log(ORDINARY_RISE)
        extreme = IS_COUNT & grown[:, None] & (transformed > bound)
        return np.where(extreme, np.expm1(np.minimum(bound, transformed)), values), after

    def _known(self, position: IntArray, transformed: FloatArray) -> tuple[FloatArray, "Heights"]:
        """Return the height that is known before each step [n, M], and the heights after all of them."""
        # Fading moves all heights alike, so steps are compared with it taken out.
        faded = (np.arange(len(transformed) + 1.0) / (_HEIGHT_SEASONS * len(self.latest)))[:, None]
        highest, rest = np.empty_like(self.highest), transformed + faded[1:]
        for rank, height in enumerate(self.highest):
            running = np.maximum.accumulate(np.concatenate([height[None], rest]))
            before, highest[rank] = running[:-1], running[-1]
            # Of a step and the highest so far, the lower one is a candidate for the next rank.
            rest = np.minimum(rest, before)
        latest = self.latest.copy()
        latest[position] = transformed
        known = np.maximum(before - faded[:-1], self.latest[position])
        return known, Heights(highest - faded[-1], latest)


def without_bulks(values: FloatArray) -> FloatArray:
    """Return the steps [n, M] of a first season with bulks held to the ordinary rise; without any they are `values`."""
    if len(values) < CONFIRMING_STEPS:
        return values
    transformed = transform(values)
    known = np.sort(transformed, axis=0)[-CONFIRMING_STEPS]
    bulk = IS_COUNT & (transformed > known + np.log(BULK_RISE))
    return np.where(bulk, np.expm1(known + np.log(ORDINARY_RISE)), values) if bulk.any() else values
