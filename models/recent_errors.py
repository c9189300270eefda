"""Correction on the live stream: forecasts are drawn to the anchor where they failed of late, then their levels moved.

A forecaster notes at regular steps what it says of the season ahead. As these steps are observed, notes become errors,
in which later forecasts weigh more. They tell two things.

How much of what the median says beside the anchor comes true: the slope of what came on what was said (Mincer and
Zarnowitz 1969, "The evaluation of economic forecasts"), here through the origin and within 0 and 1. One less the slope
is the doubt: that share of the median is taken back from all levels. A network like none that the model learned from
is so forecast by its own anchor.

Then each quantile level is moved by that quantile of its own errors: split conformal prediction with weights for data
that drift (Barber, Candès, Ramdas and Tibshirani 2023, "Conformal prediction beyond exchangeability"), one-sided at
each level. Last, what hardly ever happened is held to as little (`models.rarity`).

All of it is a function of the observed steps alone, so any process that observed the same steps holds the same, and no
forecast knows more than its origin.

Shape suffixes: D noted distances, M modelled metrics, Q quantile levels, K horizon buckets, N errors, L steps ahead.
"""

from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import numpy.typing as npt

from models.calibration import Calibration, between_buckets
from models.columns import IS_COUNT, LEVELS, MEDIAN, N_MODELLED
from models.contract import FloatArray
from models.rarity import Rarity

# Chosen on the validation parts of the development logs: notes a season, how many halve the weight of a note, how many
# it takes to move a bucket half-way, how many notes trust in the model counts as, and the buckets.
NOTES_PER_SEASON, HALF_LIFE_NOTES, SHRINKAGE_NOTES, TRUST_NOTES = 14, 10, 7, 3
# Older notes weigh less than 1/32 and are dropped.
MAX_NOTES = 5 * HALF_LIFE_NOTES
# A season of short steps is noted up to here; beyond what was noted, offsets fade out over a factor of four.
MAX_REACH_STEPS, _FADE_FACTOR = 672, 4.0
_BUCKETS = ((1, 10), (11, 24), (25, 100), (101, MAX_REACH_STEPS))
_DISTANCES_PER_BUCKET = 8
# Notes are many and need no more.
_Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Grid:
    """Which distances ahead are noted: `distance_D`, in steps, and the rows of each bucket among them."""

    distance_D: npt.NDArray[np.int64]
    buckets: tuple[tuple[int, int], ...]
    rows: tuple[slice, ...]


@cache
def _grid(reach: int) -> _Grid:
    distances, buckets, rows, begin = [], [], [], 0
    for first, last in _BUCKETS:
        if first > reach:
            break
        within = np.unique(np.geomspace(first, min(last, reach), _DISTANCES_PER_BUCKET).round().astype(np.int64))
        distances.append(within)
        buckets.append((first, min(last, reach)))
        rows.append(slice(begin, begin + len(within)))
        begin += len(within)
    return _Grid(np.concatenate(distances), tuple(buckets), tuple(rows))


@dataclass(frozen=True, slots=True)
class Note:
    """What was said after `observed` steps: residual quantiles and the units that they are in; errors as they come."""

    observed: int
    quantiles_DMQ: _Float32Array
    anchor_DM: FloatArray
    scale_DM: FloatArray
    error_DMQ: _Float32Array


