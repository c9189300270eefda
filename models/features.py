"""Causal statistics of a graph's metrics, and the model inputs made of them.

Everything that the forecaster knows without its core stands here: the seasonal anchor (profile times level) and the
scale of the errors around it. All of it is updated step by step from the past alone, so the same code serves training,
backtesting and live forecasting.

A *token* is the input of the core for one step. An observed token carries the residual of what was seen against the
anchor known before it; a token of a step ahead carries no observation but how far ahead it lies. Both are otherwise
made of the same statistics, which stand still from the last observation on.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from infra.steps import MONDAY_US
from models.outliers import Heights
from models.profiles import LEVEL_PRIOR_COUNT, mean, shapes, towards
from models.residuals import N_SPREAD, RESIDUAL_LIMIT, against_usual, error_scale, residual_spread
from models.seasons import season_steps
from models.tokens import IS_COUNT, N_CALENDAR, N_MODELLED, Tokens, calendar_features, transform

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Level averages reach back a seventh of a season (a day of a week), one season, four (the anchor's), and as far as the
# climate of the series needs.
LEVEL_SEASONS = (1 / 7, 1.0, 4.0, 13.0, 52.0)
ANCHOR_LEVEL = 2
# Seasonal profiles: the anchor's reaches back half a year of weeks, the recent one about a month.
PROFILE_SEASONS = (26.0, 4.0)
SCALE_SEASONS = 8.0
# Recent residuals fade over an 84th and a 14th of a season (two and twelve hours of a week), as their effect does.
MEMORY_SEASONS = (1 / 84, 1 / 14)
# The profile of a day, whichever of the week, reaches back two seasons; it stands in where a season is not yet known.
DAYS_PER_SEASON = 7
DAILY_SEASONS = 2.0
# A rival that knows less of the past than the anchor is worth half as much to lean on so many seasons ahead. Slower
# levels are no worse for a far step than for a near one.
RIVAL_REACH_SEASONS = 4.0
_FASTER = np.delete(np.array(LEVEL_SEASONS) < LEVEL_SEASONS[ANCHOR_LEVEL], ANCHOR_LEVEL)
# All profiles that are rivals do: the recent one and that of a day.
_FADES = np.concatenate([_FASTER, np.ones(len(PROFILE_SEASONS), dtype=bool)])[:, None]

_LOG_DISTANCE_UNIT = np.log(1e4)
# The time of the year is told less the further ahead: from a few logs of a few years a network learns what happened in
# them, and would repeat it every year of a far forecast.
_YEAR_MEMORY_SEASONS = 4.0
# residual, anchor height, scale, rivals of the anchor (levels and profiles but one each, the daily profile), faded
# recent residuals, their spread; then calendar, whether ahead, how far ahead.
N_RIVALS = len(LEVEL_SEASONS) - 1 + len(PROFILE_SEASONS) - 1 + 1
# What a forecast may lean on beside the anchor, metric by metric: rivals and faded residuals, in units of the scale,
# and their spread.
N_LEANS = N_RIVALS + len(MEMORY_SEASONS) + N_SPREAD
N_FEATURES = (3 + N_LEANS) * N_MODELLED + N_CALENDAR + 2
LEANS = slice(3 * N_MODELLED, (3 + N_LEANS) * N_MODELLED)
SPREAD = slice(LEANS.stop - N_SPREAD * N_MODELLED, LEANS.stop)


def _decayed_sums(initial: FloatArray, x: FloatArray, decay: float) -> FloatArray:
    """Return s[0..n] with s[0] = initial and s[i + 1] = decay * s[i] + x[i], along axis 0: shape [n + 1, ...].

    Callers keep n small against -1 / log(decay), so that the powers stay in range.
    """
    n = len(x)
    powers = decay ** np.arange(n + 1.0).reshape(-1, *([1] * (x.ndim - 1)))
    sums = np.concatenate([initial[None], x / powers[1:]]).cumsum(axis=0)
    return np.asarray(sums * powers)


def _anchor(
    profiles: FloatArray, level_sum: FloatArray, level_expected: FloatArray, level_weight: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the anchor [n, M] and its rivals [R, n, M], all in transformed units.

    The anchor is the long profile at the slow level: times the ratio of what was seen to what the profile expected
    for counts, plus their difference for shares. The rivals are the same at the faster levels, and the recent profile.
    """
    ratio = (level_sum + LEVEL_PRIOR_COUNT) / (level_expected + LEVEL_PRIOR_COUNT)
    shift = mean(level_sum - level_expected, level_weight)
    at_level = np.where(IS_COUNT, profiles[0] * ratio, np.clip(profiles[0] + shift, 0.0, 1.0))
    candidates = transform(np.concatenate([at_level, profiles[1:]]))
    return candidates[ANCHOR_LEVEL], np.delete(candidates, ANCHOR_LEVEL, axis=0)


