"""Calibration: by how much quantiles are moved, and how far ahead a forecast may be trusted, by the length of a step.

Shape suffixes: L steps ahead, M modelled metrics, Q quantile levels, K horizon buckets.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from models.columns import N_LEVELS, N_MODELLED
from models.contract import FloatArray


def between_buckets(buckets: Sequence[tuple[int, int]], values_KMQ: FloatArray, distance_L: FloatArray) -> FloatArray:
    """Return values [L, M, Q] at distances ahead [L], linear in their logarithm between those of buckets [K, M, Q]."""
    centres_K = np.log([np.sqrt(first * last) for first, last in buckets])
    place_L = np.interp(np.log(distance_L), centres_K, np.arange(len(centres_K)))
    below_L = np.minimum(place_L.astype(np.int64), len(centres_K) - 1)
    above_L = np.minimum(below_L + 1, len(centres_K) - 1)
    share_L11 = (place_L - below_L)[:, None, None]
    return np.asarray(values_KMQ[below_L] * (1 - share_L11) + values_KMQ[above_L] * share_L11)


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the validation part says about forecasts.

    Attributes:
        buckets: first and last distance ahead of each bucket, in steps.
        offsets_KMQ: what to add to residual quantiles.
        calibrated_until_step: the last distance up to which the shares below each level are what they should be.
        skill_until_step: the last distance up to which forecasts are better than the climate of the series.
    """

    buckets: tuple[tuple[int, int], ...]
    offsets_KMQ: FloatArray
    calibrated_until_step: int
    skill_until_step: int

    def offsets(self, distance_L: FloatArray) -> FloatArray:
        """Return the offsets [L, M, Q] at distances ahead [L], linear in their logarithm between buckets."""
        if not self.buckets:
            return np.zeros((len(distance_L), N_MODELLED, N_LEVELS))
        return between_buckets(self.buckets, self.offsets_KMQ, distance_L)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values for the card of a checkpoint."""
        return {
            "calibrated_until_step": self.calibrated_until_step,
            "skill_until_step": self.skill_until_step,
            "buckets": [list(bucket) for bucket in self.buckets],
            "offsets": np.round(self.offsets_KMQ, 4).tolist(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Invert `to_json`.

        Raises:
            KeyError, TypeError, ValueError: the values are of another form.
        """
        buckets = tuple((int(first), int(last)) for first, last in values["buckets"])
        offsets_KMQ = np.array(values["offsets"], dtype=np.float64).reshape(-1, N_MODELLED, N_LEVELS)
        if len(offsets_KMQ) != len(buckets):
            raise ValueError(f"{len(offsets_KMQ)} offsets do not fit {len(buckets)} buckets")
        return cls(buckets, offsets_KMQ, int(values["calibrated_until_step"]), int(values["skill_until_step"]))

    @classmethod
    def none(cls) -> Self:
        """Return what is known of a model that was never validated: nothing."""
        return cls((), np.zeros((0, N_MODELLED, N_LEVELS)), 0, 0)


@dataclass(frozen=True, slots=True)
class Calibrations:
    """What validation says about the forecasts of one model at steps of different lengths.

    A day brings other surprises than an hour, and a hundred days others than a hundred hours.

    Attributes:
        by_step_us: the calibration of each length of a step, in microseconds, that was validated; none if none was.
    """

    by_step_us: Mapping[int, Calibration]

    def at(self, step_us: int) -> Calibration:
        """Return the calibration at steps of a length: that of the validated length that is the fewest times off."""
        if not self.by_step_us:
            return Calibration.none()
        return self.by_step_us[min(self.by_step_us, key=lambda known: abs(math.log(known / step_us)))]

    def to_json(self) -> list[dict[str, Any]]:
        """Return JSON values for the card of a checkpoint."""
        return [{"step_us": step_us, **one.to_json()} for step_us, one in sorted(self.by_step_us.items())]

    @classmethod
    def from_json(cls, rows: Sequence[Mapping[str, Any]]) -> Self:
        """Invert `to_json`.

        Raises:
            KeyError, TypeError, ValueError: the values are of another form.
        """
        return cls({int(row["step_us"]): Calibration.from_json(row) for row in rows})
