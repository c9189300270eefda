"""What is known of the steps ahead of a graph, and the tokens that tell it to the core.

An observed token carries the residual of what was seen against the anchor known before it; a token of a step ahead
carries no observation but how far ahead it lies. Both are otherwise made of the same statistics, which stand still from
the last observation on.

Shapes: n steps, M modelled metrics, R levels, K memories.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infra.steps import MONDAY_US
from models.columns import IS_COUNT, N_MODELLED
from models.profiles import PROFILE_SEASONS, Profiles
from models.residuals import N_SPREAD, RESIDUAL_LIMIT
from models.tokens import N_CALENDAR, Tokens, calendar_features, transform

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Level averages reach back a seventh of a season (a day of a week), one season, four (the anchor's), and as far as the
# climate of the series needs.
LEVEL_SEASONS = (1 / 7, 1.0, 4.0, 13.0, 52.0)
ANCHOR_LEVEL = 2
# Recent residuals fade over an 84th and a 14th of a season (two and twelve hours of a week), as their effect does.
MEMORY_SEASONS = (1 / 84, 1 / 14)
# A rival that knows less of the past than the anchor is worth half as much to lean on so many seasons ahead. Slower
# levels are no worse for a far step than for a near one.
RIVAL_REACH_SEASONS = 4.0
_FASTER = np.delete(np.array(LEVEL_SEASONS) < LEVEL_SEASONS[ANCHOR_LEVEL], ANCHOR_LEVEL)
# All profiles that are rivals do: the recent one and that of a day.
_FADES = np.concatenate([_FASTER, np.ones(len(PROFILE_SEASONS), dtype=bool)])[:, None]
# All candidates but the anchor: at other levels, by other profiles.
_RIVALS = np.delete(np.arange(len(LEVEL_SEASONS) + len(PROFILE_SEASONS)), ANCHOR_LEVEL)

_LOG_DISTANCE_UNIT = np.log(1e4)
# The time of the year is told less the further ahead: from a few logs of a few years a network learns what happened in
# them, and would repeat it every year of a far forecast.
_YEAR_MEMORY_SEASONS = 4.0
# residual, anchor height, scale, rivals of the anchor (levels and profiles but one each, the daily profile), faded
# recent residuals, their spread; then calendar, whether ahead, how far ahead.
N_RIVALS = len(_RIVALS)
# What a forecast may lean on beside the anchor, metric by metric: rivals and faded residuals, in units of the scale,
# and their spread.
N_LEANS = N_RIVALS + len(MEMORY_SEASONS) + N_SPREAD
N_FEATURES = (3 + N_LEANS) * N_MODELLED + N_CALENDAR + 2
LOG_SCALE = slice(2 * N_MODELLED, 3 * N_MODELLED)
LEANS = slice(3 * N_MODELLED, (3 + N_LEANS) * N_MODELLED)
SPREAD = slice(LEANS.stop - N_SPREAD * N_MODELLED, LEANS.stop)
FADED = slice(SPREAD.start - len(MEMORY_SEASONS) * N_MODELLED, SPREAD.start)


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is known before a step, as far as it says something of that step and those behind it; a value.

    Attributes:
        step_us: step size in microseconds.
        next_us: start of the step.
        profiles: of the season and the day.
        level: [R, M] what the long profile is multiplied by to be at each level; for shares what is added to it.
        usual: [M] the mean of the values at the anchor's level.
        scale: [M] the unit of residuals.
        memory: [K, M] means of recent residuals.
        spread: [N_SPREAD, M] how far the spread of residuals is from a usual one.
    """

    step_us: int
    next_us: int
    profiles: Profiles
    level: FloatArray
    usual: FloatArray
    scale: FloatArray
    memory: FloatArray
    spread: FloatArray

    def tokens(self, first: int, n: int, reach_steps: int) -> Tokens:
        """Return tokens of the steps `first` ... `first + n - 1` ahead; 1 is the next step to observe.

        Args:
            first: how far ahead the first token lies, at least 1.
            n: how many tokens.
            reach_steps: distances are told to the model up to this many steps, the longest that it was trained on.
        """
        season, distance = self.profiles.season, np.arange(first, first + n)
        starts_us = self.next_us + (distance - 1) * self.step_us
        profiles = self.profiles.expected(positions(starts_us, self.step_us, season), self.usual)
        anchor, rivals = anchor_and_rivals(profiles, self.level[:, None])
        # What is known of recent weeks says little of a far one.
        fade = np.where(_FADES, 1.0 / (1.0 + ((distance - 1.0) / (RIVAL_REACH_SEASONS * season)) ** 2), 1.0)
        left = np.exp(-(distance - 1.0) / memory_steps(season)[:, None])
        return tokens_of(
            starts_us,
            np.zeros((n, N_MODELLED)),
            anchor,
            anchor + fade[..., None] * (rivals - anchor),
            np.tile(self.scale, (n, 1)),
            left[..., None] * self.memory[:, None],
            np.repeat(self.spread[:, None], n, axis=1),
            distance=distance.astype(np.float64),
            season=season,
            reach_steps=reach_steps,
        )


def positions(starts_us: IntArray, step_us: int, season: int) -> IntArray:
    """Return the positions in the season of steps that start at `starts_us` [n]."""
    return np.asarray((starts_us - MONDAY_US) // step_us % season)


def memory_steps(season: int) -> FloatArray:
    """Return over how many steps recent residuals fade [K]."""
    return np.asarray(np.maximum(1.0, np.array(MEMORY_SEASONS) * season))


def anchor_and_rivals(profiles: FloatArray, level: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the anchor [n, M] and its rivals [N_RIVALS, n, M], all in transformed units.

    The anchor is the first of the profiles [P + 1, n, M] at the slow one of the levels [R, n, M] (or [R, 1, M]). The
    rivals are the same at the other levels, and the other profiles.
    """
    at_level = np.where(IS_COUNT, profiles[0] * level, np.clip(profiles[0] + level, 0.0, 1.0))
    candidates = transform(np.concatenate([at_level, profiles[1:]]))
    return candidates[ANCHOR_LEVEL], candidates[_RIVALS]


def tokens_of(
    starts_us: IntArray,
    residual: FloatArray,
    anchor: FloatArray,
    rivals: FloatArray,
    scale: FloatArray,
    faded: FloatArray,
    spread: FloatArray,
    *,
    distance: FloatArray,
    season: int,
    reach_steps: int,
) -> Tokens:
    """Return the tokens of steps `distance` [n] ahead; 0 stands for a step that was observed.

    Residuals, anchor and scale are [n, M]; rivals, faded residuals and spread one such after the other, [..., n, M].
    """
    limit = RESIDUAL_LIMIT
    features = np.empty((len(starts_us), N_FEATURES), dtype=np.float32)
    begin = 0
    for part in (
        residual[None],
        np.clip((anchor - 2.0) / 2.0, -limit, limit)[None],
        np.log(scale)[None],
        np.clip((rivals - anchor) / scale, -limit, limit),
        faded,
        spread,
    ):
        end = begin + len(part) * N_MODELLED
        features[:, begin:end].reshape(len(features), len(part), N_MODELLED)[:] = part.swapaxes(0, 1)
        begin = end
    features[:, begin : begin + N_CALENDAR] = calendar_features(
        starts_us, year=np.exp(-distance / (_YEAR_MEMORY_SEASONS * season))
    )
    features[:, -2] = distance > 0
    features[:, -1] = np.log1p(np.minimum(distance, reach_steps)) / _LOG_DISTANCE_UNIT
    return Tokens(features, anchor, scale)