@dataclass(frozen=True, slots=True)
class RecentErrors:
    """The notes of the last seasons and the corrections that follow from them; a value.

    Attributes:
        season: steps of a season.
        notes: oldest first, at most `MAX_NOTES`.
        doubts_KM: by bucket, what share of the residual median is taken back; `settled` brings both up to date.
        moved: by how much residual quantiles are moved then.
        rarity: how often each metric was seen, which bounds what is expected of rare ones.
        unit_M: the unit of residuals when corrections were last brought up to date.
    """

    season: int
    notes: tuple[Note, ...] = ()
    doubts_KM: FloatArray = field(default_factory=lambda: np.zeros((0, N_MODELLED)))
    moved: Calibration = field(default_factory=Calibration.none)
    rarity: Rarity = field(default_factory=Rarity)
    unit_M: FloatArray = field(default_factory=lambda: np.zeros(N_MODELLED))

    @property
    def reach(self) -> int:
        """How many steps ahead a note looks."""
        return min(self.season, MAX_REACH_STEPS)

    @property
    def stride(self) -> int:
        """How many steps lie between two notes: one more than divides the day, so that all hours have their turn."""
        return self.season // NOTES_PER_SEASON + 1

    def marks(self, observed: int, n: int) -> list[int]:
        """Return how many of `n` further steps to observe before each note that will still count after all of them."""
        first = max(observed + 1, self.season, observed + n - MAX_NOTES * self.stride)
        begin = -(-first // self.stride) * self.stride
        return [mark - observed for mark in range(begin, observed + n + 1, self.stride)]

    def note(self, observed: int, residuals_LMQ: FloatArray, anchor_LM: FloatArray, scale_LM: FloatArray) -> Note:
        """Return a note of the forecast of the next `reach` steps, made after `observed` steps."""
        at_D = _grid(self.reach).distance_D - 1
        quantiles_DMQ = residuals_LMQ[at_D].astype(np.float32)
        return Note(observed, quantiles_DMQ, anchor_LM[at_D], scale_LM[at_D], np.full_like(quantiles_DMQ, np.nan))

    def noted(self, note: Note) -> "RecentErrors":
        """Return the errors with one more note."""
        return replace(self, notes=(*self.notes, note)[-MAX_NOTES:])

    def by_step(self) -> dict[int, Note]:
        """Return the notes by the steps that were observed before each, as they were when they were made."""
        return {note.observed: replace(note, error_DMQ=np.full_like(note.error_DMQ, np.nan)) for note in self.notes}

    def observe(self, observed: int, transformed_LM: FloatArray) -> "RecentErrors":
        """Return the errors after further steps with transformed values [L, M], of which `observed` came before."""
        notes = tuple(self._seen(note, observed, transformed_LM) for note in self.notes)
        return replace(self, notes=notes, rarity=self.rarity.observe(observed, transformed_LM, self.season))

    def _seen(self, note: Note, observed: int, transformed_LM: FloatArray) -> Note:
        row_D = note.observed + _grid(self.reach).distance_D - 1 - observed
        now = (row_D >= 0) & (row_D < len(transformed_LM))
        if not now.any():
            return note
        error_DMQ = note.error_DMQ.copy()
        residual_DM = (transformed_LM[row_D[now]] - note.anchor_DM[now]) / note.scale_DM[now]
        error_DMQ[now] = residual_DM[..., None] - note.quantiles_DMQ[now]
        return replace(note, error_DMQ=error_DMQ)

    def settled(self, observed: int, scale_M: FloatArray) -> "RecentErrors":
        """Return the errors with the corrections that follow from them after `observed` steps.

        Args:
            observed: steps that were observed.
            scale_M: the unit that residuals have by now.
        """
        grid = _grid(self.reach)
        notes = [note for note in self.notes if observed - note.observed <= MAX_NOTES * self.stride]
        if not notes:
            return RecentErrors(self.season, rarity=self.rarity, unit_M=scale_M)
        weight_N = np.array([0.5 ** ((observed - note.observed) / (self.stride * HALF_LIFE_NOTES)) for note in notes])
        error_NDMQ = np.stack([note.error_DMQ for note in notes])
        said_NDM = np.stack([note.quantiles_DMQ[..., MEDIAN] for note in notes])
        # What one of the residual's units is in those of the metric, at the anchor.
        unit_NDM = np.stack([note.scale_DM * np.where(IS_COUNT, np.exp(note.anchor_DM), 1.0) for note in notes])
        # A series that wakes up errs by many of the small units of its sleep: as many of those of now would be an error
        # that nobody made.
        change_NDM = np.stack([(note.scale_DM / scale_M).astype(np.float32) for note in notes])
        doubts, offsets = [], []
        for rows in grid.rows:
            error, said = error_NDMQ[:, rows], said_NDM[:, rows]
            doubt_M = _doubt(error[..., MEDIAN], said, unit_NDM[:, rows], weight_N)
            doubts.append(doubt_M)
            left = error + (doubt_M.astype(np.float32) * said)[..., None]
            offsets.append(_offsets(left * change_NDM[:, rows, :, None], weight_N))
        moved = Calibration(grid.buckets, np.stack(offsets), 0, 0)
        return replace(self, notes=tuple(notes), doubts_KM=np.stack(doubts), moved=moved, unit_M=scale_M)

    def corrected(self, residuals_LMQ: FloatArray, distance_L: FloatArray) -> FloatArray:
        """Return residual quantiles [L, M, Q] at distances ahead [L] corrected; what is rare is held at all of them."""
        return self.rarity.held(self._followed(residuals_LMQ, distance_L), self.unit_M)

    def _followed(self, residuals_LMQ: FloatArray, distance_L: FloatArray) -> FloatArray:
        """Return residual quantiles moved by the errors of the notes; far beyond a season as they are."""
        if not self.notes:
            return residuals_LMQ
        beyond_L = np.log(np.maximum(distance_L / self.reach, 1.0)) / np.log(_FADE_FACTOR)
        fading_L11 = np.clip(1.0 - beyond_L, 0.0, 1.0)[:, None, None]
        doubt_LM1 = between_buckets(self.moved.buckets, self.doubts_KM[..., None], distance_L)
        correction_LMQ = self.moved.offsets(distance_L) - doubt_LM1 * residuals_LMQ[..., MEDIAN, None]
        return np.asarray(residuals_LMQ + fading_L11 * correction_LMQ)


def _doubt(error_NDM: _Float32Array, said_NDM: _Float32Array, unit_NDM: FloatArray, weight_N: FloatArray) -> FloatArray:
    """Return what share of residual medians not to believe [M], from their errors; 0 while there are none."""
    known_ND = ~np.isnan(error_NDM[..., 0])
    weight_E1 = np.broadcast_to(weight_N[:, None], known_ND.shape)[known_ND][:, None]
    said_EM = said_NDM[known_ND].astype(np.float64)
    came_EM = said_EM + error_NDM[known_ND]
    weight_EM = weight_E1 * unit_NDM[known_ND]
    said_M = (weight_EM * said_EM**2).sum(axis=0)
    came_M = (weight_EM * said_EM * came_EM).sum(axis=0)
    # Trust is so many notes more of which all came true.
    notes = weight_E1.sum() / error_NDM.shape[1]
    trust_M = said_M * TRUST_NOTES / max(notes, 1e-9)
    slope_M = np.divide(came_M + trust_M, said_M + trust_M, out=np.ones_like(said_M), where=said_M > 0)
    return np.asarray(1.0 - np.clip(slope_M, 0.0, 1.0))


def _offsets(error_NDMQ: _Float32Array, weight_N: FloatArray) -> FloatArray:
    """Return the offset [M, Q] of each level: that weighted quantile of its errors, drawn to 0 while they are few."""
    known_ND = ~np.isnan(error_NDMQ[..., 0, 0])
    if not known_ND.any():
        return np.zeros((N_MODELLED, len(LEVELS)))
    weight_E = np.broadcast_to(weight_N[:, None], known_ND.shape)[known_ND]
    error_EMQ = error_NDMQ[known_ND].astype(np.float64)
    order = np.argsort(error_EMQ, axis=0)
    share_EMQ = np.cumsum(weight_E[order], axis=0) / weight_E.sum()
    rank_MQ = np.minimum((share_EMQ < LEVELS).sum(axis=0), len(error_EMQ) - 1)
    quantile_MQ = np.take_along_axis(error_EMQ, np.take_along_axis(order, rank_MQ[None], 0), 0)[0]
    notes = weight_E.sum() / error_NDMQ.shape[1]
    return np.asarray(quantile_MQ * (notes / (notes + SHRINKAGE_NOTES)))