def _memory_steps(seasons: float, season: int) -> float:
    return max(1.0, seasons * season)


def _day_steps(season: int) -> int:
    return season // DAYS_PER_SEASON if season % DAYS_PER_SEASON == 0 else 1


def _tokens(
    starts_us: IntArray,
    residual: FloatArray,
    anchor: FloatArray,
    rivals: FloatArray,
    scale: FloatArray,
    faded: list[FloatArray],
    spread: FloatArray,
    *,
    distance: FloatArray,
    season: int,
    reach_steps: int,
) -> Tokens:
    """Return the tokens of steps `distance` ahead; 0 stands for a step that was observed."""
    limit = RESIDUAL_LIMIT
    columns = [
        residual,
        np.clip((anchor - 2.0) / 2.0, -limit, limit),
        np.log(scale),
        *np.clip((rivals - anchor) / scale, -limit, limit),
        *faded,
        *spread,
        calendar_features(starts_us, year=np.exp(-distance / (_YEAR_MEMORY_SEASONS * season))),
        (distance > 0)[:, None].astype(np.float64),
        (np.log1p(np.minimum(distance, reach_steps)) / _LOG_DISTANCE_UNIT)[:, None],
    ]
    return Tokens(np.concatenate(columns, axis=1).astype(np.float32), anchor, scale)


