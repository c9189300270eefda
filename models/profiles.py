"""Seasonal profiles: means by position in the season, drawn to what is likely while there are few observations."""

import numpy as np
import numpy.typing as npt

from models.tokens import IS_COUNT, N_MODELLED

FloatArray = npt.NDArray[np.float64]

# A position of the season counts as this many observations of the mean of its hour until it has its own, and so does
# an hour with the overall mean.
PROFILE_PRIOR_OBSERVATIONS = 1.0
# And as up to this many of what its hour, of all days, times its day, of all hours, say: a position alone is mostly
# noise, which stays in a forecast however far ahead. Half as many at the weight of two seasons, as days are not known.
SHAPE_PRIOR_OBSERVATIONS = 12.0
_SHAPE_HALF_SEASONS = 2.0
# Pseudo-counts that keep the level ratio of a sparse metric near 1.
LEVEL_PRIOR_COUNT = 0.5
_EPSILON = 1e-9


def mean(total: FloatArray, weight: FloatArray) -> FloatArray:
    """Return means of decayed sums; 0 where there is no weight."""
    return total / np.maximum(weight, _EPSILON)


def towards(total: FloatArray, weight: FloatArray, expected: FloatArray) -> FloatArray:
    """Return means [..., M] of decayed sums, drawn to what is expected while the weight [...] is small."""
    prior = PROFILE_PRIOR_OBSERVATIONS
    return np.asarray((total + prior * expected) / (weight[..., None] + prior))


def shapes(profile_sum: FloatArray, profile_weight: FloatArray, day: int) -> tuple[FloatArray, FloatArray]:
    """Return profiles [P, S, M] as products of an hour and a day, and by how many observations each counts [P, S].

    The mean of an hour over all days of the season, times what came on a day over what its hours expect of it; for
    shares plus their difference. `day` is the number of steps of a day; a season without days has no such shape.
    """
    if day == 1:
        return np.zeros_like(profile_sum), np.zeros_like(profile_weight)
    total = profile_sum.reshape(len(profile_sum), -1, day, N_MODELLED)
    weight = profile_weight.reshape(len(profile_weight), -1, day, 1)
    hour = mean(total.sum(axis=1, keepdims=True), weight.sum(axis=1, keepdims=True))
    came, expected = total.sum(axis=2, keepdims=True), (weight * hour).sum(axis=2, keepdims=True)
    ratio = (came + LEVEL_PRIOR_COUNT) / (expected + LEVEL_PRIOR_COUNT)
    shift = mean(came - expected, weight.sum(axis=2, keepdims=True))
    shape = np.where(IS_COUNT, hour * ratio, np.clip(hour + shift, 0.0, 1.0))
    seasons = weight.mean(axis=(1, 2), keepdims=True)
    observations = SHAPE_PRIOR_OBSERVATIONS * seasons / (seasons + _SHAPE_HALF_SEASONS)
    known = weight.sum(axis=1, keepdims=True) > 0
    counted = np.broadcast_to(np.where(known, observations, 0.0), weight.shape)
    return shape.reshape(profile_sum.shape), counted.reshape(profile_weight.shape)
