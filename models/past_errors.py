"""How wrong a floor has been: the spread of its own past errors, by season position and by lead.

Shape suffixes: N past errors, H steps, S positions of a season, M metrics, K leads, Q quantile levels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from infra.schema import QUANTILE_LEVELS
from models.columns import IS_SHARE, LEVELS, MEDIAN
from models.contract import FloatArray

IntArray = npt.NDArray[np.int64]

_NORMAL_Q = np.array([NormalDist().inv_cdf(level) for level in QUANTILE_LEVELS])
# A prior counts as so many observations: of the usual size at each position, of a normal shape at each lead.
_POSITION_PRIOR, _SHAPE_PRIOR = 8, 16
MAX_SAMPLES = 2048
_SHARE_UNIT = 0.1
# What came sets the unit of an error where its own is larger than so many of the forecast's: where a count came to more
# than twice its forecast. Chosen on the validation parts of the development logs; less would narrow ordinary noise too.
_JUMP = 1.5


@dataclass(frozen=True, slots=True)
class ErrorSample:
    """Past errors at one lead.

    Attributes:
        lead: how far ahead, in the unit that the floor chose.
        errors_NM: observed less forecast, in the units of `unit_of`; `in_units` says whose.
        position_N: season position of the observed step.
    """

    lead: int
    errors_NM: FloatArray
    position_N: IntArray


def samples_by_lead(
    lead_N: IntArray, errors_NM: FloatArray, position_N: IntArray, season: int
) -> tuple[list[ErrorSample], ErrorSample | None]:
    """Return errors at mixed leads as samples, and what sizes by position are measured from.

    Leads are pooled from each power of two to the next; the sizes come from all errors within a season.

    Args:
        lead_N: how many steps ahead, from 1.
        errors_NM: in the units of `unit_of`.
        position_N: season position of the observed step.
        season: steps of a season.
    """
    samples = []
    octave_N = np.floor(np.log2(lead_N)).astype(np.int64)
    for octave in np.unique(octave_N):
        chosen_N = octave_N == octave
        lead = max(1, round(float(np.exp(np.log(lead_N[chosen_N]).mean()))))
        samples.append(ErrorSample(lead, errors_NM[chosen_N], position_N[chosen_N]))
    near_N = lead_N <= season
    nearest = ErrorSample(1, errors_NM[near_N], position_N[near_N]) if near_N.any() else None
    return samples, nearest


def unit_of(expected: FloatArray) -> FloatArray:
    """Return the unit [..., M] in which errors around `expected` [..., M] are comparable.

    For counts sqrt(1 + expected), the spread of a Poisson count with a floor: errors keep their meaning while the level
    moves. For shares a constant.
    """
    return np.asarray(np.where(IS_SHARE, _SHARE_UNIT, np.sqrt(1 + np.maximum(expected, 0))))


def in_units(observed: FloatArray, forecast: FloatArray) -> FloatArray:
    """Return past errors [..., M] in units of the forecast, or of what came where that went far beyond it.

    A series that wakes up errs by many of the small units of its sleep: as many of those that it has since would be an
    error that nobody made. Counted so, a rise from nothing moves a forecast of what it rose to by one and a half of
    that at most. The more came, the larger is the error still.
    """
    unit = np.maximum(unit_of(forecast), unit_of(observed) / _JUMP)
    return np.asarray((observed - forecast) / unit)


@dataclass(frozen=True, slots=True)
class PastErrors:
    """Quantiles of errors: a size for each season position times a shape for each lead.

    The shape widens with the lead around the median of the first, and stays as it is beyond the longest lead that was
    measured.

    Attributes:
        size_SM: typical size of an error at a position.
        leads_K: leads, increasing.
        shape_KMQ: quantiles of errors in units of that size.
    """

    size_SM: FloatArray
    leads_K: FloatArray
    shape_KMQ: FloatArray

    @classmethod
    def fit(
        cls,
        samples: Sequence[ErrorSample],
        season: int,
        *,
        prior_M: FloatArray,
        sized_by: ErrorSample | None = None,
    ) -> "PastErrors":
        """Measure the errors of a floor.

        Args:
            samples: past errors by increasing lead; a lead without errors is left out, none at all leaves the prior.
            season: steps of a season.
            prior_M: size that errors are given where too few were seen, in the units of `unit_of`.
            sized_by: what the size at each position is measured from, where the first lead has too few errors for it.
        """
        samples = [sample for sample in samples if len(sample.errors_NM)]
        size_SM = _sizes(sized_by or (samples[0] if samples else None), season, prior_M)
        shapes: list[FloatArray] = []
        for sample in samples:
            errors_NM, position_N = _thin(sample)
            ordered_NM = np.sort(errors_NM / size_SM[position_N], axis=0)
            n = len(ordered_NM)
            # Quantiles between order statistics at (i - 1/2) / n (Hazen), drawn towards the normal while n is small.
            place_Q = np.clip(LEVELS * n - 0.5, 0, n - 1)
            below_Q = np.floor(place_Q).astype(np.int64)
            share_Q = (place_Q - below_Q)[:, None]
            above_QM = ordered_NM[np.minimum(below_Q + 1, n - 1)]
            empirical_QM = ordered_NM[below_Q] * (1 - share_Q) + above_QM * share_Q
            shapes.append((n * empirical_QM.T + _SHAPE_PRIOR * _NORMAL_Q) / (n + _SHAPE_PRIOR))
        if not shapes:
            shapes.append(np.tile(_NORMAL_Q, (size_SM.shape[1], 1)))
        shape_KMQ = np.stack(shapes)
        # Where the level moved in the past says how far it may move, not that it will do so again.
        shape_KMQ += shape_KMQ[:1, :, MEDIAN, None] - shape_KMQ[..., MEDIAN, None]
        lower, upper = shape_KMQ[..., :MEDIAN], shape_KMQ[..., MEDIAN + 1 :]
        np.minimum.accumulate(lower, axis=0, out=lower)
        np.maximum.accumulate(upper, axis=0, out=upper)
        leads_K = np.array([sample.lead for sample in samples] or [1], dtype=np.float64)
        return cls(size_SM, leads_K, shape_KMQ)

    def quantiles(
        self, point_HM: FloatArray, expected_HM: FloatArray, lead_H: IntArray, position_H: IntArray
    ) -> FloatArray:
        """Return quantiles [H, M, Q] around `point_HM`; `expected_HM` sets the unit of the errors."""
        place_H = np.interp(np.log(lead_H), np.log(self.leads_K), np.arange(len(self.leads_K)))
        below_H = np.minimum(place_H.astype(np.int64), len(self.leads_K) - 1)
        above_H = np.minimum(below_H + 1, len(self.leads_K) - 1)
        share_H11 = (place_H - below_H)[:, None, None]
        shape_HMQ = self.shape_KMQ[below_H] * (1 - share_H11) + self.shape_KMQ[above_H] * share_H11
        size_HM = unit_of(expected_HM) * self.size_SM[position_H]
        return np.asarray(point_HM[..., None] + size_HM[..., None] * shape_HMQ)


def _sizes(nearest: ErrorSample | None, season: int, prior_M: FloatArray) -> FloatArray:
    """Return the root mean square error by position, each drawn towards that of all positions."""
    if nearest is None:
        return np.tile(prior_M, (season, 1))
    squares_NM = nearest.errors_NM**2
    n = len(squares_NM)
    overall_M = (squares_NM.sum(axis=0) + _SHAPE_PRIOR * prior_M**2) / (n + _SHAPE_PRIOR)
    count_S = np.bincount(nearest.position_N, minlength=season)
    sums_SM = np.stack(
        [np.bincount(nearest.position_N, weights=column, minlength=season) for column in squares_NM.T], axis=1
    )
    return np.asarray(np.sqrt((sums_SM + _POSITION_PRIOR * overall_M) / (count_S[:, None] + _POSITION_PRIOR)))


def _thin(sample: ErrorSample) -> tuple[FloatArray, IntArray]:
    """Return at most `MAX_SAMPLES` of the errors, evenly spread."""
    n = len(sample.errors_NM)
    if n <= MAX_SAMPLES:
        return sample.errors_NM, sample.position_N
    rows = np.linspace(0, n - 1, MAX_SAMPLES).astype(np.int64)
    return sample.errors_NM[rows], sample.position_N[rows]