@dataclass(frozen=True, slots=True)
class CausalStatistics:
    """What the past says about the next steps; a value, never changed in place.

    Shapes: S positions of a season, D positions of a day, M modelled metrics, R levels, P profiles.

    Attributes:
        step_us: step size in microseconds.
        next_us: start of the next step to observe.
        observed: how many steps were observed.
        profile_sum: [P, S, M] decayed sums of the values by position, `profile_weight` [P, S] their weights.
        shape: [P, S, M] what the profiles were, as hours times days, where the season under way began,
            `shape_weight` [P, S] how many observations they count as.
        daily_sum: [D, M] decayed sums of the values by position of the day, `daily_weight` [D] their weights; D is 1
            where a season has no days.
        level_sum: [R, M] decayed sums of the values, `level_expected` [R, M] of what the long profile as it is now
            expects of the same steps, `level_weight` [R] their weights.
        square_sum: [M] decayed sum of squared errors around the anchor, `spread_sum` [N_SPREAD, M] of what
            `residual_spread` says of the residuals, `square_weight` the weight of both.
        memory_sum: [K, M] decayed sums of residuals, `memory_weight` [K] their weights.
        heights: how high steps have been, which bounds what enters the sums of values.
    """

    step_us: int
    next_us: int
    observed: int
    profile_sum: FloatArray
    profile_weight: FloatArray
    shape: FloatArray
    shape_weight: FloatArray
    daily_sum: FloatArray
    daily_weight: FloatArray
    level_sum: FloatArray
    level_expected: FloatArray
    level_weight: FloatArray
    square_sum: FloatArray
    spread_sum: FloatArray
    square_weight: float
    memory_sum: FloatArray
    memory_weight: FloatArray
    heights: Heights

    @classmethod
    def start(cls, step_us: int, start_us: int) -> "CausalStatistics":
        """Return the statistics before anything was observed; the first step starts at `start_us`."""
        season = season_steps(step_us)
        profiles, levels = len(PROFILE_SEASONS), len(LEVEL_SEASONS)
        return cls(
            step_us=step_us,
            next_us=start_us,
            observed=0,
            profile_sum=np.zeros((profiles, season, N_MODELLED)),
            profile_weight=np.zeros((profiles, season)),
            shape=np.zeros((profiles, season, N_MODELLED)),
            shape_weight=np.zeros((profiles, season)),
            daily_sum=np.zeros((_day_steps(season), N_MODELLED)),
            daily_weight=np.zeros(_day_steps(season)),
            level_sum=np.zeros((levels, N_MODELLED)),
            level_expected=np.zeros((levels, N_MODELLED)),
            level_weight=np.zeros(levels),
            square_sum=np.zeros(N_MODELLED),
            spread_sum=np.zeros((N_SPREAD, N_MODELLED)),
            square_weight=0.0,
            memory_sum=np.zeros((len(MEMORY_SEASONS), N_MODELLED)),
            memory_weight=np.zeros(len(MEMORY_SEASONS)),
            heights=Heights.start(season),
        )

    @property
    def season(self) -> int:
        """Steps of one season."""
        return int(self.profile_sum.shape[1])

    def observe(self, values: FloatArray) -> tuple["CausalStatistics", Tokens]:
        """Return the statistics after the next steps with `values` [n, M], and their observed tokens."""
        parts: list[Tokens] = []
        statistics = self
        # A block ends where a season does: each position occurs at most once in it, so that it needs no loop over its
        # steps, and the shape of the profiles stands still.
        begin = 0
        while begin < len(values):
            end = begin + self.season - statistics._next_position
            statistics, tokens = statistics._observe_block(values[begin:end])
            if statistics._next_position == 0:
                statistics = statistics._with_shape()
            parts.append(tokens)
            begin = end
        if not parts:
            empty = np.zeros((0, N_MODELLED))
            return self, Tokens(np.zeros((0, N_FEATURES), dtype=np.float32), empty, empty)
        return statistics, Tokens(
            np.concatenate([part.features for part in parts]),
            np.concatenate([part.anchor for part in parts]),
            np.concatenate([part.scale for part in parts]),
        )

    @property
    def scale(self) -> FloatArray:
        """The unit of residuals of steps ahead."""
        return error_scale(self.square_sum, np.array(self.square_weight))

    def ahead(self, first: int, n: int, reach_steps: int) -> Tokens:
        """Return tokens of the steps `first` ... `first + n - 1` ahead; 1 is the next step to observe.

        Args:
            first: how far ahead the first token lies, at least 1.
            n: how many tokens.
            reach_steps: distances are told to the model up to this many steps, the longest that it was trained on.
        """
        distance = np.arange(first, first + n)
        starts_us = self.next_us + (distance - 1) * self.step_us
        level = mean(self.level_sum[ANCHOR_LEVEL], self.level_weight[ANCHOR_LEVEL])
        day = self._position(starts_us) % len(self.daily_sum)
        daily = towards(self.daily_sum[day], self.daily_weight[day], level)
        profiles = np.concatenate([self._profiles(starts_us, daily), daily[None]])
        anchor, rivals = _anchor(
            profiles, self.level_sum[:, None], self.level_expected[:, None], self.level_weight[:, None, None]
        )
        # What is known of recent weeks says little of a far one.
        fade = np.where(_FADES, 1.0 / (1.0 + ((distance - 1.0) / (RIVAL_REACH_SEASONS * self.season)) ** 2), 1.0)
        rivals = anchor + fade[..., None] * (rivals - anchor)
        scale = np.tile(self.scale, (n, 1))
        faded = [
            np.exp(-(distance[:, None] - 1) / _memory_steps(seasons, self.season)) * mean(total, weight)
            for seasons, total, weight in zip(MEMORY_SEASONS, self.memory_sum, self.memory_weight, strict=True)
        ]
        spread = np.repeat(against_usual(self.spread_sum, np.array(self.square_weight))[:, None], n, axis=1)
        return _tokens(
            starts_us,
            np.zeros((n, N_MODELLED)),
            anchor,
            rivals,
            scale,
            faded,
            spread,
            distance=distance.astype(np.float64),
            season=self.season,
            reach_steps=reach_steps,
        )

    def _position(self, starts_us: IntArray) -> IntArray:
        return np.asarray((starts_us - MONDAY_US) // self.step_us % self.season)

    @property
    def _next_position(self) -> int:
        return int(self._position(np.array([self.next_us]))[0])

    def _profiles(self, starts_us: IntArray, daily: FloatArray) -> FloatArray:
        """Return [P, n, M]: what each profile expects at steps starting at `starts_us`, given the daily one [n, M]."""
        position = self._position(starts_us)
        shape_weight = self.shape_weight[:, position]
        total = self.profile_sum[:, position] + shape_weight[..., None] * self.shape[:, position]
        return towards(total, self.profile_weight[:, position] + shape_weight, daily)

    def _with_shape(self) -> "CausalStatistics":
        shape, shape_weight = shapes(self.profile_sum, self.profile_weight, len(self.daily_sum))
        return replace(self, shape=shape, shape_weight=shape_weight)

    def _profiles_after(self, position: IntArray, values: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the sums and weights of the profiles after `values` [n, M] at positions [n], which all differ."""
        profile_sum, profile_weight = self.profile_sum.copy(), self.profile_weight.copy()
        for p, seasons in enumerate(PROFILE_SEASONS):
            keep = float(np.exp(-1.0 / seasons))
            profile_sum[p, position] = keep * profile_sum[p, position] + values
            profile_weight[p, position] = keep * profile_weight[p, position] + 1.0
        return profile_sum, profile_weight

    def _expectation(
        self, position: IntArray, profile_sum: FloatArray, profile_weight: FloatArray, decay: float
    ) -> FloatArray:
        """Return what each step of a block adds [n, M] to a level's decayed sum of expectations.

        What is expected of the steps so far follows the long profile as it is now. A step that moves its position of
        the profile therefore moves the expectation of all earlier steps at this position with it.
        """
        before = mean(self.profile_sum[0, position], self.profile_weight[0, position, None])
        after = profile_sum[0, position] / profile_weight[0, position, None]
        season_decay = decay**self.season
        visits = (self.observed + np.arange(len(position))) // self.season
        earlier = (season_decay * (1 - season_decay**visits) / (1 - season_decay))[:, None]
        return np.asarray(after * (1 + earlier) - before * earlier)

    def _daily_sums(self, values: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the decayed daily sums before and after each step of a block, [2, n, M], and their weights [2, n]."""
        n, day = len(values), len(self.daily_sum)
        first = self._next_position % day
        # One row a day, beginning with the block; the last one may be filled up.
        rows = np.zeros((-(-n // day) * day, N_MODELLED + 1))
        rows[:n, :-1], rows[:n, -1] = values, 1.0
        initial = np.roll(np.column_stack([self.daily_sum, self.daily_weight]), -first, axis=0)
        decay = float(np.exp(-1.0 / (DAYS_PER_SEASON * DAILY_SEASONS)))
        sums = _decayed_sums(initial, rows.reshape(-1, day, N_MODELLED + 1), decay)
        both = np.stack([sums[:-1].reshape(len(rows), -1)[:n], sums[1:].reshape(len(rows), -1)[:n]])
        return both[..., :-1], both[..., -1]

    def _observe_block(self, observed: FloatArray) -> tuple["CausalStatistics", Tokens]:
        n = len(observed)
        starts_us = self.next_us + np.arange(n) * self.step_us
        position = self._position(starts_us)
        values, heights = self.heights.hold(self.observed, position, observed)
        decays = [float(np.exp(-1.0 / (seasons * self.season))) for seasons in LEVEL_SEASONS]
        one = np.ones((n, 1))
        level_sum = np.stack([_decayed_sums(self.level_sum[r], values, d) for r, d in enumerate(decays)])
        level_weight = np.stack([_decayed_sums(self.level_weight[r : r + 1], one, d) for r, d in enumerate(decays)])
        daily_sums, daily_weights = self._daily_sums(values)
        daily = towards(
            daily_sums[0], daily_weights[0], mean(level_sum[ANCHOR_LEVEL, :-1], level_weight[ANCHOR_LEVEL, :-1])
        )
        profiles = np.concatenate([self._profiles(starts_us, daily), daily[None]])
        profile_sum, profile_weight = self._profiles_after(position, values)
        level_expected = np.stack(
            [
                _decayed_sums(self.level_expected[r], self._expectation(position, profile_sum, profile_weight, d), d)
                for r, d in enumerate(decays)
            ]
        )
        anchor, rivals = _anchor(profiles, level_sum[:, :-1], level_expected[:, :-1], level_weight[:, :-1])
        error = transform(observed) - anchor
        decay = float(np.exp(-1.0 / (SCALE_SEASONS * self.season)))
        squares = _decayed_sums(self.square_sum, error**2, decay)
        square_weights = _decayed_sums(np.array([self.square_weight]), one, decay)
        scale = error_scale(squares[:-1], square_weights[:-1])
        residual = np.clip(error / scale, -RESIDUAL_LIMIT, RESIDUAL_LIMIT)
        spreads = _decayed_sums(self.spread_sum, residual_spread(residual, observed), decay)
        spread = against_usual(spreads[:-1], square_weights[:-1, :, None]).transpose(1, 0, 2)
        decays = [float(np.exp(-1.0 / _memory_steps(seasons, self.season))) for seasons in MEMORY_SEASONS]
        memory = np.stack([_decayed_sums(self.memory_sum[k], residual, d) for k, d in enumerate(decays)])
        memory_weight = np.stack([_decayed_sums(self.memory_weight[k : k + 1], one, d) for k, d in enumerate(decays)])
        faded = list(mean(memory[:, :-1], memory_weight[:, :-1]))
        tokens = _tokens(
            starts_us,
            residual,
            anchor,
            rivals,
            scale,
            faded,
            spread,
            distance=np.zeros(n),
            season=self.season,
            reach_steps=0,
        )

        daily_sum, daily_weight = self.daily_sum.copy(), self.daily_weight.copy()
        latest = slice(max(0, n - len(daily_sum)), n)
        day = position[latest] % len(daily_sum)
        daily_sum[day], daily_weight[day] = daily_sums[1, latest], daily_weights[1, latest]
        after = replace(
            self,
            next_us=self.next_us + n * self.step_us,
            observed=self.observed + n,
            profile_sum=profile_sum,
            profile_weight=profile_weight,
            daily_sum=daily_sum,
            daily_weight=daily_weight,
            level_sum=level_sum[:, -1],
            level_expected=level_expected[:, -1],
            level_weight=level_weight[:, -1, 0],
            square_sum=squares[-1],
            spread_sum=spreads[-1],
            square_weight=float(square_weights[-1, 0]),
            memory_sum=memory[:, -1],
            memory_weight=memory_weight[:, -1, 0],
            heights=heights,
        )
        return after, tokens
