"""Calibration of forecasts, fitted on what training did not learn from, per metric and horizon.

Split conformal prediction (Vovk, Gammerman and Shafer 2005, "Algorithmic learning in a random world"), one-sided at
each quantile level as in conformalized quantile regression (Romano, Patterson and Candès 2019): a quantile is moved by
that quantile of its own errors, so that on data like the validation part it holds what its level says.

Shape suffixes: N forecasts, H horizon, M modelled metrics, Q quantile levels, K horizon buckets.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.calibration import Calibration
from models.columns import IS_COUNT, LEVELS, N_MODELLED
from models.contract import FloatArray
from models.forecaster import ForecasterNet
from models.losses import batch_quantiles
from models.outlook import LEANS, LEVEL_SEASONS, N_LEANS
from models.samples import Batch
from models.scoring import HORIZON_BUCKETS

# Offsets count in full when there are many more errors than this; few errors say little.
_SHRINKAGE = 2000.0
# No offset is larger, in units of the usual error. A series that wakes up in its validation part errs by many of the
# small units of its sleep; moved by as many of those that it has then, its forecasts would know no bound.
_MAX_OFFSET = 1.5
# What the share below a level may differ from it, and what of the climate's loss a forecast has to stay under.
TOLERANCE, SKILL_RATIO = 0.03, 0.99
# The level of the slowest average is the climate of a series. Rivals are the levels but the anchor's, then profiles.
_CLIMATE_LEAN = len(LEVEL_SEASONS) - 2


@dataclass(slots=True)
class _Errors:
    """Errors of one bucket, collected over batches: of each quantile, and of the climate; with their weights."""

    quantile: list[FloatArray]
    climate: list[FloatArray]
    weight: list[FloatArray]


def fit_calibration(net: ForecasterNet, batches: Iterable[Batch]) -> Calibration:
    """Return the calibration of a net on forecasts that it did not learn from; of no forecasts, none."""
    errors = [_Errors([], [], []) for _ in HORIZON_BUCKETS]
    farthest = 0
    for batch in batches:
        farthest = max(farthest, batch.target_NHM.shape[1])
        _collect(net, batch, errors)
    if farthest == 0:
        return Calibration.none()
    buckets = tuple((first, min(last, farthest)) for first, last in HORIZON_BUCKETS if first <= farthest)
    errors = errors[: len(buckets)]
    offsets, calibrated, skill = [], 0, 0
    is_calibrated = has_skill = True
    for (_, last), found in zip(buckets, errors, strict=True):
        errors_NMQ = np.concatenate(found.quantile)
        moved_MQ = _conformal(errors_NMQ)
        offsets.append(moved_MQ)
        left_NMQ = errors_NMQ - moved_MQ
        counts = left_NMQ[:, IS_COUNT]
        below_Q, at_or_below_Q = (counts < 0).mean(axis=(0, 1)), (counts <= 0).mean(axis=(0, 1))
        is_calibrated &= bool(((below_Q - TOLERANCE <= LEVELS) & (at_or_below_Q + TOLERANCE >= LEVELS)).all())
        weight_NM1 = np.concatenate(found.weight)[..., None]
        climate_NM1 = np.concatenate(found.climate)[..., None]
        climate_NMQ = climate_NM1 - np.quantile(climate_NM1, LEVELS, axis=0)[..., 0].T
        ours, theirs = ((_pinball(e) * weight_NM1)[:, IS_COUNT].mean() for e in (left_NMQ, climate_NMQ))
        has_skill &= bool(ours < SKILL_RATIO * theirs)
        calibrated, skill = (last if is_calibrated else calibrated), (last if has_skill else skill)
    return Calibration(buckets, np.stack(offsets), calibrated, skill)


def _collect(net: ForecasterNet, batch: Batch, errors: list[_Errors]) -> None:
    with torch.inference_mode():
        low_NHM1, high_NHM1 = batch.low_NHM.unsqueeze(-1), batch.high_NHM.unsqueeze(-1)
        quantiles_NHMQ = torch.clamp(batch_quantiles(net, batch), low_NHM1, high_NHM1)
        climate_NHM = batch.ahead_NHF[..., LEANS].unflatten(-1, (N_LEANS, N_MODELLED))[..., _CLIMATE_LEAN, :]
        error_NHMQ = batch.target_NHM.unsqueeze(-1) - quantiles_NHMQ
        climate_error_NHM = batch.target_NHM - climate_NHM
    for (first, last), found in zip(HORIZON_BUCKETS, errors, strict=True):
        within = slice(first - 1, last)
        found.quantile.append(_flat(error_NHMQ[:, within]))
        found.climate.append(_flat(climate_error_NHM[:, within]))
        found.weight.append(_flat(batch.weight_NHM[:, within]))


def _flat(values_NH: Tensor) -> FloatArray:
    return np.asarray(values_NH.flatten(0, 1).double().numpy())


def _conformal(errors_NMQ: FloatArray) -> FloatArray:
    """Return the offset [M, Q] of each level: that quantile of its own errors, drawn towards 0 while they are few.

    At most `_MAX_OFFSET` either way.
    """
    n = len(errors_NMQ)
    offsets = [
        np.quantile(errors_NMQ[..., q], min(1.0, np.ceil((n + 1) * level) / n), axis=0)
        for q, level in enumerate(LEVELS)
    ]
    return np.clip(np.stack(offsets, axis=-1) * n / (n + _SHRINKAGE), -_MAX_OFFSET, _MAX_OFFSET)


def _pinball(errors_NMQ: FloatArray) -> FloatArray:
    return np.maximum(LEVELS * errors_NMQ, (LEVELS - 1) * errors_NMQ)
