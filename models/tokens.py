"""What a forecaster is given for a stretch of steps, and the units and the calendar of it.

Counts are modelled as log1p, shares as they are.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infra.steps import DAY_US, MONDAY_US, WEEK_US
from models.columns import IS_COUNT

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_DAILY_HARMONICS, _WEEKLY_HARMONICS, _YEARLY_HARMONICS = 4, 3, 2
_YEAR_US = 365.2425 * DAY_US
# Of each sine and cosine: its period, in the order of day, week and year, and the multiple of the frequency.
_PERIOD = np.repeat(np.arange(3), (_DAILY_HARMONICS, _WEEKLY_HARMONICS, _YEARLY_HARMONICS))
_HARMONIC = np.concatenate([np.arange(1, n + 1) for n in (_DAILY_HARMONICS, _WEEKLY_HARMONICS, _YEARLY_HARMONICS)])
N_CALENDAR = 2 * (_DAILY_HARMONICS + _WEEKLY_HARMONICS + _YEARLY_HARMONICS)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Model inputs of L consecutive steps.

    Attributes:
        features: [L, N_FEATURES] float32.
        anchor: [L, N_MODELLED] the anchor in transformed units (log1p for counts).
        scale: [L, N_MODELLED] typical size of the error around the anchor, in transformed units.
    """

    features: npt.NDArray[np.float32]
    anchor: FloatArray
    scale: FloatArray


def transform(values: FloatArray) -> FloatArray:
    """Return modelled metrics [..., N_MODELLED] in transformed units: log1p for counts, shares as they are."""
    return np.where(IS_COUNT, np.log1p(np.maximum(values, 0.0)), values)


def untransform(values: FloatArray) -> FloatArray:
    """Invert `transform`, counts floored at 0 and shares kept in [0, 1]."""
    return np.where(IS_COUNT, np.expm1(np.clip(values, 0.0, 60.0)), np.clip(values, 0.0, 1.0))


def calendar_features(start_us: IntArray, *, year: FloatArray) -> FloatArray:
    """Return [L, N_CALENDAR] sines and cosines of the day, the week and the year at steps starting at `start_us`.

    `year` [L] is how much of the year is told, from 0 to 1.
    """
    phase = np.empty((len(start_us), 3))
    for column, (period_us, origin_us) in enumerate(((DAY_US, 0), (WEEK_US, MONDAY_US), (_YEAR_US, 0))):
        phase[:, column] = 2 * np.pi * (((start_us - origin_us) % period_us) / period_us)
    angle = phase[:, _PERIOD] * _HARMONIC
    features = np.empty((len(start_us), N_CALENDAR))
    features[:, 0::2], features[:, 1::2] = np.sin(angle), np.cos(angle)
    features[:, -2 * _YEARLY_HARMONICS :] *= year[:, None]
    return features
