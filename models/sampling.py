"""Which forecasts a training sees: series and their weights, horizons, and what is kept for validation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.contract import History
from models.outlook import SPREAD
from models.samples import Batch, IntArray, Plan, SampleSource
from models.seasons import season_steps

# A graph is known by the spread of its residuals. In this share of the batches it is hidden, as it is of a young graph,
# so that it is not learned by heart.
HIDDEN_SPREAD_SHARE = 0.3
# Of the forecasts drawn, so many are as far as the shortest horizon, the middle one and the longest.
_HORIZON_SHARES = (0.7, 0.2, 0.1)
_VALIDATED_FORECASTS = (24, 6, 2)
# Forecasts from one stretch, and steps between the places that they may begin at.
_MOST_CUTS, _LONGEST_GRID = 6, 32


@dataclass(frozen=True, slots=True)
class TrainingSeries:
    """A history to train on.

    Attributes:
        history: its steps.
        weight: how often it is drawn, against the other series.
        validation_share: its latest share, kept for early stopping and calibration; 0 for none.
    """

    history: History
    weight: float = 1.0
    validation_share: float = 0.0


def horizons(season: int, length: int, reach_steps: int) -> tuple[int, ...]:
    """Return the training horizons of a graph: about a season, four of them, and as far as its history allows."""
    middle, far = min(4 * season, reach_steps, length // 4), min(reach_steps, length // 3)
    return tuple(sorted({near_horizon(season, length), max(1, middle), max(1, far)}))


def near_horizon(season: int, length: int) -> int:
    """Return the shortest training horizon: a season and a seventh, or a quarter of a history that is too short."""
    return min(season + max(1, season // 7), max(1, length // 4))


def cut_grid(length: int) -> int:
    """Return of how many steps the cuts of a stretch of `length` steps are multiples.

    So a stretch is encoded in one pass, in chunks of a grid, at the ends of which states are known. Stretches begin
    anywhere, and so forecasts do. As fine as leaves some choice of cuts, and no longer than a chunk should be.
    """
    return int(np.clip(length * 3 // 4 // (_MOST_CUTS + 2), 1, _LONGEST_GRID))


class Sampler:
    """Draws batches from many series; batch `number` of a `worker` is the same however often it is drawn.

    Args:
        series: what to draw from.
        reach_steps: the longest distance ahead that a model is told.
        tokens_per_batch: tokens of steps ahead in one batch; it holds fewer forecasts as their horizon grows.
        seed: of all draws.
    """

    def __init__(self, series: Sequence[TrainingSeries], *, reach_steps: int, tokens_per_batch: int, seed: int) -> None:
        self._seed, self._tokens_per_batch = seed, tokens_per_batch
        weights = np.array([one.weight for one in series])
        self._shares = weights / weights.sum()
        self._sources = [SampleSource(one.history, reach_steps=reach_steps) for one in series]
        self._ends = [len(one.history) - validated_steps(one) for one in series]
        self._horizons = [
            horizons(source.season, end, reach_steps) for source, end in zip(self._sources, self._ends, strict=True)
        ]

    @property
    def season(self) -> int:
        """Steps of a season of the first series."""
        return self._sources[0].season

    def draw(self, number: int, worker: int = 0) -> Batch:
        """Return a batch of one series: mostly short horizons, some long."""
        generator = np.random.default_rng((self._seed, number, worker))
        chosen = int(generator.choice(len(self._sources), p=self._shares))
        source, end, reach = self._sources[chosen], self._ends[chosen], self._horizons[chosen]
        shares = np.array(_HORIZON_SHARES[: len(reach)])
        horizon = int(generator.choice(reach, p=shares / shares.sum()))
        length = max(2, min(2 * source.season, end // 4))
        n_origins = max(1, self._tokens_per_batch // horizon)
        grid = cut_grid(length)
        places = np.arange(length // 4 // grid + 1, length // grid + 1) * grid
        n_cuts = min(max(1, min(_MOST_CUTS, n_origins // 4)), len(places))
        cuts = np.sort(generator.choice(places, size=n_cuts, replace=False))
        room = end - int(cuts[-1]) - horizon
        begins = generator.integers(0, max(1, room + 1), size=max(1, n_origins // n_cuts))
        batch = source.batch(Plan(begins, cuts, horizon))
        if generator.random() < HIDDEN_SPREAD_SHARE:
            batch.history_BLF[..., SPREAD] = 0.0
            batch.ahead_NHF[..., SPREAD] = 0.0
        return batch

    def validation(self) -> list[Batch]:
        """Return fixed forecasts whose targets all lie in the validation parts."""
        batches = []
        for source, end, reach in zip(self._sources, self._ends, self._horizons, strict=True):
            if end < len(source):
                batches += _validation_batches(source, end, reach, self._seed)
        return batches


def validated_steps(series: TrainingSeries) -> int:
    """Return the steps of a series kept for validation; the shortest horizon fits into them, however short it is."""
    if series.validation_share <= 0:
        return 0
    length = len(series.history)
    season = season_steps(series.history.step_us)
    return max(math.ceil(length * series.validation_share), near_horizon(season, length))


def spread_origins(begin: int, spare: int, wanted: int) -> IntArray:
    """Return `wanted` origins from `begin` to `spare` steps behind it, fewer where there are not so many."""
    return begin + np.unique(np.linspace(0, spare, num=min(wanted, spare + 1)).astype(np.int64))


def judged_batch(source: SampleSource, begin: int, origins: IntArray, horizon: int) -> Batch:
    """Return forecasts to judge a net by, which know two seasons before their origins, or `begin` steps if fewer."""
    length = max(1, min(2 * source.season, begin))
    return source.batch(Plan(origins - length, np.array([length]), horizon))


def _validation_batches(source: SampleSource, begin: int, reach: tuple[int, ...], seed: int) -> list[Batch]:
    generator = np.random.default_rng(seed)
    batches = []
    for horizon, wanted in zip(reach, _VALIDATED_FORECASTS, strict=False):
        room = len(source) - begin - horizon
        if room < 0:
            continue
        origins = spread_origins(begin, room, wanted)
        jitter = generator.integers(0, max(1, min(source.season, room // max(1, len(origins)))), size=len(origins))
        batches.append(judged_batch(source, begin, np.minimum(origins + jitter, len(source) - horizon), horizon))
    return batches
